/** What a tenant uses of what it may use, as bars; and the form in which the operator changes the limits. */
import { patch } from "../../app/api.js";
import { Dialog } from "../../ui/dialog.js";
import { TextField } from "../../ui/field.js";
import { bytes, number } from "../../ui/format.js";
import { html, useState } from "../../ui/preact.js";
import { notify } from "../../ui/toast.js";

/** @type {[limit: string, used: string | null, title: string, show: (value: number) => string][]} */
const LIMITS = [
  ["max_rooms", "rooms", "Open rooms", number],
  ["max_connections", "connections", "Connections", number],
  ["max_agents", "agents", "Connected agents", number],
  ["max_queues", "queues", "Queues", number],
  ["max_messages", "messages", "Messages", number],
  ["max_stored_bytes", "stored_bytes", "Stored", bytes],
  ["max_files", "files", "Files", number],
  ["max_documents", "documents", "Documents", number],
  ["max_tables", "tables", "Tables", number],
  ["max_keys", "keys", "Keys", number],
  ["max_uploads", "uploads", "Uploads at once", number],
  ["max_in_flight_bytes", null, "Bytes under way", bytes],
  ["requests_per_second", null, "Requests per second", number],
];

const NEAR = 0.8;

/** @param {{tenant: {quota: Record<string, number | null>, use: Record<string, number | null>}}} props */
export function Quota({ tenant: { quota, use } }) {
  return html`<ul class="quota">
    ${LIMITS.map(([limit, used, title, show]) => {
      const most = quota[limit] ?? null;
      const now = used === null ? null : (use[used] ?? null);
      const part = most && now !== null ? now / most : null;
      return html`<li>
        <span>${title}</span>
        <span class="muted">${now === null ? "" : `${show(now)} of `}${most === null ? "no limit" : show(most)}</span>
        ${part !== null && html`<meter min="0" max="1" high=${NEAR} optimum="0" value=${Math.min(part, 1)} aria-label=${title}>${Math.round(part * 100)} %</meter>`}
      </li>`;
    })}
  </ul>`;
}

/** @param {{path: string, quota: Record<string, number | null>, onClose: () => void}} props */
export function QuotaForm({ path, quota, onClose }) {
  const shown = (/** @type {string} */ name) => (quota[name] === null || quota[name] === undefined ? "" : String(quota[name]));
  const [values, setValues] = useState(() => Object.fromEntries(LIMITS.map(([name]) => [name, shown(name)])));
  const [fault, setFault] = useState("");
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    /** @type {Record<string, number | null>} */
    const changes = {};
    for (const [name, , title] of LIMITS) {
      if (values[name].trim() === shown(name)) continue;
      const value = values[name].trim() === "" ? null : Number(values[name]);
      if (value !== null && !(value >= 0)) return setFault(`${title}: expected a number, or nothing for no limit.`);
      changes[name] = value;
    }
    try {
      if (Object.keys(changes).length) await patch(`${path}/quota`, changes);
      notify("The quota is saved.");
      onClose();
    } catch (error) {
      setFault(/** @type {Error} */ (error).message);
    }
    return undefined;
  };
  return html`<${Dialog} title="Quota" wide=${true} onClose=${onClose}>
    <form class="form" onSubmit=${submit}>
      <div class="form-row">
        ${LIMITS.map(([name, , title]) => html`<${TextField} key=${name} label=${name.includes("bytes") ? `${title}, bytes` : title} placeholder="no limit" inputmode="numeric" value=${values[name]}
          onInput=${(/** @type {string} */ text) => setValues({ ...values, [name]: text })} />`)}
      </div>
      ${fault && html`<p class="note" data-tone="bad" role="alert">${fault}</p>`}
      <div class="dialog-foot"><button class="button" type="button" onClick=${onClose}>Cancel</button><button class="button primary">Save</button></div>
    </form>
  </${Dialog}>`;
}
