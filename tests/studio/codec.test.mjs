// The codec of the browser over the vectors of the Python codec, which tests/unit/studio/test_browser_side.py writes.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { FileReply, packMessage, readReply, RoomError, unpackMessage } from "../../meshhost/studio/static/protocol/messages.js";
import { PacketAssembler, packets, ProtocolError } from "../../meshhost/studio/static/protocol/packets.js";

const vectors = JSON.parse(readFileSync(process.env.PROTOCOL_VECTORS, "utf-8"));
const bytes = (hex) => new Uint8Array(Buffer.from(hex, "hex"));
const hex = (data) => Buffer.from(data).toString("hex");

test("messages are cut as the Python codec cuts them, and joined again", () => {
  assert.ok(vectors.messages.length > 4);
  for (const { id, type, data, slice, packets: expected } of vectors.messages) {
    const message = { id: BigInt(id), type, data: bytes(data) };
    assert.deepEqual(packets(message, slice).map(hex), expected);
    const assembler = new PacketAssembler();
    const joined = expected.map((packet) => assembler.receive(bytes(packet))).filter(Boolean);
    assert.deepEqual(joined, [message]);
  }
});

test("a broken stream is refused and leaves nothing behind", () => {
  assert.ok(vectors.broken_streams.length > 10);
  for (const stream of vectors.broken_streams) {
    const assembler = new PacketAssembler();
    const all = stream.map(bytes);
    for (const packet of all.slice(0, -1)) assert.equal(assembler.receive(packet), null);
    assert.throws(() => assembler.receive(all.at(-1)), ProtocolError);
    const [head, body] = packets({ id: 9n, type: "n", data: bytes("00ff") });
    assert.equal(assembler.receive(head), null);
    assert.deepEqual(assembler.receive(body).data, bytes("00ff"));
  }
});

test("a message without a JSON object as header is refused", () => {
  assert.ok(vectors.unreadable.length > 10);
  for (const raw of vectors.unreadable) assert.throws(() => unpackMessage(bytes(raw)), ProtocolError);
});

test("headers are packed so that Python reads them", () => {
  for (const { header, payload, packed } of vectors.headers) {
    const { header: read, payload: rest } = unpackMessage(bytes(packed));
    assert.deepEqual(read, header);
    assert.equal(hex(rest), payload);
    assert.deepEqual(unpackMessage(packMessage(header, bytes(payload))).header, header);
  }
});

test("every body of a reply that Python packs is read", () => {
  const kinds = new Set();
  for (const { packed, type, value } of vectors.replies) {
    kinds.add(type);
    const { header, payload } = unpackMessage(bytes(packed));
    if (type === "error") {
      assert.throws(() => readReply(header, payload), (error) => error instanceof RoomError && error.message === value);
    } else if (type === "file") {
      const file = readReply(header, payload);
      assert.ok(file instanceof FileReply);
      assert.deepEqual([file.name, hex(file.data)], value);
    } else {
      assert.deepEqual(readReply(header, payload), value);
    }
  }
  assert.deepEqual([...kinds].sort(), ["empty", "error", "file", "json", "link", "raw", "text"]);
});

test("a body that lacks what it needs is refused", () => {
  for (const header of vectors.bad_bodies) {
    assert.throws(() => readReply(header, new Uint8Array()), ProtocolError, JSON.stringify(header));
  }
});
