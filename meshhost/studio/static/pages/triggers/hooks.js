/** The hooks of a room: addresses that foreign services send to. A secret is shown once, when it is made. */
import { at, get, post, remove } from "../../app/api.js";
import { useResource } from "../../app/live.js";
import { to } from "../../app/router.js";
import { Confirm, Dialog } from "../../ui/dialog.js";
import { SelectField, TextField } from "../../ui/field.js";
import { bytes } from "../../ui/format.js";
import { Icon } from "../../ui/icons.js";
import { Badge, Card, Empty, Loaded, PageHead, Time } from "../../ui/parts.js";
import { html, useState } from "../../ui/preact.js";
import { Secret } from "../../ui/secret.js";
import { Table } from "../../ui/table.js";
import { attempt } from "../../ui/toast.js";

/** @typedef {{id: string, name: string, queue: string, verify: string, url: string, created_at: number, ready: boolean, error: string | null, secret?: string | null}} Hook */

/** @type {[string, string][]} */
const SCHEMES = [
  ["standard-webhooks", "Standard Webhooks"],
  ["github", "GitHub"],
  ["stripe", "Stripe"],
  ["slack", "Slack"],
  ["none", "None: whoever knows the address may send"],
];

/** @param {{room: string}} props */
export default function Hooks({ room }) {
  const path = at`/rooms/${room}/hooks`;
  const list = useResource((signal) => get(path, signal), [path], { every: 15_000 });
  const [open, setOpen] = useState(/** @type {{what: "make" | "show" | "secret" | "delete", hook?: Hook} | null} */ (null));
  const [made, setMade] = useState(/** @type {Hook | null} */ (null));
  const close = () => {
    setOpen(null);
    list.refresh();
  };
  const one = (/** @type {Hook} */ hook) => `${path}/${encodeURIComponent(hook.id)}`;
  const test = (/** @type {Hook} */ hook) => attempt(() => post(`${one(hook)}/test`), ({ id }) => `A signed test was stored as message ${id}.`);
  const make = html`<button class="button primary" onClick=${() => setOpen({ what: "make" })}><${Icon} name="plus" />New hook</button>`;
  const columns = [
    {
      name: "Hook",
      head: true,
      cell: (/** @type {Hook} */ each) => html`<span><button class="link" onClick=${() => setOpen({ what: "show", hook: each })}>${each.name || each.queue}</button> ${!each.ready && html`<${Badge} tone="warn">needs its secret</${Badge}>`}
        ${each.error && html`<p class="bad-text small wrap">${each.error}</p>`}</span>`,
    },
    { name: "Address", full: true, cell: (/** @type {Hook} */ each) => html`<${Secret} value=${each.url} what="address" />` },
    { name: "Queue", cell: (/** @type {Hook} */ each) => html`<a href=${to`/rooms/${room}/queues/${each.queue}`}>${each.queue}</a>` },
    { name: "Signed by", cell: (/** @type {Hook} */ each) => each.verify },
    {
      name: "",
      full: true,
      cell: (/** @type {Hook} */ each) => html`<span class="row-actions">
        <button class="button quiet" onClick=${() => test(each)}>Test</button>
        ${each.verify !== "none" && html`<button class="button quiet" onClick=${() => setOpen({ what: "secret", hook: each })}>New secret</button>`}
        <button class="button quiet icon-only danger" aria-label=${`Delete ${each.name || each.queue}`} onClick=${() => setOpen({ what: "delete", hook: each })}><${Icon} name="trash" /></button>
      </span>`,
    },
  ];
  return html`<${PageHead} title=${`Hooks of ${room}`}>${make}</${PageHead}>
    <${Card} label="Hooks">
      <${Loaded} of=${list} what="Loading the hooks">
        ${(/** @type {{hooks: Hook[]}} */ { hooks }) =>
          hooks.length ? html`<${Table} label="Hooks" columns=${columns} rows=${hooks} rowKey=${(/** @type {Hook} */ each) => each.id} />` : html`<${Empty} title="No hooks" actions=${make}>A hook gives a service such as GitHub an address to send to; what comes becomes a message of a queue.</${Empty}>`}
      </${Loaded}>
    </${Card}>
    ${open?.what === "make" && html`<${NewHook} path=${path} onClose=${close} onMade=${setMade} />`}
    ${open?.what === "show" && open.hook && html`<${Deliveries} room=${room} path=${one(open.hook)} hook=${open.hook} onClose=${close} />`}
    ${open?.what === "secret" && open.hook && html`<${NewSecret} path=${one(open.hook)} hook=${open.hook} onClose=${close} onMade=${setMade} />`}
    ${open?.what === "delete" &&
    open.hook &&
    html`<${Confirm} title="Delete the hook" action="Delete" onClose=${close} onConfirm=${() => attempt(() => remove(one(/** @type {any} */ (open.hook))), "The hook is deleted.")}>
      Its address stops working at once, and never works again.</${Confirm}>`}
    ${made &&
    html`<${Dialog} title="The hook is ready" onClose=${() => setMade(null)}>
      <p>Give the service this address:</p><${Secret} value=${made.url} what="address" />
      ${made.secret && html`<p>And this secret. It is shown this once:</p><${Secret} value=${made.secret} what="secret" />`}
      <div class="dialog-foot"><button class="button primary" onClick=${() => setMade(null)}>Done</button></div>
    </${Dialog}>`}`;
}

/** @param {{path: string, onClose: () => void, onMade: (hook: Hook) => void}} props */
function NewHook({ path, onClose, onMade }) {
  const [values, setValues] = useState({ name: "", queue: "", verify: "standard-webhooks", secret: "" });
  const [fault, setFault] = useState("");
  const set = (/** @type {string} */ name) => (/** @type {string} */ value) => setValues({ ...values, [name]: value });
  const givesSecret = values.verify === "stripe" || values.verify === "slack";
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    const { secret, ...body } = values;
    try {
      onMade(await post(path, { ...body, ...(secret ? { secret } : {}) }));
      onClose();
    } catch (error) {
      setFault(/** @type {Error} */ (error).message);
    }
  };
  return html`<${Dialog} title="New hook" onClose=${onClose}>
    <form class="form" onSubmit=${submit}>
      <div class="form-row">
        <${TextField} label="Name" value=${values.name} onInput=${set("name")} autofocus=${true} />
        <${TextField} label="Queue" value=${values.queue} onInput=${set("queue")} required=${true} />
      </div>
      <${SelectField} label="How deliveries are signed" value=${values.verify} onChange=${set("verify")} options=${SCHEMES} />
      ${values.verify !== "none" && html`<${TextField} label=${givesSecret ? "Secret that the service gave you" : "Secret (optional: one is made)"} value=${values.secret} onInput=${set("secret")} hint=${givesSecret ? "It can be set later, when the service has the address." : ""} />`}
      ${fault && html`<p class="note" data-tone="bad" role="alert">${fault}</p>`}
      <div class="dialog-foot"><button class="button" type="button" onClick=${onClose}>Cancel</button><button class="button primary">Make the hook</button></div>
    </form>
  </${Dialog}>`;
}

/** @param {{path: string, hook: Hook, onClose: () => void, onMade: (hook: Hook) => void}} props */
function NewSecret({ path, hook, onClose, onMade }) {
  const [secret, setSecret] = useState("");
  const [fault, setFault] = useState("");
  const isGiven = hook.verify === "stripe" || hook.verify === "slack";
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    try {
      onMade(await post(`${path}/secret`, secret ? { secret } : {}));
      onClose();
    } catch (error) {
      setFault(/** @type {Error} */ (error).message);
    }
  };
  return html`<${Dialog} title="New secret" onClose=${onClose}>
    <form class="form" onSubmit=${submit}>
      <${TextField} label=${isGiven ? "Secret that the service gave you" : "Secret (optional: one is made)"} value=${secret} onInput=${setSecret} fault=${fault} hint="What is signed with the old one is refused at once." autofocus=${true} />
      <div class="dialog-foot"><button class="button" type="button" onClick=${onClose}>Cancel</button><button class="button primary">Change the secret</button></div>
    </form>
  </${Dialog}>`;
}

/** @type {Record<string, ["ok" | "warn" | "bad", string]>} */
const OUTCOMES = { stored: ["ok", "stored"], challenge: ["ok", "answered a challenge"], refused: ["bad", "refused"], failed: ["bad", "failed"] };

/** @param {{room: string, path: string, hook: Hook, onClose: () => void}} props */
function Deliveries({ room, path, hook, onClose }) {
  const found = useResource((signal) => get(path, signal), [path], { every: 4000 });
  return html`<${Dialog} title=${`Deliveries to ${hook.name || hook.queue}`} wide=${true} onClose=${onClose}>
    <${Loaded} of=${found}>
      ${(/** @type {{deliveries: any[]}} */ { deliveries }) =>
        deliveries.length
          ? html`<ol class="timeline">${deliveries.map((each) => {
              const [tone, text] = OUTCOMES[each.outcome] ?? ["warn", each.outcome];
              return html`<li data-tone=${tone}><p>${text}${each.bytes !== undefined && ` · ${bytes(each.bytes)}`} <span class="muted">· <${Time} at=${each.at} /></span>
                ${each.message_id && html` · <a href=${to`/rooms/${room}/queues/${hook.queue}/${each.message_id}`}>message ${each.message_id}</a>`}</p>
                ${each.error && html`<p class="bad-text wrap">${each.error}</p>`}</li>`;
            })}</ol>`
          : html`<${Empty} title="Nothing was delivered yet">Use Test, or let the service send something to the address.</${Empty}>`}
    </${Loaded}>
  </${Dialog}>`;
}
