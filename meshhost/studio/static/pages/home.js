/**
 * Home: what needs attention first, then all rooms with their counts. The operator, who opens no room, sees tenants instead.
 *
 * Everything comes from `GET /overview`, asked every few seconds; a filter works on the server's answer, and more rooms are
 * loaded as one asks for them.
 */
import { ask, get, project, query, refusal, send } from "../app/api.js";
import { useResource } from "../app/live.js";
import { go, to } from "../app/router.js";
import { may, session } from "../app/store.js";
import { Dialog } from "../ui/dialog.js";
import { TextField } from "../ui/field.js";
import { Icon } from "../ui/icons.js";
import { Age, Badge, Card, Empty, Loaded, PageHead, Stats, Time } from "../ui/parts.js";
import { html, useRef, useSignal, useState } from "../ui/preact.js";
import { Count, Table } from "../ui/table.js";

const EVERY_MS = 4000;
const PAGE = 200;
const MOST = 1000;

/**
 * @typedef {{tenant: string, name: string, open: boolean, participants: number, agents: number, queues: number, ready: number,
 *   leased: number, delayed: number, dead: number, oldest_at: number | null, paused: number}} Room
 * @typedef {{kind: string, severity: "error" | "warning", tenant: string, room?: string, queue?: string, service?: string,
 *   text: string, value?: number, since?: number}} Attention
 */

/** The last answer and its tag: most of the time nothing has changed, and the server says so in a line. */
let last = { path: "", tag: "", data: /** @type {any} */ (null), tenant: /** @type {string | undefined} */ (undefined) };

/** The overview with its first `limit` rooms, of which the server gives so many at a time. @param {number} limit @param {AbortSignal} [signal] */
export async function readOverview(limit, signal) {
  const data = await readFirst(`/overview${query({ limit: Math.min(limit, MOST) })}`, signal);
  let { rooms, next } = data;
  while (next !== null && rooms.length < limit) {
    const page = await get(`/overview${query({ limit: MOST, after: next })}`, signal);
    rooms = [...rooms, ...page.rooms];
    next = page.next;
  }
  return { ...data, rooms, next };
}

/** @param {string} path @param {AbortSignal} [signal] */
async function readFirst(path, signal) {
  const isKnown = last.path === path && last.tag && last.tenant === session.peek()?.tenant?.id;
  const response = await send(path, { signal, headers: isKnown ? { "If-None-Match": last.tag } : {} });
  if (response.status === 304) return last.data;
  if (!response.ok) throw await refusal(response);
  last = { path, tag: response.headers.get("ETag") ?? "", data: await response.json(), tenant: session.peek()?.tenant?.id };
  return last.data;
}

export default function Home() {
  const current = useSignal(session);
  const [limit, setLimit] = useState(PAGE);
  const overview = useResource((signal) => readOverview(limit, signal), [limit], { every: EVERY_MS });
  const isOperator = current?.role === "operator";
  // Coming back, one sees what was here before, until it is read anew; and what is there, while more is loaded.
  const shown = useRef(/** @type {any} */ (undefined));
  if (overview.data) shown.current = { tenant: current?.tenant?.id, data: overview.data };
  const before = shown.current ?? last;
  const known = overview.data === undefined && overview.isLoading && before.tenant === current?.tenant?.id ? (before.data ?? undefined) : overview.data;
  const [isMaking, setMaking] = useState(false);
  return html`<${PageHead} title=${isOperator ? "All tenants" : (current?.tenant?.name ?? "Home")}>
      ${may("developer", current) && html`<button class="button" onClick=${() => setMaking(true)}><${Icon} name="plus" />New room</button>`}
    </${PageHead}>
    <${Loaded} of=${{ ...overview, data: known }} what="Loading the overview">
      ${(/** @type {any} */ data) => html`
        <${Totals} totals=${data.totals} isOperator=${isOperator} tenants=${data.tenants} />
        <${NeedsAttention} entries=${data.attention} tenants=${data.tenants} />
        ${isOperator
          ? html`<${Tenants} tenants=${data.tenants ?? []} />`
          : html`<${Rooms} rooms=${data.rooms} hasMore=${data.next !== null} more=${() => !overview.isLoading && setLimit(limit + PAGE * 4)} make=${() => setMaking(true)} />`}`}
    </${Loaded}>
    ${isMaking && html`<${NewRoom} onClose=${() => setMaking(false)} />`}`;
}

/** @param {{totals: Record<string, number>, isOperator: boolean, tenants?: unknown[]}} props */
function Totals({ totals, isOperator, tenants }) {
  return html`<${Stats} entries=${[
    ...(isOperator ? [{ label: "Tenants", value: html`<${Count} value=${tenants?.length ?? 0} />` }] : []),
    { label: "Open rooms", value: `${totals.open.toLocaleString()} of ${totals.rooms.toLocaleString()}` },
    { label: "Agents", value: totals.agents.toLocaleString() },
    { label: "Ready", value: totals.ready.toLocaleString() },
    { label: "In progress", value: totals.leased.toLocaleString() },
    { label: "Delayed", value: totals.delayed.toLocaleString() },
    { label: "Dead", value: totals.dead.toLocaleString(), tone: totals.dead ? "bad" : null },
  ]} />`;
}

/** @param {{entries: Attention[], tenants?: {id: string, name: string}[]}} props */
function NeedsAttention({ entries, tenants }) {
  if (!entries.length) return html`<p class="note" data-tone="ok">Nothing needs attention: no dead message, no stuck queue, every configured agent is in its room.</p>`;
  const names = new Map((tenants ?? []).map(({ id, name }) => [id, name]));
  return html`<${Card} title="Needs attention">
    <ul class="attention">
      ${entries.map(
        (entry) => html`<li>
          <${Badge} tone=${entry.severity === "error" ? "bad" : "warn"}>${KINDS[entry.kind] ?? entry.kind}</${Badge}>
          <span class="what">${names.has(entry.tenant) && html`<span class="muted">${names.get(entry.tenant)} · </span>`}
            <${Place} entry=${entry} isOperator=${tenants !== undefined} /> ${entry.text}</span>
          ${entry.since && html`<span class="since"><${Time} at=${entry.since} /></span>`}
        </li>`,
      )}
    </ul>
  </${Card}>`;
}

/** @type {Record<string, string>} */
const KINDS = { dead: "Dead", stuck: "Stuck", paused: "Paused", service: "Not running", quota: "Near its quota", suspended: "Suspended" };

/** @param {{entry: Attention, isOperator: boolean}} props */
function Place({ entry, isOperator }) {
  const { room, queue } = entry;
  const name = [room, queue].filter(Boolean).join(" / ");
  if (!room) return null;
  if (isOperator) return html`<strong>${name}</strong>`;
  const address = queue ? to`/rooms/${room}/queues/${queue}` + (entry.kind === "dead" ? "?state=dead" : "") : to`/rooms/${room}`;
  return html`<a href=${address}><strong>${name}</strong></a>`;
}

/** @param {{rooms: Room[], hasMore: boolean, more: () => void, make: () => void}} props */
function Rooms({ rooms, hasMore, more, make }) {
  const [text, setText] = useState("");
  const shown = rooms.filter((room) => room.name.includes(text.trim().toLowerCase()));
  const columns = [
    { name: "Room", head: true, cell: (/** @type {Room} */ room) => html`<a href=${to`/rooms/${room.name}`}>${room.name}</a>` },
    { name: "State", cell: (/** @type {Room} */ room) => html`<${Badge} tone=${room.open ? "ok" : undefined}>${room.open ? "open" : "closed"}</${Badge}>` },
    { name: "People and programs", number: true, cell: (/** @type {Room} */ room) => html`<${Count} value=${room.participants - room.agents} />` },
    { name: "Agents", number: true, cell: (/** @type {Room} */ room) => html`<${Count} value=${room.agents} />` },
    { name: "Queues", number: true, cell: (/** @type {Room} */ room) => html`<${Count} value=${room.queues} />` },
    { name: "Ready", number: true, cell: (/** @type {Room} */ room) => html`<${Count} value=${room.ready} />` },
    { name: "In progress", number: true, cell: (/** @type {Room} */ room) => html`<${Count} value=${room.leased} />` },
    { name: "Delayed", number: true, cell: (/** @type {Room} */ room) => html`<${Count} value=${room.delayed} />` },
    { name: "Dead", number: true, cell: (/** @type {Room} */ room) => html`<${Count} value=${room.dead} tone="bad" />` },
    { name: "Oldest waits", number: true, cell: (/** @type {Room} */ room) => html`<${Age} since=${room.oldest_at} />` },
  ];
  if (!rooms.length) {
    return html`<div class="card"><${Empty} title="No rooms yet"
      actions=${may("developer") && html`<button class="button primary" onClick=${make}><${Icon} name="plus" />New room</button>`}>
      A room is made when somebody first joins it: <code>meshhost service run main.py --room NAME</code> calls the agents of a program into one.
    </${Empty}></div>`;
  }
  return html`<${Card} title="Rooms" actions=${html`<input type="search" aria-label="Filter rooms by name" placeholder="Filter by name" value=${text}
      onInput=${(/** @type {any} */ event) => setText(event.target.value)} />`}>
    ${shown.length ? html`<${Table} label="Rooms" columns=${columns} rows=${shown} rowKey=${(/** @type {Room} */ room) => room.name} onEnd=${hasMore ? more : undefined} />` : html`<${Empty} title="No room of that name">Loaded are ${rooms.length} rooms. The search (<span class="key">/</span>) looks in all.</${Empty}>`}
    ${hasMore && text && html`<div class="card-body"><button class="button" onClick=${more}>Load more rooms</button></div>`}
  </${Card}>`;
}

/** @param {{tenants: any[]}} props */
function Tenants({ tenants }) {
  const columns = [
    { name: "Tenant", head: true, cell: (/** @type {any} */ tenant) => html`<a href=${to`/tenants/${tenant.name}`}>${tenant.name}</a>` },
    { name: "State", cell: (/** @type {any} */ tenant) => html`<${Badge} tone=${tenant.suspended ? "warn" : "ok"}>${tenant.suspended ? "suspended" : "active"}</${Badge}>` },
    { name: "Open rooms", number: true, cell: (/** @type {any} */ tenant) => html`<${Count} value=${tenant.open} />` },
    { name: "Rooms", number: true, cell: (/** @type {any} */ tenant) => html`<${Count} value=${tenant.rooms} />` },
    { name: "Participants", number: true, cell: (/** @type {any} */ tenant) => html`<${Count} value=${tenant.participants} />` },
    { name: "Agents", number: true, cell: (/** @type {any} */ tenant) => html`<${Count} value=${tenant.agents} />` },
    { name: "Ready", number: true, cell: (/** @type {any} */ tenant) => html`<${Count} value=${tenant.ready} />` },
    { name: "Dead", number: true, cell: (/** @type {any} */ tenant) => html`<${Count} value=${tenant.dead} tone="bad" />` },
  ];
  return html`<${Card} title="Tenants">
    <${Table} label="Tenants" columns=${columns} rows=${tenants} rowKey=${(/** @type {any} */ tenant) => tenant.id} />
  </${Card}>`;
}

const ROOM_NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** @param {{onClose: () => void}} props */
function NewRoom({ onClose }) {
  const [name, setName] = useState("");
  const [fault, setFault] = useState("");
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    if (!ROOM_NAME.test(name)) return setFault("Use 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit.");
    try {
      await ask(`${project()}/rooms`, { method: "POST", body: { name } });
      onClose();
      return go(to`/rooms/${name}`);
    } catch (error) {
      return setFault(/** @type {Error} */ (error).message);
    }
  };
  return html`<${Dialog} title="New room" onClose=${onClose}>
    <form class="form" onSubmit=${submit}>
      <${TextField} label="Name" value=${name} onInput=${setName} fault=${fault} autofocus=${true} hint="It is part of addresses: a-z, 0-9 and -." />
      <div class="dialog-foot">
        <button class="button" type="button" onClick=${onClose}>Cancel</button>
        <button class="button primary">Make the room</button>
      </div>
    </form>
  </${Dialog}>`;
}
