/** The API keys of a tenant: who may do what with each, when it was used, making one, revoking one. A key is shown once. */
import { get, post, remove } from "../../app/api.js";
import { useResource } from "../../app/live.js";
import { Confirm, Dialog } from "../../ui/dialog.js";
import { SelectField, TextField } from "../../ui/field.js";
import { Icon } from "../../ui/icons.js";
import { Badge, Card, Empty, Loaded, Time } from "../../ui/parts.js";
import { html, useState } from "../../ui/preact.js";
import { Secret } from "../../ui/secret.js";
import { Table } from "../../ui/table.js";
import { attempt } from "../../ui/toast.js";

/** @typedef {{id: string, name: string, description: string, role: string, expires_at: number | null, last_used_at: number | null}} Key */

/** @param {{path: string, mayChange: boolean}} props `path` is that of the tenant */
export function KeyTable({ path, mayChange }) {
  const list = useResource((signal) => get(`${path}/keys`, signal), [path], { every: 15_000 });
  const [isMaking, setMaking] = useState(false);
  const [made, setMade] = useState(/** @type {{name: string, value: string} | null} */ (null));
  const [revoking, setRevoking] = useState(/** @type {Key | null} */ (null));
  const columns = [
    { name: "Key", head: true, cell: (/** @type {Key} */ key) => html`<span class="wrap">${key.name}${key.description && html`<br /><span class="muted small">${key.description}</span>`}</span>` },
    { name: "Role", cell: (/** @type {Key} */ key) => html`<${Badge} tone=${key.role === "admin" ? "info" : undefined}>${key.role}</${Badge}>` },
    { name: "Last used", cell: (/** @type {Key} */ key) => (key.last_used_at === null ? html`<span class="muted">never</span>` : html`<${Time} at=${key.last_used_at} />`) },
    {
      name: "Expires",
      cell: (/** @type {Key} */ key) =>
        key.expires_at === null ? html`<span class="muted">never</span>` : key.expires_at < Date.now() / 1000 ? html`<${Badge} tone="bad">expired</${Badge}>` : html`<${Time} at=${key.expires_at} />`,
    },
    { name: "Id", cell: (/** @type {Key} */ key) => html`<code class="muted">${key.id.slice(0, 8)}</code>` },
    {
      name: "",
      full: true,
      hidden: !mayChange,
      cell: (/** @type {Key} */ key) => html`<span class="row-actions"><button class="button quiet danger" onClick=${() => setRevoking(key)}>Revoke</button></span>`,
    },
  ];
  return html`<${Card} title="API keys" actions=${mayChange && html`<button class="button" onClick=${() => setMaking(true)}><${Icon} name="plus" />New key</button>`}>
      <${Loaded} of=${list} what="Loading the keys">
        ${(/** @type {{keys: Key[]}} */ { keys }) => (keys.length ? html`<${Table} label="API keys" columns=${columns} rows=${keys} rowKey=${(/** @type {Key} */ key) => key.id} />` : html`<${Empty} title="No keys">Programs and people sign in with one. Keys that are only in the server's settings are not listed.</${Empty}>`)}
      </${Loaded}>
    </${Card}>
    ${isMaking && html`<${NewKey} path=${path} onClose=${() => setMaking(false)} onMade=${(/** @type {any} */ key) => {
      setMade(key);
      list.refresh();
    }} />`}
    ${made &&
    html`<${Dialog} title=${`Key ${made.name}`} onClose=${() => setMade(null)}>
      <p>Copy it now: it is shown this once.</p><${Secret} value=${made.value} what="key" />
      <div class="dialog-foot"><button class="button primary" onClick=${() => setMade(null)}>Done</button></div>
    </${Dialog}>`}
    ${revoking &&
    html`<${Confirm} title=${`Revoke ${revoking.name}`} action="Revoke" typed=${revoking.name} onClose=${() => setRevoking(null)} onConfirm=${async () => {
      await attempt(() => remove(`${path}/keys/${revoking.id}`), "The key is revoked.");
      list.refresh();
    }}>Programs with this key are disconnected at once, on every server within two seconds, and so are the tokens that it signed.</${Confirm}>`}`;
}

/** @param {{path: string, onClose: () => void, onMade: (key: {name: string, value: string}) => void}} props */
function NewKey({ path, onClose, onMade }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState("developer");
  const [days, setDays] = useState("");
  const [fault, setFault] = useState("");
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    if (days && !(Number(days) > 0)) return setFault("Expected a number of days, or nothing.");
    try {
      const expires = days ? { expires_at: Date.now() / 1000 + Number(days) * 86_400 } : {};
      onMade(await post(`${path}/keys`, { name: name.trim() || "key", role, ...expires }));
      return onClose();
    } catch (error) {
      return setFault(/** @type {Error} */ (error).message);
    }
  };
  return html`<${Dialog} title="New key" onClose=${onClose}>
    <form class="form" onSubmit=${submit}>
      <${TextField} label="Name" value=${name} onInput=${setName} hint="Who or what will use it." autofocus=${true} />
      <div class="form-row">
        <${SelectField} label="Role" value=${role} onChange=${setRole} options=${[["viewer", "viewer: reads, without contents"], ["developer", "developer: uses rooms, makes tokens"], ["admin", "admin: manages keys, too"]]} />
        <${TextField} label="Expires after days" value=${days} onInput=${setDays} inputmode="numeric" placeholder="never" />
      </div>
      ${fault && html`<p class="note" data-tone="bad" role="alert">${fault}</p>`}
      <div class="dialog-foot"><button class="button" type="button" onClick=${onClose}>Cancel</button><button class="button primary">Make the key</button></div>
    </form>
  </${Dialog}>`;
}
