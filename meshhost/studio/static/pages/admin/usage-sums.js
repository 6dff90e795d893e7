/** Sums over rows of usage: by what one chose, and over time. Costs are summed exactly, by currency; no price is no cost. A leaf. */
import { amountOf, drawn } from "../../ui/money.js";

const HOUR = 3600;
const LINES = 3;

/**
 * @typedef {{requests: number, input_tokens: number, cached_tokens: number, cache_write_tokens: number, output_tokens: number, seconds: number, unmeasured: number}} Counts
 * @typedef {Counts & {hour?: string, begin?: string, room?: string, identity?: string, tenant_name?: string, model: string, cost: {currency: string, amount: string} | null}} Row
 * @typedef {"room" | "identity" | "model" | "tenant_name"} By
 * @typedef {Counts & {costs: Map<string, bigint>, unpriced: number}} Sum `unpriced`: requests of models without a price
 */

/** @type {(keyof Counts)[]} */
const COUNTS = ["requests", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "seconds", "unmeasured"];

/** @param {Row[]} rows @returns {Sum} */
export function sumOf(rows) {
  /** @type {Sum} */
  const total = { requests: 0, input_tokens: 0, cached_tokens: 0, cache_write_tokens: 0, output_tokens: 0, seconds: 0, unmeasured: 0, costs: new Map(), unpriced: 0 };
  for (const row of rows) {
    for (const name of COUNTS) total[name] += row[name];
    if (row.cost) total.costs.set(row.cost.currency, (total.costs.get(row.cost.currency) ?? 0n) + amountOf(row.cost.amount));
    else total.unpriced += row.requests;
  }
  return total;
}

/** One sum for each room, agent, model or tenant, most tokens first. @param {Row[]} rows @param {By} by @returns {(Sum & {name: string})[]} */
export function sumsBy(rows, by) {
  /** @type {Map<string, Row[]>} */
  const groups = new Map();
  for (const row of rows) {
    const name = row[by] ?? "";
    const group = groups.get(name);
    if (group) group.push(row);
    else groups.set(name, [row]);
  }
  const tokens = (/** @type {Counts} */ sum) => sum.input_tokens + sum.output_tokens;
  return [...groups].map(([name, members]) => ({ name, ...sumOf(members) })).sort((one, other) => tokens(other) - tokens(one));
}

/** The begins of the hours or days (of UTC) that are shown, up to now. @param {number} days @param {number} [now] seconds since 1970 */
export function timesOf(days, now = Date.now() / 1000) {
  const step = days > 7 ? 24 * HOUR : HOUR;
  const last = Math.floor(now / step) * step;
  const count = Math.round((days * 24 * HOUR) / step);
  return { step, times: Array.from({ length: count }, (_, index) => last - (count - 1 - index) * step) };
}

/**
 * @param {Row[]} rows @param {{step: number, times: number[]}} when
 * @param {(row: Row, index: number) => void} take is given each row that is shown, and at which time
 */
function atTimes(rows, { step, times }, take) {
  const place = new Map(times.map((time, index) => [time, index]));
  for (const row of rows) {
    const index = place.get(Math.floor(Date.parse(row.hour ?? row.begin ?? "") / 1000 / step) * step);
    if (index !== undefined) take(row, index);
  }
}

/** @param {Row[]} rows @param {{step: number, times: number[]}} when @returns {import("../../ui/chart.js").Line[]} */
export function tokenLines(rows, when) {
  const input = when.times.map(() => 0);
  const output = when.times.map(() => 0);
  atTimes(rows, when, (row, index) => {
    input[index] += row.input_tokens;
    output[index] += row.output_tokens;
  });
  return [
    { label: "Input", tone: 1, values: input },
    { label: "Output", tone: 3, values: output },
  ];
}

/**
 * What was spent in a currency over time: a line for each of those that cost most, and one for all others.
 * @param {Row[]} rows @param {By} by @param {string} currency @param {{step: number, times: number[]}} when
 * @returns {import("../../ui/chart.js").Line[]}
 */
export function costLines(rows, by, currency, when) {
  const spent = rows.filter((row) => row.cost?.currency === currency);
  const dearest = sumsBy(spent, by)
    .sort((one, other) => (/** @type {bigint} */ (one.costs.get(currency)) < /** @type {bigint} */ (other.costs.get(currency)) ? 1 : -1))
    .map(({ name }) => name);
  const own = dearest.length > LINES + 1 ? dearest.slice(0, LINES) : dearest;
  const labels = own.length < dearest.length ? [...own, "All others"] : own;
  const sums = labels.map(() => when.times.map(() => 0n));
  atTimes(spent, when, (row, index) => {
    const line = own.indexOf(row[by] ?? "");
    sums[line < 0 ? own.length : line][index] += amountOf(row.cost?.amount ?? "0");
  });
  return labels.map((label, index) => ({ label: label || "(no name)", tone: /** @type {1 | 2 | 3 | 4} */ (index + 1), values: sums[index].map(drawn) }));
}
