// What is known of a folder: pages in the server's order, and changes put into them.
import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.location = { pathname: "/studio/", search: "", hash: "" };
globalThis.document = { documentElement: { dataset: {} } };
const { extended, isBefore, keyOf, patched } = await import("../../meshhost/studio/static/app/folder.js");

const file = (name, size = 1) => ({ name, is_folder: false, updated_at: null, size });
const folder = (name) => ({ name, is_folder: true, updated_at: null, size: null });
const names = ({ entries }) => entries.map(keyOf);

test("keys are in the order of code points, as the server counts", () => {
  const keys = ["a", "a-b", "a/", "a0", "b", "é", "\ud7ff", "\ue000", "\uffee", "\u{10000}", "\u{10ffff}"];
  for (const [index, one] of keys.entries()) for (const [place, other] of keys.entries()) assert.equal(isBefore(one, other), index < place, `${one} ${other}`);
});

test("a page comes behind what is loaded, and the last has no cursor", () => {
  const first = extended({ entries: [], next: null }, { files: [file("a"), file("b")], next: "b" });
  const all = extended(first, { files: [file("c")], next: null });
  assert.deepEqual([names(first), first.next, names(all), all.next], [["a", "b"], "b", ["a", "b", "c"], null]);
});

test("what is written, replaced or deleted is put in its place", () => {
  const before = { entries: [file("a"), folder("b"), file("d")], next: null };
  const now = new Map([["c", file("c")], ["a", file("a", 2)], ["d", null], ["nothing", null]]);
  const after = patched(before, now);
  assert.deepEqual(names(after), ["a", "b/", "c"]);
  assert.equal(after.entries[0].size, 2);
  assert.deepEqual(names(before), ["a", "b/", "d"]);
});

test("a file in the place of a folder, or the reverse, is one entry", () => {
  assert.deepEqual(names(patched({ entries: [folder("a"), file("b")], next: null }, new Map([["a", file("a")], ["b", folder("b")]]))), ["a", "b/"]);
});

test("what comes behind the place that was read is not shown before its page, so that no entry is shown twice", () => {
  const loaded = { entries: [file("a"), file("m")], next: "m" };
  const changed = patched(loaded, new Map([["b", file("b")], ["z", file("z")], ["m", null]]));
  assert.deepEqual([names(changed), changed.next], [["a", "b"], "m"]);
  assert.deepEqual(names(extended(changed, { files: [file("n"), file("z")], next: null })), ["a", "b", "n", "z"]);
});
