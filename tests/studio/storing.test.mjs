// Storing a file over a connection that the test cuts: what arrives is whole, and what is given up is aborted.
import assert from "node:assert/strict";
import { test } from "node:test";
import { storeFile } from "../../meshhost/studio/static/app/storing.js";
import { ConnectionLostError } from "../../meshhost/studio/static/protocol/client.js";
import { RoomError } from "../../meshhost/studio/static/protocol/messages.js";

const MB = 1024 * 1024;

/** A room with the rules of the server for uploads. `faults` are thrown, one a write, before (or after) it is done. */
class Room {
  constructor() {
    this.stored = {};
    this.uploads = {};
    this.faults = [];
    this.asked = [];
    this.watchers = new Set();
    this.state = "ready";
    this.error = null;
  }

  watch(watcher) {
    this.watchers.add(watcher);
    watcher(this.state, this.error);
    return () => this.watchers.delete(watcher);
  }

  become(state, error = null) {
    Object.assign(this, { state, error });
    for (const each of [...this.watchers]) each(state, error);
  }

  async request(type, { path, handle, offset }, data) {
    this.asked.push(type);
    if (this.state !== "ready") throw new ConnectionLostError();
    if (type === "storage.open") {
      const made = `h${this.asked.length}`;
      this.uploads[made] = { path, bytes: Buffer.alloc(0) };
      return { handle: made };
    }
    if (type === "storage.abort") delete this.uploads[handle];
    if (type === "storage.abort") return null;
    const fault = type === "storage.write" ? this.faults.shift() : undefined;
    if (fault?.before) fault.before(this);
    if (!this.uploads[handle]) throw new RoomError("no such file handle", 1003);
    const one = this.uploads[handle];
    if (type === "storage.write") {
      assert.ok(offset <= one.bytes.length, "a piece left a gap");
      one.bytes = Buffer.concat([one.bytes, data.subarray(one.bytes.length - offset)]);
      if (fault?.after) fault.after(this);
    } else {
      this.stored[one.path] = one.bytes;
      delete this.uploads[handle];
    }
    return null;
  }
}

const cut = (room) => {
  room.become("lost");
  setImmediate(() => room.become("ready"));
  throw new ConnectionLostError();
};
const forget = (room) => {
  room.uploads = {};
  cut(room);
};
const opened = (room) => room.asked.filter((type) => type === "storage.open").length;
const content = Uint8Array.from({ length: 3 * MB }, (_, index) => index % 251);
const file = () => new File([content], "f");

test("a file goes on where it was cut, and is whole", async () => {
  for (const faults of [[{}, { before: cut }], [{}, {}, { after: cut }], [{ after: cut }, {}, { before: cut }, { after: cut }]]) {
    const room = new Room();
    room.faults = faults;
    const seen = [];
    let cuts = 0;
    await storeFile(() => room, "f", file(), { onProgress: (bytes) => seen.push(bytes), onCut: () => (cuts += 1) });
    assert.ok(room.stored.f.equals(content));
    assert.equal(opened(room), 1);
    assert.ok(cuts > 0);
    assert.equal(seen.at(-1), 3 * MB);
    assert.deepEqual(seen, [...seen].sort((one, other) => one - other));
  }
});

test("a file begins again when the server has forgotten it", async () => {
  const room = new Room();
  room.faults = [{}, {}, { before: forget }];
  await storeFile(() => room, "f", file());
  assert.ok(room.stored.f.equals(content));
  assert.equal(opened(room), 2);
});

test("a server that forgets again and again ends it", async () => {
  const room = new Room();
  room.faults = Array.from({ length: 50 }, () => ({ before: (each) => (each.uploads = {}) }));
  await assert.rejects(storeFile(() => room, "f", file()), /no such file handle/);
  assert.ok(opened(room) < 10);
});

test("a file that is stopped is aborted at the server", async () => {
  const room = new Room();
  const stopping = new AbortController();
  room.faults = [{}, { after: () => stopping.abort(new Error("stopped")) }];
  await assert.rejects(storeFile(() => room, "f", file(), { signal: stopping.signal }), /stopped/);
  assert.deepEqual([room.stored, room.uploads], [{}, {}]);
});

test("a file that waits for the connection can be stopped", async () => {
  const room = new Room();
  const stopping = new AbortController();
  room.faults = [{ before: (each) => { each.become("lost"); throw new ConnectionLostError(); } }];
  const over = assert.rejects(storeFile(() => room, "f", file(), { signal: stopping.signal, onCut: () => setImmediate(() => stopping.abort(new Error("stopped"))) }), /stopped/);
  await over;
  assert.equal(room.watchers.size, 0);
});

test("what the room refuses ends it, and so does a connection that ended for good", async () => {
  const room = new Room();
  room.faults = [{ before: () => { throw new RoomError("storage full", 5006); } }];
  await assert.rejects(storeFile(() => room, "f", file()), /storage full/);
  assert.deepEqual(room.uploads, {});
  room.become("ended", new Error("signed out"));
  await assert.rejects(storeFile(() => room, "f", file()), /signed out/);
  await assert.rejects(storeFile(() => null, "f", file()), ConnectionLostError);
});
