/** The queues of a room: a chart of what waited and what was done, and a line for each queue. */
import { at } from "../../app/api.js";
import { useRoom } from "../../app/events.js";
import { to } from "../../app/router.js";
import { may } from "../../app/store.js";
import { Icon } from "../../ui/icons.js";
import { Age, Badge, Card, Empty, Loaded, PageHead } from "../../ui/parts.js";
import { html, useState } from "../../ui/preact.js";
import { Count, Table } from "../../ui/table.js";
import { SendDialog } from "./send.js";
import { Series } from "./series.js";

/** @typedef {import("../../app/events.js").Queue} Queue */

/** @param {{room: string}} props */
export default function Queues({ room }) {
  const live = useRoom(room);
  const [isSending, setSending] = useState(false);
  const send = may("developer") && html`<button class="button primary" onClick=${() => setSending(true)}><${Icon} name="send" />Send</button>`;
  return html`<${PageHead} title=${`Queues of ${room}`}>${send}</${PageHead}>
    <${Series} path=${at`/rooms/${room}/queue-series`} />
    <${Loaded} of=${live} what="Loading the queues">
      ${(/** @type {import("../../app/events.js").Snapshot} */ data) => html`<${Card} title="Queues">
        ${data.queues.length
          ? html`<${QueueTable} room=${room} queues=${data.queues} />`
          : html`<${Empty} title="No queues yet" actions=${send}>A queue is made by the first message that is sent to it.</${Empty}>`}
      </${Card}>`}
    </${Loaded}>
    ${isSending && html`<${SendDialog} room=${room} onClose=${() => setSending(false)} />`}`;
}

/** @param {{room: string, queues: Queue[]}} props */
export function QueueTable({ room, queues }) {
  const linked = (/** @type {Queue} */ queue, /** @type {keyof Queue} */ name, /** @type {string} */ state, /** @type {"bad" | undefined} */ tone = undefined) =>
    queue[name]
      ? html`<a href=${`${to`/rooms/${room}/queues/${queue.name}`}?state=${state}`}><${Count} value=${queue[name]} tone=${tone} /></a>`
      : html`<${Count} value=${queue[name]} />`;
  const columns = [
    {
      name: "Queue",
      head: true,
      cell: (/** @type {Queue} */ queue) => html`<span><a class="wrap" href=${to`/rooms/${room}/queues/${queue.name}`}>${queue.name}</a>${queue.paused && html` <${Badge} tone="warn">paused</${Badge}>`}</span>`,
    },
    { name: "Ready", number: true, cell: (/** @type {Queue} */ queue) => linked(queue, "ready", "ready") },
    { name: "In progress", number: true, cell: (/** @type {Queue} */ queue) => linked(queue, "leased", "leased") },
    { name: "Delayed", number: true, cell: (/** @type {Queue} */ queue) => linked(queue, "delayed", "delayed") },
    { name: "Waiting for a key", number: true, cell: (/** @type {Queue} */ queue) => linked(queue, "blocked", "blocked") },
    { name: "Dead", number: true, cell: (/** @type {Queue} */ queue) => linked(queue, "dead", "dead", "bad") },
    {
      name: "Oldest waits",
      number: true,
      cell: (/** @type {Queue} */ queue) => html`<${Age} since=${queue.oldest_at} />`,
    },
  ];
  return html`<${Table} label="Queues" columns=${columns} rows=${queues} rowKey=${(/** @type {Queue} */ queue) => queue.name} />`;
}

