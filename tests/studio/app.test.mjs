// Pure parts of the page: addresses, the event stream, numbers and times.
import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.location = { pathname: "/studio/", search: "", hash: "" };
globalThis.document = { documentElement: { dataset: {} } };
const { changed, parseEvents } = await import("../../meshhost/studio/static/app/events.js");
const { matched, to } = await import("../../meshhost/studio/static/app/router.js");
const { query } = await import("../../meshhost/studio/static/app/api.js");
const { may } = await import("../../meshhost/studio/static/app/store.js");
const { bytes, duration, lastLine, oneLine } = await import("../../meshhost/studio/static/ui/format.js");

test("an address gives its named parts, escaped and back", () => {
  const address = to`/rooms/${"r"}/queues/${"a/b c"}`;
  assert.equal(address, "/studio/rooms/r/queues/a%2Fb%20c");
  assert.deepEqual(matched("/rooms/:room/queues/:queue", address.slice("/studio".length)), { room: "r", queue: "a/b c" });
  assert.deepEqual(matched("/rooms/:room/files/*", "/rooms/r/files/x/y%20z"), { room: "r", rest: "x/y z" });
  assert.deepEqual(matched("/rooms/:room/files/*", "/rooms/r/files"), { room: "r", rest: "" });
  assert.equal(matched("/rooms/:room", "/rooms/r/queues"), null);
  assert.equal(matched("/rooms/:room", "/rooms"), null);
  assert.deepEqual(matched("/:x", "/%E0%A4%A"), { x: "%E0%A4%A" });
});

test("a stream of events is read in any pieces", () => {
  const text = ': ping\n\nevent: room\ndata: {"a":\ndata: 1}\n\nevent: end\r\ndata: x\r\n\r\n';
  for (let cut = 0; cut <= text.length; cut += 1) {
    const first = parseEvents(text.slice(0, cut));
    const second = parseEvents(first.rest + text.slice(cut));
    assert.deepEqual(
      [...first.events, ...second.events],
      [{ event: "room", data: '{"a":\n1}' }, { event: "end", data: "x" }],
      `cut at ${cut}`,
    );
  }
});

test("a query has what has a value, and repeats lists", () => {
  assert.equal(query({ a: "x y", b: null, c: "", d: 0, state: ["dead", "failed"] }), "?a=x+y&d=0&state=dead&state=failed");
  assert.equal(query({}), "");
});

test("a role may what those below it may, and the operator is no tenant's", () => {
  assert.equal(may("developer", { role: "admin" }), true);
  assert.equal(may("admin", { role: "developer" }), false);
  assert.equal(may("viewer", { role: "operator" }), false);
  assert.equal(may("operator", { role: "operator" }), true);
  assert.equal(may("viewer", { role: null }), false);
});

test("sizes and durations read as people say them", () => {
  assert.deepEqual([0, 999, 1000, 1_440_000, 25_000_000].map(bytes), ["0 B", "999 B", "1.0 kB", "1.4 MB", "25 MB"]);
  assert.deepEqual([0.004, 2.34, 59.9, 250, 90_000].map(duration), ["4 ms", "2.3 s", "60 s", "4 min 10 s", "1 d 1 h"]);
  assert.equal(oneLine({ a: "x\ny" }), '{"a":"x\\ny"}');
  assert.equal(oneLine("a".repeat(9), 4), "aaa…");
});

test("a traceback's last line is what it says", () => {
  assert.equal(lastLine('Traceback:\n  File "x"\nValueError: no file\n'), "ValueError: no file");
  assert.equal(lastLine("plain"), "plain");
  assert.equal(lastLine("E: a\n  more"), "E: a");
});

test("a fault in JSON is told with its line and column", async () => {
  const { parseJson } = await import("../../meshhost/studio/static/ui/json-editor.js");
  assert.deepEqual(parseJson('{"a": 1}'), { value: { a: 1 } });
  const faults = {
    '{\n  "a": }': "Line 2, column 8: expected a value.",
    '{"a": 1': "Line 1, column 8: expected a comma or }.",
    "{'a': 1}": "Line 1, column 2: expected a name in double quotes, or }.",
    "[1, 2,]": "Line 1, column 7: expected a value.",
    '{"a" 1}': "Line 1, column 6: expected a colon.",
    "1 2": "Line 1, column 3: expected the end.",
    '"a\nb"': "Line 1, column 1: expected a value.",
    "": "Line 1, column 1: expected a value.",
  };
  for (const [text, fault] of Object.entries(faults)) assert.deepEqual(parseJson(text), { fault });
});

test("a snapshot says since when the oldest message of a queue waits, as no other may come for long", async () => {
  const { dated } = await import("../../meshhost/studio/static/app/events.js");
  const { queues } = dated({ at: 1000, queues: [{ name: "a", oldest_age: 40 }, { name: "b", oldest_age: null }] });
  assert.deepEqual(queues.map(({ oldest_at: since }) => since), [960, null]);
});

test("a change leads from one snapshot to the next, and leaves alone what is the same", () => {
  const [ada, bob, eve] = ["ada", "bob", "eve"].map((id) => ({ id, name: id, role: "user" }));
  const queue = (name, ready, age = null) => ({ name, ready, oldest_age: age });
  const before = { open: true, participants: [ada, bob], queues: [queue("a", 1), queue("c", 1)], calls: [{ total: 1 }] };
  const nothing = { open: true, joined: [], left: [], queues: [], gone: [] };
  const same = changed(before, nothing);
  assert.equal(same.participants, before.participants);
  assert.equal(same.queues, before.queues);
  assert.equal(same.calls, before.calls);
  const after = changed(before, { at: 100, open: false, joined: [eve], left: ["ada"], queues: [queue("b", 3, 10)], gone: ["a"], calls: [] });
  assert.deepEqual(after, { open: false, participants: [bob, eve], queues: [{ ...queue("b", 3, 10), oldest_at: 90 }, queue("c", 1)], calls: [] });
  assert.deepEqual(changed(before, { ...nothing, joined: [ada] }).participants, [bob, ada]);
});
