/** Making and changing a schedule, with its next times as one types; the server computes them, as only it knows how it will. */
import { ask, patch, post } from "../../app/api.js";
import { useResource, useSettled } from "../../app/live.js";
import { Dialog } from "../../ui/dialog.js";
import { SelectField, TextField } from "../../ui/field.js";
import { fullTime } from "../../ui/format.js";
import { JsonEditor, parseJson } from "../../ui/json-editor.js";
import { html, useState } from "../../ui/preact.js";
import { notify } from "../../ui/toast.js";

const PAUSE_MS = 350;
const HERE = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
const ZONES = [...new Set(["UTC", HERE, ...(Intl.supportedValuesOf?.("timeZone") ?? [])])];

/** @typedef {import("./schedules.js").Schedule} Schedule */

/** @param {{path: string, schedule?: Schedule, onClose: () => void}} props */
export function ScheduleForm({ path, schedule, onClose }) {
  const [kind, setKind] = useState(schedule?.every ? "every" : schedule?.at ? "at" : "cron");
  const [values, setValues] = useState(() => ({
    name: schedule?.name ?? "",
    queue: schedule?.queue ?? "",
    cron: schedule?.cron ?? "0 8 * * *",
    every: schedule?.every ? String(schedule.every) : "3600",
    at: localTime(schedule?.at),
    timezone: schedule?.timezone ?? HERE,
    missed: schedule?.missed ?? "once",
  }));
  const [overlap, setOverlap] = useState(schedule?.overlap ?? true);
  const [text, setText] = useState(schedule ? JSON.stringify(schedule.message, null, 2) : '{\n  "instructions": ""\n}');
  const [fault, setFault] = useState("");
  const set = (/** @type {string} */ name) => (/** @type {string} */ value) => setValues({ ...values, [name]: value });
  const when = kind === "cron" ? { cron: values.cron } : kind === "every" ? { every: Number(values.every) } : { at: values.at };
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    const message = parseJson(text);
    if ("fault" in message) return setFault(message.fault);
    const { name, queue, timezone, missed } = values;
    const body = { name, queue, message: message.value, timezone, missed, overlap, ...when };
    try {
      if (schedule) await patch(`${path}/${encodeURIComponent(schedule.id)}`, body);
      else await post(path, body);
      notify(schedule ? "The schedule is changed." : "The schedule is made.");
      onClose();
    } catch (error) {
      setFault(/** @type {Error} */ (error).message);
    }
    return undefined;
  };
  return html`<${Dialog} title=${schedule ? "Change the schedule" : "New schedule"} wide=${true} onClose=${onClose}>
    <form class="form" onSubmit=${submit}>
      <div class="form-row">
        <${TextField} label="Name" value=${values.name} onInput=${set("name")} autofocus=${true} />
        <${TextField} label="Queue" value=${values.queue} onInput=${set("queue")} required=${true} />
      </div>
      <div class="form-row">
        <${SelectField} label="When" value=${kind} onChange=${setKind} options=${[["cron", "Cron line"], ["every", "At an interval"], ["at", "Once"]]} />
        ${kind === "cron" && html`<${TextField} label="Cron line" value=${values.cron} onInput=${set("cron")} hint="Minute, hour, day, month, weekday." />`}
        ${kind === "every" && html`<${TextField} label="Seconds between" value=${values.every} onInput=${set("every")} inputmode="decimal" />`}
        ${kind === "at" && html`<${TextField} label="Time" type="datetime-local" value=${values.at} onInput=${set("at")} />`}
        ${kind !== "every" && html`<${SelectField} label="Time zone" value=${values.timezone} onChange=${set("timezone")} options=${ZONES} />`}
      </div>
      <${Preview} when=${when} timezone=${values.timezone} />
      <${JsonEditor} label="Message" value=${text} onInput=${setText} rows=${6} />
      <div class="form-row">
        <${SelectField} label="When no server was there" value=${values.missed} onChange=${set("missed")} options=${[["once", "send the last one missed"], ["skip", "leave it out"], ["all", "send all that were missed"]]} />
        <label class="check"><input type="checkbox" checked=${!overlap} onChange=${(/** @type {any} */ event) => setOverlap(!event.target.checked)} />Leave a time out while the message before is not done</label>
      </div>
      ${fault && html`<p class="note" data-tone="bad" role="alert">${fault}</p>`}
      <div class="dialog-foot">
        <button class="button" type="button" onClick=${onClose}>Cancel</button>
        <button class="button primary">${schedule ? "Save" : "Make the schedule"}</button>
      </div>
    </form>
  </${Dialog}>`;
}

/** @param {number | string | null | undefined} time */
function localTime(time) {
  if (!time) return "";
  if (typeof time === "string") return time.slice(0, 16);
  const date = new Date(time * 1000);
  return new Date(time * 1000 - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** The next times, or why there are none. @param {{when: Record<string, unknown>, timezone: string}} props */
function Preview({ when, timezone }) {
  const asked = useSettled(JSON.stringify({ ...when, timezone }), PAUSE_MS);
  const { data, error } = useResource((signal) => ask("/schedules/preview", { method: "POST", body: JSON.parse(asked), signal }), [asked]);
  return html`<div role="status">
    ${error && html`<p class="note" data-tone="bad">${error.message}</p>`}
    ${data && html`<div class="note"><strong>Next times, in your zone:</strong> ${data.times.length ? html`<ol class="times">${data.times.slice(0, 5).map((/** @type {number} */ time) => html`<li>${fullTime(time)}</li>`)}</ol>` : "none any more"}</div>`}
  </div>`;
}
