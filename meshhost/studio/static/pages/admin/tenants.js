/** The tenants of the installation, for its operator: a list to search in, and making one with its first key. */
import { all, post } from "../../app/api.js";
import { useResource } from "../../app/live.js";
import { to } from "../../app/router.js";
import { Dialog } from "../../ui/dialog.js";
import { TextField } from "../../ui/field.js";
import { Icon } from "../../ui/icons.js";
import { Badge, Card, Empty, Loaded, PageHead } from "../../ui/parts.js";
import { html, useState } from "../../ui/preact.js";
import { Secret } from "../../ui/secret.js";
import { Table } from "../../ui/table.js";

const MOST = 20_000;

/** @typedef {{id: string, name: string, suspended: string | null}} Tenant */

export default function Tenants() {
  const list = useResource((signal) => all("/tenants", "tenants", { most: MOST, signal }), [], { every: 10_000 });
  const [isMaking, setMaking] = useState(false);
  const [text, setText] = useState("");
  const columns = [
    { name: "Tenant", head: true, cell: (/** @type {Tenant} */ tenant) => html`<a class="wrap" href=${to`/tenants/${tenant.name}`}>${tenant.name}</a>` },
    { name: "State", cell: (/** @type {Tenant} */ tenant) => (tenant.suspended ? html`<span><${Badge} tone="warn">suspended</${Badge}> <span class="muted wrap">${tenant.suspended}</span></span>` : html`<${Badge} tone="ok">active</${Badge}>`) },
    { name: "Id", cell: (/** @type {Tenant} */ tenant) => html`<code class="muted wrap">${tenant.id}</code>` },
  ];
  const make = html`<button class="button primary" onClick=${() => setMaking(true)}><${Icon} name="plus" />New tenant</button>`;
  return html`<${PageHead} title="Tenants">${make}</${PageHead}>
    <${Card} title="Tenants" actions=${html`<input type="search" aria-label="Filter tenants by name" placeholder="Filter by name" value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)} />`}>
      <${Loaded} of=${list} what="Loading the tenants">
        ${(/** @type {Tenant[]} */ tenants) => {
          const shown = tenants.filter(({ name }) => name.toLowerCase().includes(text.trim().toLowerCase()));
          return shown.length ? html`<${Table} label="Tenants" columns=${columns} rows=${shown} rowKey=${(/** @type {Tenant} */ tenant) => tenant.id} />` : html`<${Empty} title=${tenants.length ? "No tenant of that name" : "No tenants"} actions=${make} />`;
        }}
      </${Loaded}>
    </${Card}>
    ${isMaking && html`<${NewTenant} onClose=${() => {
      setMaking(false);
      list.refresh();
    }} />`}`;
}

/** @param {{onClose: () => void}} props */
function NewTenant({ onClose }) {
  const [name, setName] = useState("");
  const [fault, setFault] = useState("");
  const [made, setMade] = useState(/** @type {{name: string, value: string} | null} */ (null));
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    try {
      const tenant = await post("/tenants", { name: name.trim() });
      const key = await post(`/tenants/${encodeURIComponent(tenant.id)}/keys`, { name: "first key", role: "admin" });
      setMade({ name: tenant.name, value: key.value });
    } catch (error) {
      setFault(/** @type {Error} */ (error).message);
    }
  };
  if (made) {
    return html`<${Dialog} title=${`Tenant ${made.name}`} onClose=${onClose}>
      <p>Give its admin this key. It is shown this once:</p><${Secret} value=${made.value} what="key" />
      <div class="dialog-foot"><a class="button" href=${to`/tenants/${made.name}`}>Open the tenant</a><button class="button primary" onClick=${onClose}>Done</button></div>
    </${Dialog}>`;
  }
  return html`<${Dialog} title="New tenant" onClose=${onClose}>
    <form class="form" onSubmit=${submit}>
      <${TextField} label="Name" value=${name} onInput=${setName} fault=${fault} hint="It gets an admin's key at once." autofocus=${true} />
      <div class="dialog-foot"><button class="button" type="button" onClick=${onClose}>Cancel</button><button class="button primary">Make the tenant</button></div>
    </form>
  </${Dialog}>`;
}
