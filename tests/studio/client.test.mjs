// The room client over a socket that the test holds the other end of.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnectionLostError, RoomClient } from "../../meshhost/studio/static/protocol/client.js";
import { packMessage, unpackMessage } from "../../meshhost/studio/static/protocol/messages.js";
import { PacketAssembler, packets } from "../../meshhost/studio/static/protocol/packets.js";

/** The other end of a connection. */
class Peer {
  constructor() {
    const peer = this;
    this.received = [];
    this.assembler = new PacketAssembler();
    this.socket = {
      bufferedAmount: 0,
      send(packet) {
        const message = peer.assembler.receive(packet);
        if (message) peer.received.push({ ...message, ...unpackMessage(message.data) });
      },
      close(code) {
        peer.closedWith = code;
        peer.socket.onclose?.({ code });
      },
    };
  }

  tell(type, header, id = 77n, payload) {
    for (const packet of packets({ id, type, data: packMessage(header, payload) })) {
      this.socket.onmessage({ data: packet.buffer });
    }
  }

  greet() {
    this.tell("room_ready", { room_name: "r", room_url: "ws://x", session_id: "s" });
    this.tell("connected", { type: "init", participantId: "me", attributes: { name: "ada" }, meshhost: { resume_token: "same-again" } });
  }
}

async function connected() {
  const peers = [new Peer(), new Peer()];
  const shown = [];
  const client = new RoomClient({
    dial: async (resume) => {
      shown.push(resume);
      return peers[shown.length - 1].socket;
    },
  });
  client.start();
  await settled();
  peers[0].greet();
  return { client, peers, shown };
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

test("a client is ready when it was greeted, and knows who it is", async () => {
  const { client } = await connected();
  assert.equal(client.state, "ready");
  assert.equal(client.participantId, "me");
  assert.equal(client.attributes.name, "ada");
});

test("replies reach their requests, in any order", async () => {
  const { client, peers } = await connected();
  const first = client.request("a", { n: 1 });
  const second = client.request("b", {}, new Uint8Array([1, 2]));
  const [one, two] = peers[0].received;
  assert.deepEqual([one.type, one.header, two.type, [...two.payload]], ["a", { n: 1 }, "b", [1, 2]]);
  peers[0].tell("__response__", { type: "json", json: "two" }, two.id);
  peers[0].tell("__response__", { type: "error", text: "no", code: 4 }, one.id);
  assert.equal(await second, "two");
  await assert.rejects(first, (error) => error.message === "no" && error.code === 4);
});

test("events reach their listeners until they stop listening, and one that fails harms no other", async (context) => {
  const { client, peers } = await connected();
  context.mock.method(console, "error", () => {});
  const seen = [];
  client.on("x", () => {
    throw new Error("mine");
  });
  const stop = client.on("x", (header, payload) => seen.push([header.n, [...payload]]));
  peers[0].tell("x", { n: 1 }, 5n, new Uint8Array([7]));
  stop();
  peers[0].tell("x", { n: 2 });
  assert.deepEqual(seen, [[1, [7]]]);
});

test("a lost connection fails what waits, and is dialled again as the same participant", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { client, peers, shown } = await connected();
  const states = [];
  client.watch((state) => states.push(state));
  const waiting = client.request("a");
  peers[0].socket.onclose({ code: 1006 });
  await assert.rejects(waiting, ConnectionLostError);
  await assert.rejects(client.request("b"), ConnectionLostError);
  context.mock.timers.tick(600);
  await settled();
  peers[1].greet();
  assert.deepEqual(states, ["ready", "lost", "connecting", "ready"]);
  assert.deepEqual(shown, ["-", "same-again"]);
});

test("a reason that trying again won't change ends it", async () => {
  const client = new RoomClient({
    dial: async () => {
      throw new TypeError("forbidden");
    },
    isFinal: (error) => error instanceof TypeError,
  });
  client.start();
  await settled();
  assert.equal(client.state, "ended");
  assert.equal(client.error.message, "forbidden");
});

test("a server that breaks the protocol is left", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { client, peers } = await connected();
  peers[0].socket.onmessage({ data: new Uint8Array([1, 2, 3]).buffer });
  assert.equal(peers[0].closedWith, 1002);
  assert.equal(client.state, "lost");
  client.close();
});
