/**
 * A room: who is in it, its queues at a glance, and the agents that configured services should have here, each with its last
 * calls and why the last one was refused. Live, by the room's stream of snapshots.
 */
import { at, remove } from "../app/api.js";
import { useRoom } from "../app/events.js";
import { go } from "../app/router.js";
import { may, session } from "../app/store.js";
import { Confirm } from "../ui/dialog.js";
import { Icon } from "../ui/icons.js";
import { Badge, Card, Empty, Loaded, PageHead, Stats, Time } from "../ui/parts.js";
import { html, useSignal, useState } from "../ui/preact.js";
import { Table } from "../ui/table.js";
import { attempt } from "../ui/toast.js";
import { CallDialog, Dismiss } from "./calling.js";
import { QueueTable } from "./work/queues.js";

/**
 * @typedef {import("../app/events.js").Snapshot} Snapshot
 * @typedef {import("../app/events.js").Participant} Participant
 * @typedef {import("../app/events.js").Queue} Queue
 * @typedef {import("../app/events.js").Call} Call
 */

/** @param {{room: string}} props */
export default function Room({ room }) {
  const current = useSignal(session);
  const live = useRoom(room);
  const [isDeleting, setDeleting] = useState(false);
  const [isCalling, setCalling] = useState(false);
  const snapshot = live.data;
  return html`<${PageHead} title=${room} badge=${snapshot && html`<${Badge} tone=${snapshot.open ? "ok" : undefined}>${snapshot.open ? "open" : "closed"}</${Badge}>`}>
      ${may("developer", current) && html`<button class="button" onClick=${() => setCalling(true)}><${Icon} name="plus" />Call an agent</button>`}
      ${may("admin", current) && html`<button class="button danger" onClick=${() => setDeleting(true)}><${Icon} name="trash" />Delete</button>`}
    </${PageHead}>
    <${Loaded} of=${live} what="Loading the room">
      ${(/** @type {Snapshot} */ data) => html`<${Overview} room=${room} data=${data} />`}
    </${Loaded}>
    ${isCalling && html`<${CallDialog} room=${room} onClose=${() => setCalling(false)} />`}
    ${isDeleting && html`<${DeleteRoom} room=${room} onClose=${() => setDeleting(false)} />`}`;
}

/** @param {{room: string, data: Snapshot}} props */
function Overview({ room, data }) {
  const sum = (/** @type {keyof Queue} */ name) => data.queues.reduce((total, queue) => total + Number(queue[name] ?? 0), 0);
  const agents = data.participants.filter(({ role }) => role !== "user").length;
  const dead = sum("dead");
  return html`<${Stats} entries=${[
      { label: "Agents and tools", value: agents.toLocaleString() },
      { label: "People and programs", value: (data.participants.length - agents).toLocaleString() },
      { label: "Ready", value: sum("ready").toLocaleString() },
      { label: "In progress", value: sum("leased").toLocaleString() },
      { label: "Delayed", value: sum("delayed").toLocaleString() },
      { label: "Dead", value: dead.toLocaleString(), tone: dead ? "bad" : null },
    ]} />
    <${Queues} room=${room} queues=${data.queues} />
    <div class="columns">
      <${Participants} room=${room} participants=${data.participants} isOpen=${data.open} />
      <${Services} calls=${data.calls} isOpen=${data.open} />
    </div>`;
}

/** @param {{room: string, queues: Queue[]}} props */
function Queues({ room, queues }) {
  return html`<${Card} title="Queues">
    ${queues.length ? html`<${QueueTable} room=${room} queues=${queues} />` : html`<${Empty} title="No queues">A queue is made by the first message: <code>meshhost queue send --room ${room} --queue NAME --json '{"…": "…"}'</code></${Empty}>`}
  </${Card}>`;
}

/** @param {{room: string, participants: Participant[], isOpen: boolean}} props */
function Participants({ room, participants, isOpen }) {
  const [leaving, setLeaving] = useState(/** @type {Participant | null} */ (null));
  const icon = (/** @type {string} */ role) => (role === "agent" ? "agent" : role === "tool" ? "tool" : "person");
  const columns = [
    { name: "Name", head: true, cell: (/** @type {Participant} */ each) => html`<span class="check"><${Icon} name=${icon(each.role)} /><span class="wrap">${each.name}</span></span>` },
    { name: "Role", cell: (/** @type {Participant} */ each) => each.role },
    { name: "Joined", cell: (/** @type {Participant} */ each) => html`<${Time} at=${each.joined_at} />`, hidden: !participants.some(({ joined_at: time }) => time) },
    {
      name: "",
      full: true,
      hidden: !may("developer") || !participants.some(({ role }) => role !== "user"),
      cell: (/** @type {Participant} */ each) => each.role !== "user" && html`<span class="row-actions"><button class="button quiet danger" onClick=${() => setLeaving(each)}>Dismiss</button></span>`,
    },
  ];
  return html`<${Card} title="In the room">
    ${participants.length ? html`<${Table} label="Participants" columns=${columns} rows=${participants} rowKey=${(/** @type {Participant} */ each) => each.id ?? each.name} />` : html`<${Empty} title="Nobody is here">${isOpen ? "The room is open and waits." : "The room is closed. It opens when somebody joins, or when a message for one of its agents arrives."}</${Empty}>`}
    ${leaving && html`<${Dismiss} room=${room} participant=${leaving} onClose=${() => setLeaving(null)} />`}
  </${Card}>`;
}

/** @type {Record<string, ["ok" | "warn" | "bad", string]>} */
const OUTCOMES = {
  joined: ["ok", "joined"],
  accepted: ["warn", "accepted, not here yet"],
  not_joined: ["bad", "accepted, did not join"],
  refused: ["bad", "refused"],
  unreachable: ["bad", "unreachable"],
  unsigned: ["bad", "no key to sign with"],
  no_secret: ["bad", "a secret is missing"],
};

/** @param {{calls: Call[], isOpen: boolean}} props */
function Services({ calls, isOpen }) {
  return html`<${Card} title="Configured agents">
    ${calls.length === 0
      ? html`<${Empty} title="None">${isOpen ? "No service of the server's file has an agent in this room; agents here were called by somebody." : "What services should do here is known once the room is open."}</${Empty}>`
      : calls.map((call) => html`<${Service} key=${call.path + call.identity} call=${call} />`)}
  </${Card}>`;
}

/** @param {{call: Call}} props */
function Service({ call }) {
  const [isOpen, setOpen] = useState(false);
  const [tone, text] = call.is_present ? ["ok", "in the room"] : (OUTCOMES[call.outcome ?? ""] ?? ["warn", "not called yet"]);
  const id = `calls-${call.identity}-${call.path}`.replace(/[^a-zA-Z0-9-]/g, "_");
  return html`<div class="card-body">
    <div class="page-head">
      <strong class="wrap">${call.identity}</strong><${Badge} tone=${tone}>${text}</${Badge}>
      <span class="actions"><button class="button quiet" aria-expanded=${isOpen} aria-controls=${id} onClick=${() => setOpen(!isOpen)}>
        ${call.total === 1 ? "1 call" : `${call.total.toLocaleString()} calls`}</button></span>
    </div>
    <p class="muted mono wrap">${call.url}</p>
    ${!call.is_present && call.error && html`<p class="bad-text wrap">${call.error}</p>`}
    ${!call.is_present && call.next_call_at && html`<p class="muted">Called again <${Time} at=${call.next_call_at} />.</p>`}
    <div id=${id}>
      ${isOpen &&
      html`<ol class="attempts">${[...call.attempts].reverse().map(
        (each) => html`<li class="wrap"><${Time} at=${each.at} /> · ${(OUTCOMES[each.outcome] ?? ["", each.outcome])[1]}${each.status && ` (HTTP ${each.status})`}
          ${each.error && html`<span class="bad-text"> ${each.error}</span>`}</li>`,
      )}</ol>`}
    </div>
  </div>`;
}

/** @param {{room: string, onClose: () => void}} props */
function DeleteRoom({ room, onClose }) {
  const tenant = session.peek()?.tenant?.id ?? "";
  const erase = async () => {
    const done = await attempt(() => remove(at`/tenants/${tenant}/rooms/${room}`), `Room ${room} is deleted.`);
    if (done !== undefined) go("/studio/");
  };
  return html`<${Confirm} title="Delete the room" action="Delete for good" typed=${room} onConfirm=${erase} onClose=${onClose}>
    Everything in it is deleted: messages, files, documents, schedules and hooks. Participants are sent away. This can't be undone.
  </${Confirm}>`;
}
