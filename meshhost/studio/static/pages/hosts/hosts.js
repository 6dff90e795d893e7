/** The service hosts that the room server knows, for the operator: whether each is there and ready, and why not. */
import { get } from "../../app/api.js";
import { useResource } from "../../app/live.js";
import { to } from "../../app/router.js";
import { Badge, Card, Empty, Loaded, PageHead } from "../../ui/parts.js";
import { html } from "../../ui/preact.js";
import { Count, Table } from "../../ui/table.js";

const EVERY_MS = 5000;

/**
 * @typedef {{tenant: string, tenant_name: string, agents: number, waiting: number, memory_bytes: number, frozen: boolean,
 *   quarantine: {path: string, reason: string, seconds_left: number}[], quota: Record<string, number | null>}} HostTenant
 * @typedef {{id: string, url: string, rooms: string, local: boolean, reachable: boolean, ready: boolean | null, reasons: string[],
 *   error: string | null, tenants: HostTenant[], load: {value: number, lag: number, cpu: number, memory: number} | null}} Host
 */

/** Asks for the hosts, again and again. */
export const useHosts = () => useResource((signal) => get("/hosts", signal), [], { every: EVERY_MS });

/** @param {{host: Host}} props */
export function HostState({ host }) {
  if (!host.reachable) return html`<${Badge} tone="bad">unreachable</${Badge}>`;
  return host.ready ? html`<${Badge} tone="ok">ready</${Badge}>` : html`<${Badge} tone="warn">not ready${host.reasons.length > 0 && `: ${host.reasons.join(", ")}`}</${Badge}>`;
}

/** @param {number | null | undefined} part */
export const percent = (part) => (part === null || part === undefined ? "–" : `${Math.round(part * 100)} %`);

/** @param {Host} host @param {"agents" | "waiting"} name */
const sum = (host, name) => host.tenants.reduce((total, each) => total + each[name], 0);

export default function Hosts() {
  const hosts = useHosts();
  const columns = [
    { name: "Host", head: true, cell: (/** @type {Host} */ host) => html`<span><a class="wrap mono" href=${to`/hosts/${host.id}`}>${host.url}</a>${host.error && html`<p class="bad-text small wrap">${host.error}</p>`}</span>` },
    { name: "State", cell: (/** @type {Host} */ host) => html`<${HostState} host=${host} />` },
    { name: "Rooms", cell: (/** @type {Host} */ host) => html`<span class="wrap">${host.rooms}</span>` },
    { name: "Agents", number: true, cell: (/** @type {Host} */ host) => html`<${Count} value=${sum(host, "agents")} />` },
    { name: "Waiting starts", number: true, cell: (/** @type {Host} */ host) => html`<${Count} value=${sum(host, "waiting")} tone="warn" />` },
    { name: "CPU", number: true, cell: (/** @type {Host} */ host) => percent(host.load?.cpu) },
    { name: "Memory", number: true, cell: (/** @type {Host} */ host) => percent(host.load?.memory) },
  ];
  return html`<${PageHead} title="Service hosts" />
    <${Card} label="Service hosts">
      <${Loaded} of=${hosts} what="Asking the hosts">
        ${(/** @type {{hosts: Host[]}} */ { hosts: all }) =>
          all.length ? html`<${Table} label="Service hosts" columns=${columns} rows=${all} rowKey=${(/** @type {Host} */ host) => host.id} />` : html`<${Empty} title="No service host is known">Hosts of the services in the server's file are listed here, and those that <code>meshhost service run</code> started on this machine.</${Empty}>`}
      </${Loaded}>
    </${Card}>`;
}
