/** Sending to a queue: one JSON value or many, with the options of delivery. What is wrong is said before anything is sent. */
import { ask, at, query } from "../../app/api.js";
import { go, to } from "../../app/router.js";
import { Dialog } from "../../ui/dialog.js";
import { TextField } from "../../ui/field.js";
import { counted } from "../../ui/format.js";
import { JsonEditor, parseJson } from "../../ui/json-editor.js";
import { html, useState } from "../../ui/preact.js";
import { notify } from "../../ui/toast.js";

/** @param {{room: string, queue?: string, message?: unknown, onClose: () => void, onSent?: () => void}} props */
export function SendDialog({ room, queue, message, onClose, onSent }) {
  const [name, setName] = useState(queue ?? "");
  const [text, setText] = useState(message === undefined ? '{\n  "instructions": ""\n}' : JSON.stringify(message, null, 2));
  const [isMany, setMany] = useState(false);
  const [options, setOptions] = useState({ delay: "", priority: "", key: "", ttl: "", id: "" });
  const [faults, setFaults] = useState(/** @type {Record<string, string>} */ ({}));
  const [isBusy, setBusy] = useState(false);
  const set = (/** @type {string} */ option) => (/** @type {string} */ value) => setOptions({ ...options, [option]: value });
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    const parsed = parseJson(text);
    const wrong = faultsIn(name, parsed, isMany, options);
    setFaults(wrong);
    if (Object.keys(wrong).length || "fault" in parsed) return;
    setBusy(true);
    const { id, ...sent } = options;
    try {
      // An array is many messages to the server: one message that is an array goes as an array of one.
      const body = !isMany && Array.isArray(parsed.value) ? [parsed.value] : parsed.value;
      const answer = await ask(at`/rooms/${room}/queues/${name}/messages` + query(sent), {
        method: "POST",
        body,
        headers: id ? { "Idempotency-Key": id } : {},
      });
      const one = answer.id ?? (answer.ids.length === 1 ? answer.ids[0] : null);
      notify(one ? `Sent as message ${one}.` : `${counted(answer.ids.length, "message")} sent.`);
      onClose();
      if (onSent) onSent();
      else go(one ? to`/rooms/${room}/queues/${name}/${one}` : to`/rooms/${room}/queues/${name}`);
    } catch (error) {
      setFaults({ all: /** @type {Error} */ (error).message });
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${queue ? `Send to ${queue}` : "Send to a queue"} wide=${true} onClose=${onClose}>
    <form class="form" onSubmit=${submit}>
      ${!queue && html`<${TextField} label="Queue" value=${name} onInput=${setName} fault=${faults.name} autofocus=${true} hint="It is made when it is not there." />`}
      <${JsonEditor} label="Message" value=${text} onInput=${setText} fault=${faults.text} rows=${11} />
      <label class="check"><input type="checkbox" checked=${isMany} onChange=${(/** @type {any} */ event) => setMany(event.target.checked)} />
        This is an array, and each element is a message: all are stored, or none</label>
      <div class="form-row">
        <${TextField} label="Delay in seconds" value=${options.delay} onInput=${set("delay")} fault=${faults.delay} inputmode="decimal" />
        <${TextField} label="Priority, -100 to 100" value=${options.priority} onInput=${set("priority")} fault=${faults.priority} />
        <${TextField} label="Key" value=${options.key} onInput=${set("key")} hint="One at a time, in order." />
        <${TextField} label="Expires after seconds" value=${options.ttl} onInput=${set("ttl")} fault=${faults.ttl} inputmode="decimal" />
        <${TextField} label="Idempotency key" value=${options.id} onInput=${set("id")} hint="Stored once under it." />
      </div>
      ${faults.all && html`<p class="note" data-tone="bad" role="alert">${faults.all}</p>`}
      <div class="dialog-foot">
        <button class="button" type="button" onClick=${onClose}>Cancel</button>
        <button class="button primary" disabled=${isBusy}>${isBusy ? "Sending…" : "Send"}</button>
      </div>
    </form>
  </${Dialog}>`;
}

/**
 * @param {string} name @param {ReturnType<typeof parseJson>} parsed @param {boolean} isMany
 * @param {Record<string, string>} options
 */
function faultsIn(name, parsed, isMany, options) {
  /** @type {Record<string, string>} */
  const faults = {};
  if (!name.trim()) faults.name = "Enter the name of a queue.";
  if ("fault" in parsed) faults.text = parsed.fault;
  else if (isMany && !(Array.isArray(parsed.value) && parsed.value.length)) faults.text = "Expected an array with at least one message.";
  for (const option of ["delay", "ttl"]) {
    if (options[option] && !(Number(options[option]) >= 0)) faults[option] = "Expected seconds, such as 90.";
  }
  const priority = Number(options.priority || 0);
  if (!Number.isInteger(priority) || Math.abs(priority) > 100) faults.priority = "Expected a whole number from -100 to 100.";
  return faults;
}
