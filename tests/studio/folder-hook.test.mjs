// A folder of a room as a page uses it: pages, changes, other folders, a connection that comes and goes.
import assert from "node:assert/strict";
import { mock, test } from "node:test";

globalThis.location = { pathname: "/studio/", search: "", hash: "" };
globalThis.document = { documentElement: { dataset: {} } };
const { settled, shown } = await import("./shown.mjs");
const { useFolder } = await import("../../meshhost/studio/static/app/folder.js");
const { ConnectionLostError } = await import("../../meshhost/studio/static/protocol/client.js");

const file = (name, size = 1) => ({ name, is_folder: false, updated_at: null, size });

/** A room with files, that gives two a page and answers when it is told to, or at once. */
class Room {
  files = new Map();
  asked = [];
  held = null;
  fault = null;
  put = (...names) => names.forEach((name) => this.files.set(name, file(name)));
  connection = (state = "ready", error = null) => ({ client: this, state, error });
  async request(type, { path, prefix = "", after = "" }) {
    this.asked.push(type === "storage.list" ? `list ${after}`.trim() : `stat ${path}`);
    if (this.fault) throw this.fault;
    if (type === "storage.stat") return this.files.has(path) ? { exists: true, ...this.files.get(path) } : { exists: false };
    const found = [...this.files.values()].filter(({ name }) => name.startsWith(prefix) && name > after).sort((one, other) => (one.name < other.name ? -1 : 1));
    if (this.held) await this.held;
    return { files: found.slice(0, 2), next: found.length > 2 ? found[1].name : null };
  }
}

const names = (hook) => hook.now.data?.entries.map(({ name }) => name);

test("pages come one after the other, and none is asked for twice at once", async () => {
  const room = new Room();
  room.put("a", "b", "c", "d", "e");
  const hook = await shown(useFolder, room.connection(), "", "");
  assert.deepEqual([names(hook), hook.now.data.next], [["a", "b"], "b"]);
  hook.now.load();
  hook.now.load();
  await settled();
  hook.now.load();
  await settled();
  hook.now.load();
  await settled();
  assert.deepEqual([names(hook), hook.now.data.next], [["a", "b", "c", "d", "e"], null]);
  assert.deepEqual(room.asked, ["list", "list b", "list d"]);
  await hook.end();
});

test("a change is put into what is loaded, also while a page is on its way", async () => {
  const room = new Room();
  room.put("a", "c", "e", "g");
  const hook = await shown(useFolder, room.connection(), "", "");
  let answer = () => {};
  room.held = new Promise((resolve) => (answer = resolve));
  hook.now.load();
  room.put("b", "z");
  room.files.delete("a");
  await hook.now.changed(["b", "a", "z"]);
  await settled();
  assert.deepEqual(names(hook), ["b", "c"]);
  answer();
  await settled();
  // The page was made before "z" was written, and says that it is the last.
  assert.deepEqual(names(hook), ["b", "c", "e", "g", "z"]);
  await hook.end();
});

test("very many changes read the folder again, once in a while", async () => {
  const room = new Room();
  room.put("a");
  mock.timers.enable({ apis: ["setTimeout"] });
  const hook = await shown(useFolder, room.connection(), "", "");
  const many = Array.from({ length: 50 }, (_, index) => `x${index}`);
  room.put("b");
  await hook.now.changed(many);
  await hook.now.changed(many);
  assert.deepEqual(room.asked, ["list"]);
  mock.timers.tick(2000);
  await settled();
  assert.deepEqual([names(hook), room.asked], [["a", "b"], ["list", "list"]]);
  await hook.end();
  mock.timers.reset();
});

test("the answer for a folder or a prefix that one has left is dropped", async () => {
  const room = new Room();
  room.put("a", "b");
  let answer = () => {};
  room.held = new Promise((resolve) => (answer = resolve));
  const hook = await shown(useFolder, room.connection(), "", "");
  assert.equal(hook.now.data, undefined);
  room.held = null;
  await hook.with(room.connection(), "", "b");
  assert.deepEqual(names(hook), ["b"]);
  answer();
  await settled();
  assert.deepEqual(names(hook), ["b"]);
  await hook.end();
});

test("a page that can't be had leaves what is there, and is asked for again", async () => {
  const room = new Room();
  room.put("a", "b", "c");
  const hook = await shown(useFolder, room.connection(), "", "");
  room.fault = new Error("storage failed");
  hook.now.load();
  await settled();
  assert.deepEqual([names(hook), hook.now.error.message], [["a", "b"], "storage failed"]);
  room.fault = null;
  hook.now.load();
  await settled();
  assert.deepEqual([names(hook), hook.now.error], [["a", "b", "c"], null]);
  await hook.end();
});

test("a lost connection is no error, and the folder is read again when it is back", async () => {
  const room = new Room();
  room.put("a");
  const hook = await shown(useFolder, room.connection("connecting"), "", "");
  assert.equal(hook.now.data, undefined);
  room.fault = new ConnectionLostError();
  await hook.with(room.connection("ready"), "", "");
  assert.deepEqual([hook.now.data, hook.now.error], [undefined, null]);
  await hook.with(room.connection("lost"), "", "");
  room.fault = null;
  await hook.with(room.connection("ready"), "", "");
  assert.deepEqual(names(hook), ["a"]);
  await hook.with(room.connection("ended", new Error("not granted")), "", "");
  assert.equal(hook.now.error.message, "not granted");
  await hook.end();
});

test("names that are there are known, also those that are not loaded", async () => {
  const room = new Room();
  room.put("a", "b", "c");
  const hook = await shown(useFolder, room.connection(), "", "");
  assert.deepEqual([...(await hook.now.taken(["a", "c", "d"]))], ["a", "c"]);
  assert.deepEqual(room.asked, ["list", "stat c", "stat d"]);
  room.fault = new ConnectionLostError();
  assert.deepEqual([...(await hook.now.taken(["a", "c"]))], ["a"]);
  await hook.end();
});
