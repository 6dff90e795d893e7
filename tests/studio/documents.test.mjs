// Documents of a room over a client whose requests the test answers.
import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.location = { pathname: "/studio/", search: "", hash: "" };
globalThis.document = { documentElement: { dataset: {} } };
const { ConnectionLostError } = await import("../../meshhost/studio/static/protocol/client.js");
const { RoomDocument, fromBase64, toBase64 } = await import("../../meshhost/studio/static/protocol/document.js");
const { RoomError } = await import("../../meshhost/studio/static/protocol/messages.js");
const yjs = await import("../../meshhost/studio/static/vendor/yjs.js");

const settled = () => new Promise((resolve) => setImmediate(resolve));

/** The part of a client that documents use. */
class Client {
  requests = [];
  listeners = new Set();
  watchers = new Set();

  request(type, header, payload) {
    return new Promise((resolve, reject) => this.requests.push({ type, ...header, payload, resolve, reject }));
  }

  on(_, listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  watch(watcher) {
    this.watchers.add(watcher);
    watcher("ready", null);
    return () => this.watchers.delete(watcher);
  }

  /** Take the next request, which is of this type. */
  async next(type) {
    await settled();
    const request = this.requests.shift();
    assert.equal(request?.type, type);
    return request;
  }

  sync(doc, path = "a") {
    const payload = new TextEncoder().encode(toBase64(yjs.encodeStateAsUpdate(doc)));
    this.listeners.forEach((listener) => listener({ path }, payload));
  }

  turn(state) {
    this.watchers.forEach((watcher) => watcher(state, null));
  }
}

async function opened(client = new Client()) {
  const document = new RoomDocument(client, "a", yjs, () => {});
  document.open();
  (await client.next("room.connect")).resolve({});
  await settled();
  client.sync(new yjs.Doc());
  return { client, document };
}

test("a document that is closed while it is opened is left once it is open, and the next of its path waits for that", async () => {
  const client = new Client();
  const first = new RoomDocument(client, "a", yjs, () => {});
  first.open();
  const connect = await client.next("room.connect");
  first.close();
  assert.deepEqual([client.listeners.size, client.watchers.size], [0, 0]);
  const second = new RoomDocument(client, "a", yjs, () => {});
  second.open();
  await settled();
  assert.deepEqual(client.requests, []);
  connect.resolve({});
  const leave = await client.next("room.disconnect");
  assert.equal(client.watchers.size, 1);
  leave.resolve(null);
  (await client.next("room.connect")).resolve({});
  assert.deepEqual(client.requests, []);
});

test("a document that is closed is asked for no more", async () => {
  const { client, document } = await opened();
  document.close();
  (await client.next("room.disconnect")).resolve(null);
  client.turn("ready");
  await settled();
  assert.deepEqual([client.requests, client.watchers.size, client.listeners.size], [[], 0, 0]);
});

test("what was written while the connection was lost is sent when it is back", async () => {
  const { client, document } = await opened();
  client.turn("lost");
  document.edit(() => document.root.push([new yjs.XmlElement("note")]));
  await settled();
  assert.deepEqual(client.requests, []);
  client.turn("ready");
  (await client.next("room.connect")).resolve({});
  const { payload } = await client.next("room.sync");
  const there = new yjs.Doc();
  yjs.applyUpdate(there, fromBase64(payload));
  assert.equal(there.getXmlFragment("xml").toString(), "<note></note>");
});

test("an edit that the room refuses is said, one that was cut off is not", async () => {
  const { client, document } = await opened();
  document.edit(() => document.root.push([new yjs.XmlElement("note")]));
  (await client.next("room.sync")).reject(new ConnectionLostError());
  await settled();
  assert.equal(document.error, null);
  document.edit(() => document.root.push([new yjs.XmlElement("note")]));
  (await client.next("room.sync")).reject(new RoomError("the document is too large", 5003));
  await settled();
  assert.equal(document.error.message, "the document is too large");
});

test("why a document could not be made is said where it is not there, and nothing where it is", async () => {
  for (const [code, said] of [
    [1003, "over 3 documents"],
    [1001, "not for you"],
    [null, null],
  ]) {
    const client = new Client();
    const document = new RoomDocument(client, "a", yjs, () => {});
    document.open({ thread: {} });
    (await client.next("room.create")).reject(new RoomError("over 3 documents", 5006));
    const connect = await client.next("room.connect");
    if (code === null) connect.resolve({});
    else connect.reject(new RoomError("not for you", code));
    await settled();
    assert.equal(document.error?.message ?? null, said);
  }
});
