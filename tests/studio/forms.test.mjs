// Forms from schemas, tables from CSV, names of threads, base64 of updates.
import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.location = { pathname: "/studio/", search: "", hash: "" };
globalThis.document = { documentElement: { dataset: {} } };
const { initial, read } = await import("../../meshhost/studio/static/ui/schema-form.js");
const { parseCsv } = await import("../../meshhost/studio/static/ui/csv.js");
const { kindOf } = await import("../../meshhost/studio/static/ui/kinds.js");
const { newPath, titleOf } = await import("../../meshhost/studio/static/pages/talk/thread.js");
const { fromBase64, toBase64 } = await import("../../meshhost/studio/static/protocol/document.js");

const SCHEMA = {
  type: "object",
  required: ["text", "level", "kind"],
  properties: {
    text: { type: "string", minLength: 2 },
    level: { type: "integer", minimum: 0, maximum: 5, default: 2 },
    kind: { enum: ["mail", "chat"] },
    tags: { type: "array", items: { type: "string" } },
    strict: { type: ["boolean", "null"] },
    inner: { $ref: "#/$defs/inner" },
    any: {},
  },
  $defs: { inner: { type: "object", properties: { n: { anyOf: [{ type: "number" }, { type: "null" }] } } } },
};

test("a form begins with the defaults and leaves out what is empty", () => {
  const entered = initial(SCHEMA);
  assert.deepEqual(entered, { text: "", level: "2", kind: "", tags: [], strict: false, inner: { n: "" }, any: "" });
  assert.deepEqual(read(SCHEMA, { ...entered, text: "hello", kind: "chat" }), {
    value: { text: "hello", level: 2, kind: "chat", strict: false },
    faults: {},
  });
});

test("a form gives values of the schema's types", () => {
  const entered = { text: "hello", level: "5", kind: "mail", tags: ["a", "", "b"], strict: true, inner: { n: "1.5" }, any: '{"x": [1]}' };
  assert.deepEqual(read(SCHEMA, entered), {
    value: { text: "hello", level: 5, kind: "mail", tags: ["a", "b"], strict: true, inner: { n: 1.5 }, any: { x: [1] } },
    faults: {},
  });
});

test("a form says by field what is wrong", () => {
  const { faults } = read(SCHEMA, { text: "x", level: "2.5", kind: "", tags: [], strict: false, inner: { n: "one" }, any: "{" });
  assert.deepEqual(Object.keys(faults).sort(), ["any", "inner.n", "kind", "level", "text"]);
  assert.equal(faults.level, "Expected a whole number.");
  assert.equal(read(SCHEMA, { ...initial(SCHEMA), level: "9" }).faults.level, "Expected at most 5.");
});

test("a schema that refers to itself ends", () => {
  const endless = { $ref: "#/$defs/a", $defs: { a: { $ref: "#/$defs/a" } } };
  assert.equal(initial(endless), "");
});

test("CSV is read with quotes, commas and line ends inside", () => {
  assert.deepEqual(parseCsv('a,b\r\n"x, ""y""","line\nend"\n1,\n', ","), [
    ["a", "b"],
    ['x, "y"', "line\nend"],
    ["1", ""],
  ]);
  assert.equal(parseCsv("a\nb\nc", ",", 2).length, 2);
  assert.deepEqual(parseCsv("", ","), []);
});

test("the kind of a file is told by its ending", () => {
  assert.deepEqual(["a.SVG", "b.md", "c.json", "d.tsv", "e.htm", "f.pdf", "g.zip", "README", "x.py"].map(kindOf), [
    "image", "markdown", "json", "csv", "html", "pdf", "other", "text", "text",
  ]);
});

test("a thread is called by what was said first", () => {
  const path = newPath("  Schreib ein <b>Gedicht</b>: über KI! ");
  assert.match(path, /^chats\/schreib-ein-b-gedicht-b-uber-ki-[0-9a-f]{6}\.thread$/);
  assert.equal(titleOf(path), "schreib ein b gedicht b uber ki");
  assert.match(newPath("???"), /^chats\/chat-[0-9a-f]{6}\.thread$/);
  assert.equal(titleOf("chats/0a1b2c3d4e5f.thread"), "0a1b2c3d4e5f");
});

test("updates survive base64, large ones too", () => {
  const update = Uint8Array.from({ length: 100_000 }, (_, index) => (index * 31) % 256);
  assert.deepEqual(fromBase64(new TextEncoder().encode(toBase64(update))), update);
});
