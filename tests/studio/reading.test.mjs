// Reading again, page by page, and what one types: the hooks that pages read with, over answers that the test holds back.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

globalThis.location = { pathname: "/studio/", search: "", hash: "" };
globalThis.document = { documentElement: { dataset: {} }, hidden: false, addEventListener() {} };
globalThis.setInterval = () => 0; // the clock of relative times, which would keep this process from its end
const { settled, shown } = await import("./shown.mjs");
const { usePages } = await import("../../meshhost/studio/static/app/paging.js");
const { all, get } = await import("../../meshhost/studio/static/app/api.js");
const { useParticipants } = await import("../../meshhost/studio/static/app/participants.js");
const { ConnectionLostError } = await import("../../meshhost/studio/static/protocol/client.js");
const { RoomError } = await import("../../meshhost/studio/static/protocol/messages.js");
const { readOverview } = await import("../../meshhost/studio/static/pages/home.js");
const { useMessage } = await import("../../meshhost/studio/static/pages/work/message.js");
const { useResource, useSettled } = await import("../../meshhost/studio/static/app/live.js");

/** Requests that wait for their answers. */
let asked = [];

beforeEach(() => {
  asked = [];
  globalThis.fetch = (path) =>
    new Promise((resolve) => {
      asked.push({ path, answer: (body, status = 200) => resolve(new Response(JSON.stringify(body), { status })) });
    });
});

const rows = (...ids) => ids.map((id) => ({ id }));
const OPTIONS = { member: "rows", limit: 2, every: 1000 };

async function answered(body, status) {
  asked.shift().answer(body, status);
  await settled();
}

test("a first page is read again, and nothing that was read changes from the second on", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const list = await shown(usePages, "/rows", {}, OPTIONS);
  await answered({ rows: rows(5, 4), next: "4" });
  context.mock.timers.tick(1000);
  await settled();
  assert.equal(asked.length, 1);
  await answered({ rows: rows(6, 5), next: "5" });
  void list.now.load();
  await settled();
  assert.equal(asked[0].path, "/rows?limit=2&before=5");
  await answered({ rows: rows(4, 3), next: null });
  context.mock.timers.tick(5000);
  await settled();
  assert.deepEqual(asked, []);
  assert.deepEqual([list.now.rows, list.now.next, list.now.isFirst], [rows(6, 5, 4, 3), null, false]);
  list.now.newest();
  await settled();
  await answered({ rows: rows(7, 6), next: "6" });
  assert.deepEqual([list.now.rows, list.now.isFirst], [rows(7, 6), true]);
  await list.end();
});

test("a page of another filter is dropped", async () => {
  const list = await shown(usePages, "/rows", { text: "a" }, OPTIONS);
  await answered({ rows: rows(5, 4), next: "4" });
  void list.now.load();
  await settled();
  await list.with("/rows", { text: "b" }, OPTIONS);
  assert.deepEqual(list.now.rows, []);
  const [late, first] = asked;
  first.answer({ rows: rows(1), next: null });
  await settled();
  late.answer({ rows: rows(3, 2), next: "2" });
  await settled();
  assert.deepEqual([list.now.rows, list.now.next], [rows(1), null]);
  await list.end();
});

test("a page that could not be read is said, and can be asked for again", async () => {
  const list = await shown(usePages, "/rows", {}, OPTIONS);
  await answered({ rows: rows(5, 4), next: "4" });
  void list.now.load();
  await settled();
  await answered({ error: "too many requests" }, 429);
  assert.deepEqual([list.now.error.message, list.now.rows], ["too many requests", rows(5, 4)]);
  void list.now.load();
  await settled();
  await answered({ rows: rows(3), next: null });
  assert.deepEqual([list.now.error, list.now.rows], [null, rows(5, 4, 3)]);
  await list.end();
});

test("what other inputs gave is never shown as theirs, and what is left is not read again", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const loads = [];
  const seen = [];
  const hook = (name) => {
    const { data } = useResource(async (signal) => (loads.push(signal), name), [name], { every: 100 });
    seen.push([name, data]);
  };
  const resource = await shown(hook, "a");
  await resource.with("b");
  assert.deepEqual(seen.filter(([name, data]) => data !== undefined && data !== name), []);
  assert.deepEqual(seen.at(-1), ["b", "b"]);
  assert.deepEqual(loads.map(({ aborted }) => aborted), [true, false]);
  await resource.end();
  context.mock.timers.tick(1000);
  await settled();
  assert.deepEqual([loads.length, loads[1].aborted], [2, true]);
});

test("a text is settled once it has stayed the same", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const text = await shown(useSettled, "", 100);
  await text.with("a", 100);
  context.mock.timers.tick(60);
  await text.with("ab", 100);
  context.mock.timers.tick(60);
  await settled();
  assert.equal(text.now, "");
  context.mock.timers.tick(40);
  await settled();
  assert.equal(text.now, "ab");
  await text.end();
});

test("a message that could not be read is asked for again, and one that is gone is shown no more", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const page = await shown(useMessage, "/messages/7", 0);
  await answered({ id: "7", state: "ready", seen: "1" });
  assert.equal(asked[0].path, "/messages/7?wait=25&seen=1");
  await answered({ error: "too many requests wait" }, 429);
  assert.deepEqual([page.now.message.id, page.now.error.message, asked], ["7", "too many requests wait", []]);
  context.mock.timers.tick(2000);
  await settled();
  await answered({ id: "7", state: "leased", seen: "2" });
  assert.deepEqual([page.now.message.state, page.now.error], ["leased", null]);
  await answered({ error: "no such message" }, 404);
  assert.deepEqual([page.now.message, page.now.error.message], [null, "no such message"]);
  context.mock.timers.tick(60_000);
  await settled();
  assert.deepEqual(asked, []);
  await page.end();
});

test("a server that is gone is asked until it is back, and no question waits for ever", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const questions = [];
  globalThis.fetch = (path, options) =>
    new Promise((resolve, reject) => {
      if (path !== "/livez") reject(new TypeError("no answer"));
      else questions.push({ signal: options.signal, resolve, reject });
    });
  const resource = await shown(useResource, (signal) => get("/rows", signal), []);
  assert.equal(resource.now.error.name, "UnreachableError");
  context.mock.timers.tick(1000);
  await settled();
  assert.ok(questions[0].signal instanceof AbortSignal);
  questions[0].reject(new DOMException("", "TimeoutError"));
  await settled();
  globalThis.fetch = async () => new Response('"here"');
  context.mock.timers.tick(1600);
  await settled();
  assert.equal(resource.now.data, "here");
  await resource.end();
});

test("who may not know who is here is told so, and asked again with the next connection", async () => {
  const requests = [];
  const client = { on: () => () => {}, request: () => new Promise((_, reject) => requests.push(reject)) };
  const present = await shown(useParticipants, { client, state: "ready" });
  requests[0](new RoomError("no grant for messaging"));
  await settled();
  assert.deepEqual([present.now.present, present.now.error.message], [null, "no grant for messaging"]);
  await present.with({ client, state: "lost" });
  await present.with({ client, state: "ready" });
  requests[1](new ConnectionLostError());
  await settled();
  assert.equal(present.now.error, null);
  await present.end();
});

test("all rows are read, as many pages as there are", async () => {
  const found = all("/tenants", "tenants", { filter: { a: "b" }, most: 5000 });
  const full = Array.from({ length: 1000 }, (_, id) => ({ id }));
  assert.equal(asked[0].path, "/tenants?a=b&limit=1000&offset=0");
  await answered({ tenants: full });
  assert.equal(asked[0].path, "/tenants?a=b&limit=1000&offset=1000");
  await answered({ tenants: rows(1000) });
  assert.deepEqual((await found).map(({ id }) => id), [...full, { id: 1000 }].map(({ id }) => id));
});

test("home shows more rooms than the server gives at a time", async () => {
  const found = readOverview(1200);
  const full = Array.from({ length: 1000 }, (_, id) => ({ name: String(id) }));
  assert.equal(asked[0].path, "/overview?limit=1000");
  await answered({ rooms: full, next: "999", totals: { rooms: 1001 } });
  assert.equal(asked[0].path, "/overview?limit=1000&after=999");
  await answered({ rooms: [{ name: "x" }], next: null, totals: { rooms: 1001 } });
  const { rooms: names, next, totals } = await found;
  assert.deepEqual([names.length, names.at(-1), next, totals.rooms], [1001, { name: "x" }, null, 1001]);
});
