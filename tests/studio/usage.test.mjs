// Amounts and sums of what was used: exact, by currency, and no price is no cost.
import assert from "node:assert/strict";
import { test } from "node:test";

const { axisWidth } = await import("../../meshhost/studio/static/ui/axis.js");
const { amountOf, drawn, exactly, money } = await import("../../meshhost/studio/static/ui/money.js");
const { costLines, sumOf, sumsBy, timesOf, tokenLines } = await import("../../meshhost/studio/static/pages/admin/usage-sums.js");

const HOUR = "2026-11-30T10:00:00Z";
const COUNTS = { requests: 1, input_tokens: 10, cached_tokens: 4, cache_write_tokens: 2, output_tokens: 5, seconds: 1, unmeasured: 0 };
const row = (identity, amount, more = {}) => ({
  ...COUNTS, hour: HOUR, room: "den", identity, model: "gpt", cost: amount === null ? null : { currency: "USD", amount }, ...more,
});

test("the axis of amounts has place for their labels", () => {
  assert.equal(axisWidth([]), 52);
  assert.equal(axisWidth(["0", "10"]), 52);
  assert.ok(axisWidth(["US$0.00", "US$0.000675"]) > 11 * 6.5);
});

test("amounts are whole numbers, of which nothing is lost", () => {
  assert.equal(amountOf("0.000000000001"), 1n);
  assert.equal(amountOf("12"), 12n * 10n ** 12n);
  assert.equal(exactly(amountOf("9007199254740993.000000000001")), "9007199254740993.000000000001");
  assert.equal(exactly(amountOf("0.1") + amountOf("0.2")), "0.3");
  assert.equal(exactly(0n), "0");
  assert.equal(exactly(amountOf("100")), "100");
  assert.equal(drawn(amountOf("0.5")), 0.5);
});

test("amounts are shown in few digits, and what is little is not shown as nothing", () => {
  assert.match(money(1234.5, "USD"), /1.?234[.,]50/);
  assert.match(money(0.00175, "USD"), /0[.,]00175/);
  assert.match(money(0, "EUR"), /0[.,]00/);
  assert.match(money(1e-9, "USD"), /^< .*0[.,]000001/);
});

test("sums are by currency, and requests without a price are counted", () => {
  const total = sumOf([row("ann", "0.1"), row("ann", "0.2"), row("bob", null), row("bob", "1", { cost: { currency: "EUR", amount: "1" } })]);
  assert.deepEqual([...total.costs].map(([name, amount]) => [name, exactly(amount)]), [["USD", "0.3"], ["EUR", "1"]]);
  assert.deepEqual([total.requests, total.unpriced, total.cache_write_tokens], [4, 1, 8]);
  assert.deepEqual(sumOf([row("ann", null)]).costs.size, 0);
  assert.deepEqual(sumsBy([row("ann", "1"), row("bob", "1"), row("bob", "1")], "identity").map(({ name, requests }) => [name, requests]), [["bob", 2], ["ann", 1]]);
});

test("the cost over time has a line for those that cost most, and one for all others", () => {
  const now = Date.parse(HOUR) / 1000 + 100;
  const when = timesOf(1, now);
  assert.deepEqual([when.step, when.times.length, when.times.at(-1)], [3600, 24, Date.parse(HOUR) / 1000]);
  const rows = ["a", "b", "c", "d", "e"].map((name, index) => row(name, String(index + 1)));
  const old = row("a", "100", { hour: "2026-11-01T00:00:00Z" });
  const lines = costLines([...rows, old, row("z", null)], "identity", "USD", when);
  assert.deepEqual(lines.map(({ label, values }) => [label, values.at(-1)]), [["a", 1], ["e", 5], ["d", 4], ["All others", 5]]);
  assert.deepEqual(costLines(rows.slice(0, 4), "identity", "USD", when).map(({ label }) => label), ["d", "c", "b", "a"]);
  assert.deepEqual(tokenLines(rows, when).map(({ values }) => values.at(-1)), [50, 25]);
  const days = timesOf(30, now);
  assert.deepEqual([days.step, days.times.length], [86_400, 30]);
  assert.deepEqual(tokenLines([row("a", null, { hour: undefined, begin: HOUR })], days)[0].values.at(-1), 10);
});
