/** The schedules of a room: when each sends next, pausing, running now, what happened at its last times. */
import { at, get, patch, post, remove } from "../../app/api.js";
import { useResource } from "../../app/live.js";
import { to } from "../../app/router.js";
import { may } from "../../app/store.js";
import { Confirm, Dialog } from "../../ui/dialog.js";
import { duration, fullTime, oneLine } from "../../ui/format.js";
import { Icon } from "../../ui/icons.js";
import { Badge, Card, Empty, Loaded, PageHead, Time } from "../../ui/parts.js";
import { html, useState } from "../../ui/preact.js";
import { Table } from "../../ui/table.js";
import { attempt } from "../../ui/toast.js";
import { ScheduleForm } from "./schedule-form.js";

const EVERY_MS = 10_000;

/**
 * @typedef {{id: string, name: string, queue: string, message: unknown, cron: string | null, every: number | null, at: number | string | null,
 *   timezone: string, once: boolean, missed: "skip" | "once" | "all", overlap: boolean, paused: boolean, next_at: number | null,
 *   last_at: number | null, last_message_id: string | null, sent: number, error: string | null}} Schedule
 */

/** When it sends, in words. @param {Schedule} schedule */
const timing = ({ cron, every, at: time, timezone }) =>
  cron !== null ? html`<code>${cron}</code> <span class="muted">${timezone}</span>` : every !== null ? `every ${duration(every)}` : html`once, ${typeof time === "number" ? fullTime(time) : `${time} ${timezone}`}`;

/** @param {{room: string}} props */
export default function Schedules({ room }) {
  const path = at`/rooms/${room}/schedules`;
  const list = useResource((signal) => get(path, signal), [path], { every: EVERY_MS });
  const [open, setOpen] = useState(/** @type {{what: "make" | "change" | "runs" | "delete", schedule?: Schedule} | null} */ (null));
  const close = () => {
    setOpen(null);
    list.refresh();
  };
  const mayChange = may("developer");
  const make = mayChange && html`<button class="button primary" onClick=${() => setOpen({ what: "make" })}><${Icon} name="plus" />New schedule</button>`;
  const one = (/** @type {Schedule} */ schedule) => `${path}/${encodeURIComponent(schedule.id)}`;
  const pause = async (/** @type {Schedule} */ schedule) => {
    await attempt(() => patch(one(schedule), { paused: !schedule.paused }), schedule.paused ? "It sends again." : "It is paused.");
    list.refresh();
  };
  const run = async (/** @type {Schedule} */ schedule) => {
    await attempt(() => post(`${one(schedule)}/run`), ({ id }) => `Sent as message ${id}.`);
    list.refresh();
  };
  const columns = [
    {
      name: "Schedule",
      head: true,
      cell: (/** @type {Schedule} */ each) => html`<span><button class="link" onClick=${() => setOpen({ what: "runs", schedule: each })}>${each.name || each.queue}</button> ${each.paused ? html`<${Badge} tone="warn">paused</${Badge}>` : each.next_at === null && html`<${Badge}>ended</${Badge}>`}
        ${each.error && html`<p class="bad-text small wrap">${each.error}</p>`}</span>`,
    },
    { name: "When", cell: (/** @type {Schedule} */ each) => html`<span>${timing(each)}</span>` },
    { name: "Queue", cell: (/** @type {Schedule} */ each) => html`<a href=${to`/rooms/${room}/queues/${each.queue}`}>${each.queue}</a>` },
    { name: "Next", cell: (/** @type {Schedule} */ each) => html`<${Time} at=${each.next_at} />` },
    { name: "Last", cell: (/** @type {Schedule} */ each) => (each.last_message_id ? html`<a href=${to`/rooms/${room}/queues/${each.queue}/${each.last_message_id}`}><${Time} at=${each.last_at} /></a>` : html`<${Time} at=${each.last_at} />`) },
    { name: "Sent", number: true, cell: (/** @type {Schedule} */ each) => each.sent.toLocaleString() },
    {
      name: "",
      full: true,
      hidden: !mayChange,
      cell: (/** @type {Schedule} */ each) => html`<span class="row-actions">
        <button class="button quiet" onClick=${() => pause(each)}>${each.paused ? "Resume" : "Pause"}</button>
        <button class="button quiet" onClick=${() => run(each)}>Run now</button>
        <button class="button quiet" onClick=${() => setOpen({ what: "change", schedule: each })}>Change</button>
        <button class="button quiet icon-only danger" aria-label=${`Delete ${each.name || each.queue}`} onClick=${() => setOpen({ what: "delete", schedule: each })}><${Icon} name="trash" /></button>
      </span>`,
    },
  ];
  return html`<${PageHead} title=${`Schedules of ${room}`}>${make}</${PageHead}>
    <${Card} label="Schedules">
      <${Loaded} of=${list} what="Loading the schedules">
        ${(/** @type {{schedules: Schedule[]}} */ { schedules }) =>
          schedules.length ? html`<${Table} label="Schedules" columns=${columns} rows=${schedules} rowKey=${(/** @type {Schedule} */ each) => each.id} />` : html`<${Empty} title="No schedules" actions=${make}>A schedule sends a message to a queue: by a cron line, at an interval, or once.</${Empty}>`}
      </${Loaded}>
    </${Card}>
    ${(open?.what === "make" || open?.what === "change") && html`<${ScheduleForm} path=${path} schedule=${open.schedule} onClose=${close} />`}
    ${open?.what === "runs" && open.schedule && html`<${Runs} room=${room} path=${one(open.schedule)} schedule=${open.schedule} onClose=${close} />`}
    ${open?.what === "delete" &&
    open.schedule &&
    html`<${Confirm} title="Delete the schedule" action="Delete" onClose=${close} onConfirm=${() => attempt(() => remove(one(/** @type {any} */ (open.schedule))), "The schedule is deleted.")}>
      ${open.schedule.name || open.schedule.queue} sends nothing any more. What it sent stays.</${Confirm}>`}`;
}

/** @type {Record<string, ["ok" | "warn" | "bad", string]>} */
const OUTCOMES = { sent: ["ok", "sent"], "run-now": ["ok", "run by hand"], skipped: ["warn", "left out"], missed: ["warn", "missed"], failed: ["bad", "failed"], error: ["bad", "failed"] };

/** @param {{room: string, path: string, schedule: Schedule, onClose: () => void}} props */
function Runs({ room, path, schedule, onClose }) {
  const found = useResource((signal) => get(path, signal), [path]);
  return html`<${Dialog} title=${schedule.name || schedule.queue} wide=${true} onClose=${onClose}>
    <p>${timing(schedule)}</p>
    ${schedule.message !== null && html`<pre class="code-block">${oneLine(schedule.message, 400)}</pre>`}
    <h3>Last times</h3>
    <${Loaded} of=${found}>
      ${(/** @type {{runs: any[]}} */ { runs }) =>
        runs.length
          ? html`<ol class="timeline">${runs.map((run) => {
              const [tone, text] = OUTCOMES[run.outcome] ?? ["warn", run.outcome];
              return html`<li data-tone=${tone}><p>${text} <span class="muted">· <${Time} at=${run.at} /></span>
                ${run.message_id && html` · <a href=${to`/rooms/${room}/queues/${schedule.queue}/${run.message_id}`}>message ${run.message_id}</a>`}</p>
                ${run.error && html`<p class="bad-text wrap">${run.error}</p>`}</li>`;
            })}</ol>`
          : html`<p class="muted">It has not sent anything yet.</p>`}
    </${Loaded}>
  </${Dialog}>`;
}
