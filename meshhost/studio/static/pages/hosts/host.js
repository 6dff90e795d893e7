/** One service host: its agents with state, restarts and last error; freezing a tenant, ending a quarantine, draining the host. */
import { at, post, remove } from "../../app/api.js";
import { useSettled } from "../../app/live.js";
import { usePages } from "../../app/paging.js";
import { Confirm } from "../../ui/dialog.js";
import { SelectField, TextField } from "../../ui/field.js";
import { bytes, duration, lastLine } from "../../ui/format.js";
import { Icon } from "../../ui/icons.js";
import { Badge, Card, Empty, Facts, Failed, Loaded, Loading, PageHead } from "../../ui/parts.js";
import { html, useState } from "../../ui/preact.js";
import { Count, Table } from "../../ui/table.js";
import { attempt } from "../../ui/toast.js";
import { HostState, percent, useHosts } from "./hosts.js";

const EVERY_MS = 3000;
const PAGE = 200;
const PAUSE_MS = 300;

/**
 * @typedef {import("./hosts.js").Host} Host
 * @typedef {import("./hosts.js").HostTenant} HostTenant
 * @typedef {{id: string, state: string, tenant: string, tenant_name: string, room: string, identity: string, path: string, isolation: string,
 *   restarts: number, age_seconds: number, state_seconds: number, waits_for: string | null, activity: string | null, reason: string,
 *   last_error: string | null, memory_bytes: number | null}} Agent
 */

/** @type {Record<string, "ok" | "warn" | "bad" | "info">} */
const TONES = { running: "ok", starting: "info", backing_off: "warn", draining: "warn", failed: "bad", quarantined: "bad" };

/** @param {{host: string}} props */
export default function HostPage({ host: id }) {
  const hosts = useHosts();
  const [isDraining, setDraining] = useState(false);
  const path = at`/hosts/${id}`;
  const host = /** @type {Host | undefined} */ (hosts.data?.hosts.find((/** @type {Host} */ each) => each.id === id));
  if (hosts.data && !host) return html`<${PageHead} title="Service host" /><div class="card"><${Empty} title="This host is not known any more" actions=${html`<a class="button" href="/studio/hosts">All hosts</a>`} /></div>`;
  // Its agents are asked for at once: what else it says of itself takes longer, above all where another host does not answer.
  return html`<${PageHead} title=${host?.url ?? "Service host"} badge=${host && html`<${HostState} host=${host} />`}>
      ${host?.reachable && html`<button class="button danger" onClick=${() => setDraining(true)}>Drain</button>`}
    </${PageHead}>
    ${!host && (hosts.error ? html`<${Failed} error=${hosts.error} retry=${hosts.refresh} />` : html`<${Loading} />`)}
    ${host?.error && html`<p class="note" data-tone="bad">${host.error}</p>`}
    ${host?.load &&
    html`<${Card} title="Load" padded=${true}><${Facts} entries=${[
      ["CPU", percent(host.load.cpu)],
      ["Memory", percent(host.load.memory)],
      ["Lag of the event loop", duration(host.load.lag)],
      ["Rooms", host.rooms],
    ]} /></${Card}>`}
    ${host?.reachable && html`<${Tenants} path=${path} tenants=${host.tenants} changed=${hosts.refresh} />`}
    ${(!hosts.data || host?.reachable) && html`<${Agents} key="agents" path=${path} />`}
    ${isDraining &&
    html`<${Confirm} title="Drain the host" action="Drain" typed="drain" onClose=${() => setDraining(false)} onConfirm=${() => attempt(() => post(`${path}/drain`), "The host drains.")}>
      It takes no calls any more, its agents finish what they have and leave. The process ends then; something has to start it again.</${Confirm}>`}`;
}

/** @param {{path: string, tenants: HostTenant[], changed: () => void}} props */
function Tenants({ path, tenants, changed }) {
  const [freezing, setFreezing] = useState(/** @type {HostTenant | null} */ (null));
  const run = async (/** @type {() => Promise<unknown>} */ action, /** @type {string} */ done) => {
    await attempt(action, done);
    changed();
  };
  const columns = [
    { name: "Tenant", head: true, cell: (/** @type {HostTenant} */ each) => html`<span class="wrap">${each.tenant_name || each.tenant} ${each.frozen && html`<${Badge} tone="info">frozen</${Badge}>`}</span>` },
    { name: "Agents", number: true, cell: (/** @type {HostTenant} */ each) => html`<${Count} value=${each.agents} />` },
    { name: "Waiting starts", number: true, cell: (/** @type {HostTenant} */ each) => html`<${Count} value=${each.waiting} tone="warn" />` },
    { name: "Memory", number: true, cell: (/** @type {HostTenant} */ each) => (each.memory_bytes ? bytes(each.memory_bytes) : "–") },
    {
      name: "Quarantine",
      cell: (/** @type {HostTenant} */ each) =>
        each.quarantine.length
          ? html`<span class="form">${each.quarantine.map((held) => html`<span><${Badge} tone="bad">${held.path}</${Badge}> <span class="wrap">${held.reason}, ${duration(held.seconds_left)} left</span> <button class="button" onClick=${() => run(() => post(`${path}/quarantine/release`, { tenant: each.tenant, path: held.path }), `${held.path} may start again.`)}>Release</button></span>`)}</span>`
          : html`<span class="muted">none</span>`,
    },
    {
      name: "",
      full: true,
      cell: (/** @type {HostTenant} */ each) => html`<span class="row-actions">${each.frozen ? html`<button class="button quiet" onClick=${() => run(() => post(`${path}/tenants/${encodeURIComponent(each.tenant)}/thaw`), "The tenant may start agents again.")}>Thaw</button>` : html`<button class="button quiet danger" onClick=${() => setFreezing(each)}>Freeze</button>`}</span>`,
    },
  ];
  return html`<${Card} title="Tenants">
    ${tenants.length ? html`<${Table} label="Tenants of the host" columns=${columns} rows=${tenants} rowKey=${(/** @type {HostTenant} */ each) => each.tenant} />` : html`<${Empty} title="No tenant has an agent here" />`}
    ${freezing &&
    html`<${Confirm} title=${`Freeze ${freezing.tenant_name || freezing.tenant} on this host`} action="Freeze" onClose=${() => setFreezing(null)} onConfirm=${() => run(() => post(`${path}/tenants/${encodeURIComponent(freezing.tenant)}/freeze`, {}), "The tenant is frozen here.")}>
      Its agents are stopped here, and none is started until it is thawed. Other tenants notice nothing.</${Confirm}>`}
  </${Card}>`;
}

/** @param {{path: string}} props */
function Agents({ path }) {
  const [filter, setFilter] = useState({ room: "", tenant: "", state: "" });
  const [room, tenant] = [useSettled(filter.room.trim(), PAUSE_MS), useSettled(filter.tenant.trim(), PAUSE_MS)];
  /** @type {ReturnType<typeof usePages<Agent>>} */
  const { rows, first, isFirst, error, load, newest } = usePages(`${path}/agents`, { room, tenant, state: filter.state }, { member: "agents", limit: PAGE, every: EVERY_MS, cursor: "after" });
  const [stopping, setStopping] = useState(/** @type {Agent | null} */ (null));
  const columns = [
    { name: "Agent", head: true, cell: (/** @type {Agent} */ agent) => html`<span class="wrap">${agent.identity} <span class="muted mono">${agent.path}</span>${agent.last_error && html`<details><summary class="bad-text">${lastLine(agent.last_error)}</summary><pre class="code-block" tabindex="0">${agent.last_error}</pre></details>`}</span>` },
    { name: "State", cell: (/** @type {Agent} */ agent) => html`<span><${Badge} tone=${TONES[agent.state]}>${agent.state.replace("_", " ")}</${Badge}>${(agent.waits_for || agent.activity || agent.reason) && html` <span class="muted small wrap">${agent.waits_for || agent.activity || agent.reason}</span>`}</span>` },
    { name: "Tenant", cell: (/** @type {Agent} */ agent) => html`<span class="wrap">${agent.tenant_name || agent.tenant}</span>` },
    { name: "Room", cell: (/** @type {Agent} */ agent) => html`<span class="wrap">${agent.room}</span>` },
    { name: "Age", number: true, cell: (/** @type {Agent} */ agent) => duration(agent.age_seconds) },
    { name: "Restarts", number: true, cell: (/** @type {Agent} */ agent) => html`<${Count} value=${agent.restarts} tone="warn" />` },
    { name: "Memory", number: true, cell: (/** @type {Agent} */ agent) => (agent.memory_bytes === null ? html`<span class="zero">${agent.isolation}</span>` : bytes(agent.memory_bytes)) },
    { name: "", full: true, cell: (/** @type {Agent} */ agent) => html`<span class="row-actions"><button class="button quiet danger" onClick=${() => setStopping(agent)}>Stop</button></span>` },
  ];
  return html`<${Card} title="Agents" actions=${!isFirst && html`<button class="button quiet" onClick=${newest}><${Icon} name="retry" />Back to the first</button>`}>
    <div class="card-body"><div class="filters">
      <${TextField} label="Room" value=${filter.room} onInput=${(/** @type {string} */ value) => setFilter({ ...filter, room: value })} />
      <${TextField} label="Tenant" value=${filter.tenant} onInput=${(/** @type {string} */ value) => setFilter({ ...filter, tenant: value })} />
      <${SelectField} label="State" value=${filter.state} onChange=${(/** @type {string} */ state) => setFilter({ ...filter, state })} options=${[["", "any"], "running", "starting", ["backing_off", "backing off"], "draining", "failed", "quarantined"]} />
    </div></div>
    <${Loaded} of=${first} what="Asking for the agents">
      ${() => html`
        ${rows.length ? html`<${Table} label="Agents" columns=${columns} rows=${rows} rowKey=${(/** @type {Agent} */ agent) => agent.id} onEnd=${load} />` : html`<${Empty} title="No agent fits">Remove a filter, or call one into a room.</${Empty}>`}
        ${error && html`<p class="note" data-tone="bad" role="alert">More agents could not be loaded: ${error.message} <button class="button" onClick=${load}>Try again</button></p>`}`}
    </${Loaded}>
    ${stopping &&
    html`<${Confirm} title=${`Stop ${stopping.identity}`} action="Stop" onClose=${() => setStopping(null)} onConfirm=${async () => {
      await attempt(() => remove(`${path}/agents/${encodeURIComponent(stopping.id)}`), `${stopping.identity} is told to stop.`);
      newest();
    }}>It finishes what it has and leaves room ${stopping.room}. A configured service calls it again.</${Confirm}>`}
  </${Card}>`;
}
