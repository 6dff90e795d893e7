/** What the rooms of the tenant used of models, as the gateway measured it: over time, and by room, agent and model. */
import { all, project } from "../../app/api.js";
import { useResource } from "../../app/live.js";
import { Chart } from "../../ui/chart.js";
import { SelectField } from "../../ui/field.js";
import { duration, number } from "../../ui/format.js";
import { Card, Empty, Loaded, PageHead, Stats } from "../../ui/parts.js";
import { html, useMemo, useState } from "../../ui/preact.js";
import { Table } from "../../ui/table.js";

const MOST = 20_000;
const HOUR = 3600;

/** @typedef {{hour: string, room: string, identity: string, model: string, requests: number, input_tokens: number, cached_tokens: number, output_tokens: number, seconds: number, unmeasured: number}} Row */

/** All rows since a time. @param {number} days @param {AbortSignal} signal @returns {Promise<Row[]>} */
const rowsOf = (days, signal) => all(`${project()}/usage`, "usage", { filter: { since: new Date(Date.now() - days * 24 * HOUR * 1000).toISOString() }, most: MOST, signal });

export default function Usage() {
  const [days, setDays] = useState("1");
  const [by, setBy] = useState("room");
  const usage = useResource((signal) => rowsOf(Number(days), signal), [days], { every: 30_000 });
  return html`<${PageHead} title="Use of models" />
    <div class="filters">
      <${SelectField} label="Time" value=${days} onChange=${setDays} options=${[["1", "24 hours"], ["7", "7 days"], ["30", "30 days"]]} />
      <${SelectField} label="Sums by" value=${by} onChange=${setBy} options=${[["room", "room"], ["identity", "agent"], ["model", "model"]]} />
    </div>
    <${Loaded} of=${usage} what="Loading the use of models">${(/** @type {Row[]} */ rows) => (rows.length ? html`<${Shown} rows=${rows} by=${/** @type {any} */ (by)} days=${Number(days)} />` : html`<div class="card"><${Empty} title="No model was used">Agents that ask the room server's gateway (<code>/rooms/NAME/v1</code>) are counted here, by room, agent and model.</${Empty}></div>`)}</${Loaded}>`;
}

/** @param {Row[]} rows */
const sum = (rows) => {
  const total = { requests: 0, input_tokens: 0, cached_tokens: 0, output_tokens: 0, seconds: 0, unmeasured: 0 };
  for (const row of rows) for (const name of /** @type {(keyof typeof total)[]} */ (Object.keys(total))) total[name] += row[name];
  return total;
};

/** @param {{rows: Row[], by: "room" | "identity" | "model", days: number}} props */
function Shown({ rows, by, days }) {
  const total = sum(rows);
  const parts = useMemo(() => {
    const step = days > 7 ? 24 * HOUR : HOUR;
    const last = Math.floor(Date.now() / 1000 / step) * step;
    const count = Math.round((days * 24 * HOUR) / step);
    const times = Array.from({ length: count }, (_, index) => last - (count - 1 - index) * step);
    const place = new Map(times.map((time, index) => [time, index]));
    const lines = { input: times.map(() => 0), output: times.map(() => 0) };
    for (const row of rows) {
      const index = place.get(Math.floor(Date.parse(row.hour) / 1000 / step) * step);
      if (index === undefined) continue;
      lines.input[index] += row.input_tokens;
      lines.output[index] += row.output_tokens;
    }
    return { times, lines: [{ label: "Input", tone: 1, values: lines.input }, { label: "Output", tone: 3, values: lines.output }] };
  }, [rows, days]);
  /** @type {Map<string, Row[]>} */
  const groups = new Map();
  for (const row of rows) groups.set(row[by], [...(groups.get(row[by]) ?? []), row]);
  const sums = [...groups].map(([name, members]) => ({ name, ...sum(members) })).sort((one, other) => other.input_tokens + other.output_tokens - one.input_tokens - one.output_tokens);
  const columns = [
    { name: { room: "Room", identity: "Agent", model: "Model" }[by], head: true, cell: (/** @type {any} */ row) => html`<span class="wrap">${row.name}</span>` },
    { name: "Requests", number: true, cell: (/** @type {any} */ row) => number(row.requests) },
    { name: "Input tokens", number: true, cell: (/** @type {any} */ row) => number(row.input_tokens) },
    { name: "of them cached", number: true, cell: (/** @type {any} */ row) => number(row.cached_tokens) },
    { name: "Output tokens", number: true, cell: (/** @type {any} */ row) => number(row.output_tokens) },
    { name: "Time", number: true, cell: (/** @type {any} */ row) => duration(row.seconds) },
  ];
  return html`<${Stats} entries=${[
      { label: "Requests", value: number(total.requests) },
      { label: "Input tokens", value: number(total.input_tokens) },
      { label: "Output tokens", value: number(total.output_tokens) },
      { label: "Time of models", value: duration(total.seconds) },
      ...(total.unmeasured ? [{ label: "Not measured", value: number(total.unmeasured), tone: /** @type {"warn"} */ ("warn") }] : []),
    ]} />
    <${Card} title="Tokens"><${Chart} title=${days > 7 ? "Per day" : "Per hour"} times=${parts.times} lines=${parts.lines} /></${Card}>
    <${Card} title="Sums"><${Table} label="Use of models" columns=${columns} rows=${sums} rowKey=${(/** @type {any} */ row) => row.name} /></${Card}>`;
}
