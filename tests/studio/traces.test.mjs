// The order of a waterfall: spans as a tree, also when what programs report is no tree.
import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.location = { pathname: "/studio/", search: "", hash: "" };
globalThis.document = { documentElement: { dataset: {} }, hidden: false, addEventListener() {} };
globalThis.setInterval = () => 0; // the clock of relative times, which would keep this process from its end
const { arranged, extent, opened } = await import("../../meshhost/studio/static/pages/traces/waterfall.js");

const span = (id, parent, begin = 0, seconds = 1) => ({ id, parent, name: id, begin, seconds });
const seen = (rows) => rows.map(({ span: { id }, depth, below }) => `${"-".repeat(depth)}${id}${below ? ` ${below}` : ""}`);

test("spans stand below their parents, in the order of the answer", () => {
  const spans = [span("send", ""), span("wait", "send"), span("lease", "send"), span("process", "lease"), span("turn", "process")];
  assert.deepEqual(seen(arranged(spans)), ["send 4", "-wait", "-lease 2", "--process 1", "---turn"]);
});

test("what hangs below a closed one is left out", () => {
  const rows = arranged([span("a", ""), span("b", "a"), span("c", "b"), span("d", "a"), span("e", "")]);
  assert.deepEqual(seen(opened(rows, new Set(["b"]))), ["a 3", "-b 1", "-d", "e"]);
  assert.deepEqual(seen(opened(rows, new Set(["a", "b"]))), ["a 3", "e"]);
});

test("a span without its parent, or below itself, stands at the top, and each is there once", () => {
  const rows = arranged([span("a", "gone"), span("b", "c"), span("c", "b"), span("d", "d")]);
  assert.deepEqual(seen(rows), ["a", "b 1", "-c", "d"]);
});

test("thousands of spans below each other need no stack", () => {
  const spans = Array.from({ length: 20_000 }, (_, number) => span(String(number), number ? String(number - 1) : ""));
  const rows = arranged(spans);
  assert.equal(rows.length, 20_000);
  assert.equal(rows[0].below, 19_999);
});

test("the whole lasts from the first beginning to the last end", () => {
  assert.deepEqual(extent([span("a", "", 10, 1), span("b", "", 9, 0.5), span("c", "", 9.5, 4)]), { begin: 9, seconds: 4.5 });
});
