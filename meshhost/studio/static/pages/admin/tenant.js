/** One tenant, for the operator: its keys, quota and use; renaming, suspending, deleting it. */
import { at, get, patch, post, query, remove } from "../../app/api.js";
import { useResource } from "../../app/live.js";
import { go, to } from "../../app/router.js";
import { Confirm, Dialog } from "../../ui/dialog.js";
import { TextField } from "../../ui/field.js";
import { Icon } from "../../ui/icons.js";
import { Badge, Card, Empty, Loaded, PageHead } from "../../ui/parts.js";
import { html, useState } from "../../ui/preact.js";
import { Count, Table } from "../../ui/table.js";
import { attempt, notify } from "../../ui/toast.js";
import { KeyTable } from "./key-table.js";
import { Quota, QuotaForm } from "./quota.js";

/** @param {{tenant: string}} props */
export default function TenantPage({ tenant: name }) {
  const path = at`/tenants/${name}`;
  const found = useResource((signal) => get(path, signal), [path], { every: 10_000 });
  const [open, setOpen] = useState(/** @type {"rename" | "suspend" | "delete" | "quota" | null} */ (null));
  const close = () => {
    setOpen(null);
    found.refresh();
  };
  const isSuspended = Boolean(found.data?.suspended);
  const resume = async () => {
    await attempt(() => post(`${path}/resume`), `${name} may go on.`);
    found.refresh();
  };
  return html`<${PageHead} title=${name} badge=${isSuspended && html`<${Badge} tone="warn">suspended</${Badge}>`}>
      <button class="button" onClick=${() => setOpen("rename")}>Rename</button>
      ${isSuspended ? html`<button class="button" onClick=${resume}><${Icon} name="play" />Resume</button>` : html`<button class="button danger" onClick=${() => setOpen("suspend")}><${Icon} name="pause" />Suspend</button>`}
      <button class="button danger" onClick=${() => setOpen("delete")}><${Icon} name="trash" />Delete</button>
    </${PageHead}>
    ${isSuspended && html`<p class="note" data-tone="warn">Suspended: ${found.data.suspended}</p>`}
    <${KeyTable} path=${path} mayChange=${true} />
    ${found.data && html`<${Rooms} id=${found.data.id} />`}
    <${Card} title="Quota" actions=${html`<button class="button" onClick=${() => setOpen("quota")}>Change</button>`}>
      <${Loaded} of=${found}>${(/** @type {any} */ data) => html`<${Quota} tenant=${data} />`}</${Loaded}>
    </${Card}>
    ${open === "quota" && found.data && html`<${QuotaForm} path=${path} quota=${found.data.quota} onClose=${close} />`}
    ${open === "rename" && html`<${OneField} title=${`Rename ${name}`} label="Name" action="Rename" value=${name} onClose=${close} save=${async (/** @type {string} */ text) => {
      await patch(path, { name: text });
      notify("The tenant is renamed.");
      go(to`/tenants/${text}`, { replace: true });
    }} />`}
    ${open === "suspend" && html`<${OneField} title=${`Suspend ${name}`} label="Reason, which the tenant sees" action="Suspend" value="" danger=${true} onClose=${close} save=${async (/** @type {string} */ text) => {
      await post(`${path}/suspend`, text ? { reason: text } : {});
      notify(`${name} is suspended.`);
    }}>Its participants are disconnected and its keys refused until it is resumed. Nothing is deleted.</${OneField}>`}
    ${open === "delete" && html`<${Confirm} title=${`Delete ${name}`} action="Delete for good" typed=${name} onClose=${() => setOpen(null)} onConfirm=${async () => {
      const done = await attempt(() => remove(path), ({ deleted }) => (deleted ? `${name} is deleted.` : `${name} is being deleted; this goes on by itself.`));
      if (done !== undefined) go("/studio/tenants");
    }}>All its rooms with their messages, files and documents, its schedules, hooks and keys are deleted. This can't be undone: export it first if in doubt.</${Confirm}>`}`;
}

/** @typedef {{name: string, open: boolean, participants: number, agents: number, ready: number, leased: number, dead: number}} Room */

/** The rooms of the tenant, as far as an operator sees them: how many are in them, and nothing of what. @param {{id: string}} props */
function Rooms({ id }) {
  const overview = useResource((signal) => get(`/overview${query({ tenant: id, limit: 200 })}`, signal), [id], { every: 10_000 });
  const columns = [
    { name: "Room", head: true, cell: (/** @type {Room} */ room) => html`<span class="wrap">${room.name}</span>` },
    { name: "State", cell: (/** @type {Room} */ room) => html`<${Badge} tone=${room.open ? "ok" : undefined}>${room.open ? "open" : "closed"}</${Badge}>` },
    { name: "Participants", number: true, cell: (/** @type {Room} */ room) => html`<${Count} value=${room.participants} />` },
    { name: "Agents", number: true, cell: (/** @type {Room} */ room) => html`<${Count} value=${room.agents} />` },
    { name: "Ready", number: true, cell: (/** @type {Room} */ room) => html`<${Count} value=${room.ready} />` },
    { name: "In progress", number: true, cell: (/** @type {Room} */ room) => html`<${Count} value=${room.leased} />` },
    { name: "Dead", number: true, cell: (/** @type {Room} */ room) => html`<${Count} value=${room.dead} tone="bad" />` },
  ];
  return html`<${Card} title="Rooms">
    <${Loaded} of=${overview} what="Loading the rooms">
      ${(/** @type {{rooms: Room[], next: string | null}} */ { rooms, next }) => html`
        ${rooms.length ? html`<${Table} label="Rooms" columns=${columns} rows=${rooms} rowKey=${(/** @type {Room} */ room) => room.name} />` : html`<${Empty} title="No rooms yet" />`}
        ${next && html`<p class="card-body muted">The first ${rooms.length} rooms. The search finds the others.</p>`}`}
    </${Loaded}>
  </${Card}>`;
}

/** @param {{title: string, label: string, action: string, value: string, danger?: boolean, children?: any, onClose: () => void, save: (text: string) => Promise<void>}} props */
function OneField({ title, label, action, value, danger = false, children, onClose, save }) {
  const [text, setText] = useState(value);
  const [fault, setFault] = useState("");
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    try {
      await save(text.trim());
      onClose();
    } catch (error) {
      setFault(/** @type {Error} */ (error).message);
    }
  };
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <form class="form" onSubmit=${submit}>
      ${children && html`<p>${children}</p>`}
      <${TextField} label=${label} value=${text} onInput=${setText} fault=${fault} autofocus=${true} />
      <div class="dialog-foot"><button class="button" type="button" onClick=${onClose}>Cancel</button><button class=${danger ? "button primary danger" : "button primary"}>${action}</button></div>
    </form>
  </${Dialog}>`;
}
