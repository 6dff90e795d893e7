// What is followed while one looks: a trace for as long as its job may last, the log of a message until its last lines have come.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

globalThis.location = { pathname: "/studio/", search: "", hash: "" };
globalThis.document = { documentElement: { dataset: {} }, hidden: false, addEventListener() {} };
globalThis.setInterval = () => 0; // the clock of relative times, which would keep this process from its end
const { settled, shown } = await import("./shown.mjs");
const { pauseAfter, useTrace } = await import("../../meshhost/studio/static/pages/traces/trace.js");
const { mayGrow } = await import("../../meshhost/studio/static/pages/work/message-log.js");
const { useLines } = await import("../../meshhost/studio/static/pages/logs.js");

/** Requests, each answered at once with what the test says. */
let asked = [];
let answer = () => [200, {}];

beforeEach(() => {
  asked = [];
  globalThis.fetch = async (path) => {
    asked.push(path);
    const [status, body] = answer();
    return new Response(JSON.stringify(body), { status });
  };
});

const NOW = Date.now() / 1000;

test("a trace is read the less often the longer nothing came, and never not at all", () => {
  const trace = { began_at: 100, seconds: 10 };
  assert.equal(pauseAfter(trace, 110), 3000);
  assert.equal(pauseAfter(trace, 105), 3000); // a clock that is behind
  assert.equal(pauseAfter(trace, 110 + 60), 3000);
  assert.equal(pauseAfter(trace, 110 + 600), 30_000);
  assert.equal(pauseAfter(trace, 110 + 86_400 * 30), 60_000);
});

test("a trace of which nothing came for minutes is read on, and what comes then is seen", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  answer = () => [200, { began_at: NOW - 700, seconds: 100, spans: [] }];
  const trace = await shown(useTrace, "/trace");
  await settled();
  assert.ok(Math.abs(trace.now.pause - 30_000) < 500, `${trace.now.pause} ms`);
  for (let turn = 0; turn < 3; turn += 1) {
    context.mock.timers.tick(31_000);
    await settled();
  }
  assert.ok(asked.length >= 3, `${asked.length} readings`);
  answer = () => [200, { began_at: NOW - 700, seconds: 700, spans: [1] }];
  context.mock.timers.tick(31_000);
  await settled();
  assert.deepEqual(trace.now.data.spans, [1]);
  assert.equal(trace.now.pause, 3000);
  await trace.end();
});

test("a trace that is gone is asked for once, until one asks", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  answer = () => [404, { error: "no such trace" }];
  const trace = await shown(useTrace, "/trace");
  await settled();
  context.mock.timers.tick(100_000);
  await settled();
  assert.equal(asked.length, 1);
  trace.now.refresh();
  await settled();
  assert.equal(asked.length, 2);
  await trace.end();
});

test("lines of a message may come until shortly after its end", () => {
  assert.equal(mayGrow({ state: "leased", ended_at: null }, 100), true);
  assert.equal(mayGrow({ state: "done", ended_at: 95 }, 100), true);
  assert.equal(mayGrow({ state: "dead", ended_at: 5 }, 100), false);
  assert.equal(mayGrow({ state: "expired", ended_at: null }, 100), false);
});

test("lines are asked for from where the last answer ended, and those of one message by its id", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  answer = () => [200, { lines: [{ n: 7, text: "a" }], next: 7 }];
  const log = await shown(useLines, "den", { level: "INFO", queue: "jobs", message: "5" }, 1000);
  await settled();
  answer = () => [200, { lines: [{ n: 9, text: "b" }], next: 9 }];
  context.mock.timers.tick(1000);
  await settled();
  assert.deepEqual(log.now.data.map(({ text }) => text), ["a", "b"]);
  assert.match(asked[0], /\/rooms\/den\/log\?level=INFO&queue=jobs&message=5&limit=500$/);
  assert.match(asked[1], /after=7/);
  await log.end();
});
