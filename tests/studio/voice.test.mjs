// A voice call by messages of the room, with a room and an agent that the test plays; and the worklet that plays sound.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Call } from "../../meshhost/studio/static/pages/talk/voice/call.js";

/** A room client whose requests wait until the test answers them. */
class Room {
  constructor() {
    this.participantId = "me";
    this.sent = [];
    this.listeners = new Set();
    this.watchers = new Set();
  }

  request(type, header, payload) {
    return new Promise((resolve, reject) => this.sent.push({ ...header, payload, resolve, reject }));
  }

  on(_type, listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  watch(watcher) {
    this.watchers.add(watcher);
    watcher("ready", null);
    return () => this.watchers.delete(watcher);
  }

  tell(type, message, payload = new Uint8Array(), from = "agent") {
    for (const listener of [...this.listeners]) listener({ from_participant_id: from, type, message }, payload);
  }
}

function called() {
  const room = new Room();
  const player = { played: [], cleared: 0, play: (pcm) => player.played.push(pcm), clear: () => (player.cleared += 1) };
  const call = new Call({ client: room, agent: "agent", rate: 48000, player, onChange: () => {} });
  const id = room.sent[0].message.call_id;
  return { room, player, call, id };
}

function answered() {
  const all = called();
  all.room.tell("voice_answer", { call_id: all.id, rate: 48000 });
  return all;
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

test("a call is asked for at the rate of the machine, and sound is sent once it is answered", () => {
  const { room, call, id } = called();
  assert.deepEqual(room.sent[0].message, { call_id: id, transport: "messages", rate: 48000, breakout_room: "" });
  assert.equal(call.state, "calling");
  call.hear(new Uint8Array(2));
  assert.equal(room.sent.length, 1);
  room.tell("voice_answer", { call_id: id, rate: 48000 });
  assert.equal(call.state, "listening");
  call.hear(new Uint8Array([1, 2]));
  assert.equal(room.sent[1].type, "voice_audio");
  assert.deepEqual(room.sent[1].message, { call_id: id, seq: 0 });
  assert.deepEqual([...room.sent[1].payload], [1, 2]);
  call.hangUp();
});

test("what the agent says is played, shown, and dropped when it is interrupted", () => {
  const { room, player, call, id } = answered();
  room.tell("voice_audio", { call_id: id, seq: 0 }, new Uint8Array([5, 6]));
  assert.deepEqual([...player.played[0]], [5, 6]);
  room.tell("voice_clear", { call_id: id });
  assert.equal(player.cleared, 1);
  room.tell("voice_state", { call_id: id, state: "thinking" });
  assert.equal(call.state, "thinking");
  room.tell("voice_line", { call_id: id, speaker: "agent", text: "Hi.", began: 1, ended: 2, is_cut: false });
  assert.equal(call.lines[0].text, "Hi.");
  call.hangUp();
});

test("nobody else can speak in a call", () => {
  const { room, player, call, id } = answered();
  room.tell("voice_audio", { call_id: id, seq: 0 }, new Uint8Array([5, 6]), "eve");
  room.tell("voice_audio", { call_id: "another", seq: 0 }, new Uint8Array([5, 6]));
  room.tell("voice_end", { call_id: id }, undefined, "eve");
  assert.equal(player.played.length, 0);
  assert.equal(call.state, "listening");
  call.hangUp();
});

test("sound is left out while the room takes none", async () => {
  const { room, call } = answered();
  for (let count = 0; count < 30; count += 1) call.hear(new Uint8Array(2));
  assert.equal(room.sent.length, 1 + 16);
  room.sent[1].resolve();
  await settled();
  call.hear(new Uint8Array(2));
  assert.equal(room.sent.length, 1 + 17);
  call.hangUp();
});

test("a call ends with its reason, and then nothing is sent or listened to", () => {
  for (const [end, reason] of [
    [({ room, id }) => room.tell("voice_end", { call_id: id, reason: "busy" }), "busy"],
    [({ room, id }) => room.tell("voice_end", { call_id: id }), "The agent has ended the call."],
    [({ call }) => call.hangUp(), ""],
    [({ room }) => [...room.watchers][0]("ended", new Error("revoked")), "revoked"],
    [
      ({ room }) => {
        room.participantId = "another";
        [...room.watchers][0]("ready", null);
      },
      "The connection to the room was lost.",
    ],
  ]) {
    const all = answered();
    end(all);
    assert.equal(all.call.state, "ended");
    assert.equal(all.call.reason, reason);
    const sent = all.room.sent.length;
    all.call.hear(new Uint8Array(2));
    all.call.hangUp();
    assert.equal(all.room.sent.length, sent);
    assert.equal(all.room.listeners.size + all.room.watchers.size, 0);
  }
});

test("a call waits a while for an agent that was lost, and ends when it does not come back", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { room, call } = answered();
  room.tell("participant.disabled", { id: "agent" });
  context.mock.timers.tick(4_000);
  room.tell("participant.enabled", { id: "agent", attributes: {} });
  context.mock.timers.tick(10_000);
  assert.equal(call.state, "listening");
  room.tell("participant.disabled", { id: "agent" });
  context.mock.timers.tick(6_000);
  assert.deepEqual([call.state, call.reason], ["ended", "The agent has left the room."]);
});

test("a call that the room refuses says why", async () => {
  const { room, call } = called();
  room.sent[0].reject(new Error("not granted"));
  await settled();
  assert.deepEqual([call.state, call.reason], ["ended", "not granted"]);
});

test("the loudspeaker waits for some sound, plays it, and drops the rest when it is told to", async () => {
  const made = {};
  globalThis.sampleRate = 1000;
  globalThis.AudioWorkletProcessor = class {
    port = {};
  };
  globalThis.registerProcessor = (name, made_) => (made[name] = made_);
  await import("../../meshhost/studio/static/pages/talk/voice/speaker-worklet.js");
  const speaker = new made.speaker();
  const heard = (count) => {
    const output = new Float32Array(count);
    speaker.process([], [[output]]);
    return [...output].map((sample) => Math.round(sample * 32768));
  };
  const give = (value, count) => speaker.port.onmessage({ data: new Int16Array(count).fill(value).buffer });
  give(7, 40);
  assert.deepEqual(heard(10), Array(10).fill(0));
  give(8, 40);
  assert.deepEqual(heard(50), [...Array(40).fill(7), ...Array(10).fill(8)]);
  speaker.port.onmessage({ data: null });
  assert.deepEqual(heard(10), Array(10).fill(0));
  // A short answer is played although nothing more comes.
  give(9, 20);
  const rest = [...heard(100), ...heard(100), ...heard(100)];
  assert.equal(rest.filter((sample) => sample === 9).length, 20);
});
