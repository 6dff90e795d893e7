/**
 * One voice call with an agent, by messages of the room (docs/how-to/voice.md, "How sound travels").
 *
 * Knows nothing of microphones: `hear` takes what the person says, `player` plays what the agent does. `onChange` is called
 * whenever `state`, `lines` or `reason` change. While too many messages wait for the room to take them, sound is left out: a call
 * that lags behind is worse than one with a gap. Invariant: after the end nothing is sent or called any more.
 */
import { tell } from "../../../app/participants.js";

const ANSWER_MS = 30_000;
const MOST_IN_FLIGHT = 16;
const LEAVE_MS = 5_000;

/**
 * @typedef {"calling" | "listening" | "thinking" | "speaking" | "ended"} CallState
 * @typedef {{speaker: "caller" | "agent", text: string, began: number, is_cut: boolean}} Line
 * @typedef {{play: (pcm: Uint8Array) => void, clear: () => void}} Player
 * @typedef {import("../../../protocol/client.js").RoomClient} RoomClient
 */

export class Call {
  /** @param {{client: RoomClient, agent: string, rate: number, player: Player, onChange: () => void, transcript?: string}} options `agent` is a participant's id, `transcript` the path of a thread */
  constructor({ client, agent, rate, player, onChange, transcript }) {
    this.#client = client;
    this.#agent = agent;
    this.#player = player;
    this.#onChange = onChange;
    this.#me = client.participantId;
    this.#stops.push(
      client.on("messaging.send", (header, payload) => this.#receive(header, payload)),
      client.watch((state, error) => this.#watch(state, error)),
    );
    const call = { transport: "messages", rate, breakout_room: "", ...(transcript ? { transcript_path: transcript } : {}) };
    this.#timer = setTimeout(() => this.#end("The agent does not answer."), ANSWER_MS);
    this.#tell("voice_call", call).catch((error) => this.#end(error.message));
  }

  #client;
  #agent;
  #player;
  #onChange;
  #me;
  #id = crypto.randomUUID();
  #seq = 0;
  #inFlight = 0;
  /** @type {ReturnType<typeof setTimeout>} */
  #timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #gone;
  /** @type {(() => void)[]} */
  #stops = [];

  /** @type {CallState} */
  state = "calling";
  /** @type {Line[]} */
  lines = [];
  /** Why it ended; "" when the person hung up. */
  reason = "";

  /** Say this. @param {Uint8Array} pcm */
  hear(pcm) {
    if (this.state === "calling" || this.state === "ended" || this.#inFlight >= MOST_IN_FLIGHT) return;
    this.#inFlight += 1;
    const seq = this.#seq;
    this.#seq += 1;
    const done = () => {
      this.#inFlight -= 1;
    };
    // A piece that is lost with the connection is lost; the call goes on when it is back.
    this.#tell("voice_audio", { seq }, pcm).then(done, done);
  }

  /** End the call. */
  hangUp() {
    if (this.state === "ended") return;
    this.#tell("voice_end", {}).catch(() => {});
    this.#end("");
  }

  /** @param {string} type @param {object} message @param {Uint8Array} [pcm] */
  #tell(type, message, pcm) {
    return tell(this.#client, this.#agent, type, { call_id: this.#id, ...message }, pcm);
  }

  /** @param {import("../../../protocol/messages.js").Header} header @param {Uint8Array} payload */
  #receive({ from_participant_id: from, type, message }, payload) {
    // An agent whose connection was lost for a moment comes back as the same participant.
    if (type === "participant.disabled" && message.id === this.#agent) this.#gone ??= setTimeout(() => this.#end("The agent has left the room."), LEAVE_MS);
    if (type === "participant.enabled" && message.id === this.#agent) this.#back();
    if (from !== this.#agent || message?.call_id !== this.#id) return undefined;
    switch (type) {
      case "voice_answer":
        clearTimeout(this.#timer);
        return this.#show("listening");
      case "voice_audio":
        return this.#player.play(payload);
      case "voice_clear":
        return this.#player.clear();
      case "voice_state":
        return this.#show(message.state);
      case "voice_line":
        this.lines = [...this.lines, message];
        return this.#onChange();
      case "voice_end":
        return this.#end(message.reason ?? "The agent has ended the call.");
      default:
        return undefined;
    }
  }

  /** @param {import("../../../protocol/client.js").State} state @param {Error | null} error */
  #watch(state, error) {
    if (state === "ended") this.#end(error?.message ?? "The connection to the room has ended.");
    // One who came back as somebody else is not the one whom the agent talks with.
    if (state === "ready" && this.#client.participantId !== this.#me) this.#end("The connection to the room was lost.");
  }

  /** @param {CallState} state */
  #show(state) {
    this.state = state;
    this.#onChange();
  }

  #back() {
    clearTimeout(this.#gone);
    this.#gone = undefined;
  }

  /** @param {string} reason */
  #end(reason) {
    if (this.state === "ended") return;
    this.#back();
    clearTimeout(this.#timer);
    for (const stop of this.#stops) stop();
    this.#player.clear();
    this.reason = reason;
    this.#show("ended");
  }
}
