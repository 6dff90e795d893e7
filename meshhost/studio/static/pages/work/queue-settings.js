/** The settings of a queue. An empty field is the server's default; only what changed is sent. */
import { get, patch } from "../../app/api.js";
import { useResource } from "../../app/live.js";
import { Dialog } from "../../ui/dialog.js";
import { TextField } from "../../ui/field.js";
import { Loaded } from "../../ui/parts.js";
import { html, useState } from "../../ui/preact.js";
import { notify } from "../../ui/toast.js";

/** @type {[name: string, label: string, hint: string][]} */
const FIELDS = [
  ["max_attempts", "Attempts", "Then the message is dead."],
  ["retry_seconds", "First retry after seconds", "It doubles with each attempt."],
  ["max_retry_seconds", "Longest wait for a retry", "Seconds."],
  ["deadline", "Deadline in seconds", "For one attempt."],
  ["concurrency", "In progress at once", "Over all workers."],
  ["max_depth", "Most messages waiting", "More are refused."],
  ["result_ttl", "Results are kept for seconds", "0 keeps none."],
];

/** @param {{path: string, queue: string, onClose: () => void}} props */
export function QueueSettings({ path, queue, onClose }) {
  const settings = useResource((signal) => get(`${path}/settings`, signal), [path]);
  return html`<${Dialog} title=${`Settings of ${queue}`} onClose=${onClose}>
    <${Loaded} of=${settings}>${(/** @type {Record<string, any>} */ data) => html`<${Form} path=${path} settings=${data} onClose=${onClose} />`}</${Loaded}>
  </${Dialog}>`;
}

/** @param {{path: string, settings: Record<string, any>, onClose: () => void}} props */
function Form({ path, settings, onClose }) {
  const shown = (/** @type {string} */ name) => (settings[name] === null || settings[name] === undefined ? "" : String(settings[name]));
  const [values, setValues] = useState(() => Object.fromEntries(FIELDS.map(([name]) => [name, shown(name)])));
  const [fault, setFault] = useState("");
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    /** @type {Record<string, number | null>} */
    const changes = {};
    for (const [name, label] of FIELDS) {
      if (values[name] === shown(name)) continue;
      const number = values[name].trim() === "" ? null : Number(values[name]);
      if (number !== null && !Number.isFinite(number)) return setFault(`${label}: expected a number, or nothing for the default.`);
      changes[name] = number;
    }
    try {
      if (Object.keys(changes).length) await patch(`${path}/settings`, changes);
      notify("The settings are saved.");
      onClose();
    } catch (error) {
      setFault(/** @type {Error} */ (error).message);
    }
    return undefined;
  };
  return html`<form class="form" onSubmit=${submit}>
    <div class="form-row">
      ${FIELDS.map(
        ([name, label, hint]) => html`<${TextField} key=${name} label=${label} hint=${hint} inputmode="decimal" placeholder="default" value=${values[name]}
          onInput=${(/** @type {string} */ text) => setValues({ ...values, [name]: text })} />`,
      )}
    </div>
    ${fault && html`<p class="note" data-tone="bad" role="alert">${fault}</p>`}
    <div class="dialog-foot">
      <button class="button" type="button" onClick=${onClose}>Cancel</button>
      <button class="button primary">Save</button>
    </div>
  </form>`;
}
