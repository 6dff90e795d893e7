/**
 * What was used of models and what it cost, as the gateway measured it: over time, and by room, agent and model; for the operator
 * by tenant and model, over all tenants.
 */
import { all, project } from "../../app/api.js";
import { useResource } from "../../app/live.js";
import { may } from "../../app/store.js";
import { Chart } from "../../ui/chart.js";
import { SelectField } from "../../ui/field.js";
import { counted, duration, number } from "../../ui/format.js";
import { drawn, exactly, LEAST, money } from "../../ui/money.js";
import { Card, Empty, Loaded, PageHead, Stats } from "../../ui/parts.js";
import { html, useMemo, useState } from "../../ui/preact.js";
import { Table } from "../../ui/table.js";
import { costLines, sumOf, sumsBy, timesOf, tokenLines } from "./usage-sums.js";

const MOST = 20_000;
const DAY_MS = 24 * 3600 * 1000;

/** @typedef {import("./usage-sums.js").Row} Row @typedef {import("./usage-sums.js").By} By @typedef {import("./usage-sums.js").Sum} Sum */

/** @type {Record<By, string>} */
const TITLES = { tenant_name: "Tenant", room: "Room", identity: "Agent", model: "Model" };
/** @type {[By, string][]} */
const OF_A_TENANT = [["room", "room"], ["identity", "agent"], ["model", "model"]];
/** @type {[By, string][]} */
const OF_ALL = [["tenant_name", "tenant"], ["model", "model"]];

/** All rows since a time. @param {number} days @param {boolean} ofAll @param {AbortSignal} signal @returns {Promise<Row[]>} */
function rowsOf(days, ofAll, signal) {
  const since = new Date(Date.now() - days * DAY_MS).toISOString();
  const filter = ofAll ? { since, step: days > 7 ? "day" : "hour" } : { since };
  return all(ofAll ? "/usage" : `${project()}/usage`, "usage", { filter, most: MOST, signal });
}

export default function Usage() {
  const ofAll = may("operator");
  const choices = ofAll ? OF_ALL : OF_A_TENANT;
  const [days, setDays] = useState("1");
  const [by, setBy] = useState(/** @type {By} */ (choices[0][0]));
  const usage = useResource((signal) => rowsOf(Number(days), ofAll, signal), [days, ofAll], { every: 30_000 });
  return html`<${PageHead} title="Use of models" />
    <div class="filters">
      <${SelectField} label="Time" value=${days} onChange=${setDays} options=${[["1", "24 hours"], ["7", "7 days"], ["30", "30 days"]]} />
      <${SelectField} label="Sums by" value=${by} onChange=${setBy} options=${choices} />
    </div>
    <${Loaded} of=${usage} what="Loading the use of models">${(/** @type {Row[]} */ rows) => (rows.length ? html`<${Shown} rows=${rows} by=${by} days=${Number(days)} />` : html`<div class="card"><${Empty} title="No model was used">Agents that ask the room server's gateway (<code>/rooms/NAME/v1</code>) are counted here, by room, agent and model.</${Empty}></div>`)}</${Loaded}>`;
}

/** @param {{rows: Row[], by: By, days: number}} props */
function Shown({ rows, by, days }) {
  const total = sumOf(rows);
  const sums = useMemo(() => sumsBy(rows, by), [rows, by]);
  const { times, tokens, costs } = useMemo(() => {
    const when = timesOf(days);
    const currencies = [...sumOf(rows).costs.keys()].sort();
    return { times: when.times, tokens: tokenLines(rows, when), costs: currencies.map((currency) => ({ currency, lines: costLines(rows, by, currency, when) })) };
  }, [rows, by, days]);
  const per = days > 7 ? "per day" : "per hour";
  const columns = [
    { name: TITLES[by], head: true, cell: (/** @type {any} */ row) => html`<span class="wrap">${row.name}</span>` },
    { name: "Requests", number: true, cell: (/** @type {Sum} */ row) => number(row.requests) },
    { name: "Input tokens", number: true, cell: (/** @type {Sum} */ row) => number(row.input_tokens) },
    { name: "of them cached", number: true, cell: (/** @type {Sum} */ row) => number(row.cached_tokens) },
    { name: "and written to a cache", number: true, hidden: !total.cache_write_tokens, cell: (/** @type {Sum} */ row) => number(row.cache_write_tokens) },
    { name: "Output tokens", number: true, cell: (/** @type {Sum} */ row) => number(row.output_tokens) },
    { name: "Time", number: true, cell: (/** @type {Sum} */ row) => duration(row.seconds) },
    { name: "Cost", number: true, cell: (/** @type {Sum} */ row) => html`<${Cost} sum=${row} />` },
  ];
  return html`<${Stats} entries=${[
      { label: "Requests", value: number(total.requests) },
      { label: "Input tokens", value: number(total.input_tokens) },
      { label: "Output tokens", value: number(total.output_tokens) },
      { label: "Time of models", value: duration(total.seconds) },
      ...[...total.costs].map(([currency, amount]) => ({ label: total.costs.size > 1 ? `Cost, ${currency}` : "Cost", value: html`<${Amount} amount=${amount} currency=${currency} />` })),
      ...(total.unmeasured ? [{ label: "Not measured", value: number(total.unmeasured), tone: /** @type {"warn"} */ ("warn") }] : []),
    ]} />
    ${rows.length >= MOST && html`<p class="note" data-tone="warn">There are more than ${number(MOST)} entries; those shown are the oldest of this time. Choose a shorter time.</p>`}
    ${total.unpriced > 0 && html`<p class="note">${total.costs.size ? `${counted(total.unpriced, "request")} went to models for which no price is set, and ${total.unpriced === 1 ? "is" : "are"} not in the cost.` : "No price is set, so there is no cost."} The operator of the server sets prices in its configuration file, as <code>[[prices]]</code>; they count from then on.</p>`}
    ${costs.map(({ currency, lines }) => html`<${Card} key=${currency} title=${costs.length > 1 ? `Cost, ${currency}` : "Cost"}><${Chart} title=${`${currency} ${per}`} times=${times} lines=${lines} least=${LEAST} show=${(/** @type {number} */ value) => money(value, currency)} /></${Card}>`)}
    <${Card} title="Tokens"><${Chart} title=${per[0].toUpperCase() + per.slice(1)} times=${times} lines=${tokens} /></${Card}>
    <${Card} title="Sums"><${Table} label="Use of models" columns=${columns} rows=${sums} rowKey=${(/** @type {any} */ row) => row.name} /></${Card}>`;
}

/** @param {{sum: Sum}} props */
function Cost({ sum }) {
  if (!sum.costs.size) return html`<span class="muted">no price is set</span>`;
  return html`${[...sum.costs].map(([currency, amount], index) => html`${index > 0 && " + "}<${Amount} amount=${amount} currency=${currency} />`)}${sum.unpriced > 0 && html` <span class="muted">and ${counted(sum.unpriced, "request")} without a price</span>`}`;
}

/** An amount in few digits, with all of them behind it. @param {{amount: bigint, currency: string}} props */
function Amount({ amount, currency }) {
  return html`<span title=${`${exactly(amount)} ${currency}`}>${money(drawn(amount), currency)}</span>`;
}
