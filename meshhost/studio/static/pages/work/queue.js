/** One queue: its counts and past, what may be done to it as a whole, and its messages. */
import { at, post } from "../../app/api.js";
import { useRoom } from "../../app/events.js";
import { to } from "../../app/router.js";
import { may } from "../../app/store.js";
import { Confirm } from "../../ui/dialog.js";
import { counted } from "../../ui/format.js";
import { Icon } from "../../ui/icons.js";
import { Age, Badge, Empty, Loaded, PageHead, Stats } from "../../ui/parts.js";
import { html, useState } from "../../ui/preact.js";
import { attempt } from "../../ui/toast.js";
import { Messages } from "./messages.js";
import { QueueSettings } from "./queue-settings.js";
import { SendDialog } from "./send.js";
import { Series } from "./series.js";

/** @typedef {import("../../app/events.js").Queue} Queue */

/** @param {{room: string, queue: string}} props */
function NoQueue({ room, queue }) {
  const [isSending, setSending] = useState(false);
  return html`<${PageHead} title=${queue} />
    <div class="card"><${Empty} title="There is no such queue now" actions=${html`${may("developer") && html`<button class="button primary" onClick=${() => setSending(true)}><${Icon} name="send" />Send</button>`}<a class="button" href=${to`/rooms/${room}/queues`}>All queues</a>`}>
      A queue is made by its first message.</${Empty}></div>
    ${isSending && html`<${SendDialog} room=${room} queue=${queue} onClose=${() => setSending(false)} onSent=${() => {}} />`}`;
}

/** @type {Queue} */
const EMPTY = { name: "", size: 0, ready: 0, leased: 0, delayed: 0, blocked: 0, dead: 0, oldest_age: null, oldest_at: null, paused: false };

/** The states that are counted all the time; of a delayed queue those that failed and are tried again are a part. @param {Queue} queue */
const countsOf = ({ ready, leased, blocked, dead }) => ({ ready, leased, blocked, dead });

/** @param {{room: string, queue: string}} props */
export default function QueuePage({ room, queue }) {
  const live = useRoom(room);
  const [open, setOpen] = useState(/** @type {"send" | "purge" | "settings" | null} */ (null));
  const [changes, setChanges] = useState(0);
  const close = () => setOpen(null);
  const changed = () => setChanges((before) => before + 1);
  const path = at`/rooms/${room}/queues/${queue}`;
  const found = live.data?.queues.find(({ name }) => name === queue);
  const stats = found ?? EMPTY;
  if (live.data && !found) return html`<${NoQueue} room=${room} queue=${queue} />`;
  const pause = () => attempt(() => post(`${path}/${stats.paused ? "resume" : "pause"}`), stats.paused ? `${queue} is delivered again.` : `${queue} is paused: what is in progress goes on, nothing else is delivered.`);
  return html`<${PageHead} title=${queue} badge=${stats.paused && html`<${Badge} tone="warn">paused</${Badge}>`}>
      ${may("developer") &&
      html`<button class="button" onClick=${pause}><${Icon} name=${stats.paused ? "play" : "pause"} />${stats.paused ? "Resume" : "Pause"}</button>
        <button class="button" onClick=${() => setOpen("settings")}>Settings</button>
        <button class="button danger" onClick=${() => setOpen("purge")}><${Icon} name="trash" />Purge</button>
        <button class="button primary" onClick=${() => setOpen("send")}><${Icon} name="send" />Send</button>`}
    </${PageHead}>
    <${Loaded} of=${live} what="Loading the queue">
      ${() => html`<${Stats} entries=${[
        { label: "Ready", value: stats.ready.toLocaleString() },
        { label: "In progress", value: stats.leased.toLocaleString() },
        { label: "Delayed", value: stats.delayed.toLocaleString() },
        { label: "Waiting for a key", value: stats.blocked.toLocaleString() },
        { label: "Dead", value: stats.dead.toLocaleString(), tone: stats.dead ? "bad" : null },
        { label: "Oldest waits", value: html`<${Age} since=${stats.oldest_at} />` },
      ]} />`}
    </${Loaded}>
    <${Series} path=${`${path}/series`} />
    <${Messages} key=${`${room}/${queue}`} room=${room} queue=${queue} changes=${changes} counts=${found && countsOf(found)} />
    ${open === "send" && html`<${SendDialog} room=${room} queue=${queue} onClose=${close} onSent=${changed} />`}
    ${open === "settings" && html`<${QueueSettings} path=${path} queue=${queue} onClose=${close} />`}
    ${open === "purge" &&
    html`<${Confirm} title=${`Purge ${queue}`} action="Purge" typed=${queue} onClose=${close} onConfirm=${async () => {
      await attempt(() => post(`${path}/purge`), ({ purged }) => `${counted(purged, "message")} deleted.`);
      changed();
    }}>All messages that wait are deleted: ${counted(stats.ready + stats.delayed + stats.blocked, "message")} now. What is in progress and what is dead stays. This can't be undone.</${Confirm}>`}`;
}

