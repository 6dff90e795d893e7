/**
 * A participant of a room, in the browser: requests with their replies, events, and a connection that comes back by itself.
 *
 * `dial` opens a socket with a new token each time, because tokens are short-lived. A lost connection fails the requests that
 * wait, as nobody knows whether they were done; then it is dialled again with a growing delay, and shows the resume token of the
 * session that it lost, so that it is the same participant. Listeners for the state `ready` set up again what they need, as
 * the room may have forgotten the session. A reason that trying again won't change (the role may not, the session ended) ends it
 * for good.
 *
 * Which task does what: the socket's own callbacks and one timer. Invariant: after `close` nothing is called any more.
 */
import { packMessage, readReply, unpackMessage } from "./messages.js";
import { PacketAssembler, packets } from "./packets.js";

const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 10_000;
const REPLY = "__response__";

/**
 * @typedef {import("./messages.js").Header} Header
 * @typedef {"connecting" | "ready" | "lost" | "ended"} State
 * @typedef {{binaryType: string, bufferedAmount: number, send(data: any): void, close(code?: number): void,
 *   onopen: any, onmessage: any, onclose: any, onerror: any}} Socket
 * @typedef {(header: Header, payload: Uint8Array<ArrayBuffer>) => void} Listener
 */

/** The connection ended while a request waited for its reply, or before it could be sent. */
export class ConnectionLostError extends Error {
  constructor() {
    super("The connection to the room was lost.");
    this.name = "ConnectionLostError";
  }
}

export class RoomClient {
  /** @param {{dial: (resume: string) => Promise<Socket>, isFinal?: (error: Error) => boolean}} options `isFinal`: whether trying again is in vain */
  constructor({ dial, isFinal = () => false }) {
    this.#dial = dial;
    this.#isFinal = isFinal;
  }

  #dial;
  #isFinal;
  /** What makes us the same participant again; a placeholder at first. */
  #resume = "-";
  /** @type {Socket | null} */
  #socket = null;
  #lastId = 0n;
  /** @type {Map<bigint, {resolve: (value: any) => void, reject: (error: Error) => void}>} */
  #waiting = new Map();
  /** @type {Map<string, Set<Listener>>} */
  #listeners = new Map();
  /** @type {Set<(state: State, error: Error | null) => void>} */
  #watchers = new Set();
  #delay = FIRST_RETRY_MS;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #isClosed = false;
  #greeted = new Set();

  /** @type {State} */
  state = "connecting";
  /** Why it is lost or ended. @type {Error | null} */
  error = null;
  participantId = "";
  /** @type {Record<string, any>} */
  attributes = {};

  /** Connect, and stay connected until `close`. */
  start() {
    void this.#connect();
  }

  /** Leave the room. */
  close() {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#watchers.clear();
    this.#listeners.clear();
    this.#failAll();
    this.#socket?.close(1000);
    this.#socket = null;
  }

  /**
   * Ask the room. Raises RoomError when it refuses, ConnectionLostError.
   * @param {string} type @param {Header} [header] @param {Uint8Array} [payload]
   * @returns {Promise<any>}
   */
  request(type, header = {}, payload) {
    if (!this.#socket || this.state !== "ready") return Promise.reject(new ConnectionLostError());
    this.#lastId += 1n;
    const id = this.#lastId;
    for (const packet of packets({ id, type, data: packMessage(header, payload) })) this.#socket.send(packet);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  /** Listen to events of a type; returns what ends it. @param {string} type @param {Listener} listener */
  on(type, listener) {
    const all = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, all.add(listener));
    return () => {
      all.delete(listener);
    };
  }

  /** Be called with the state now and whenever it changes; returns what ends it. @param {(state: State, error: Error | null) => void} watcher */
  watch(watcher) {
    this.#watchers.add(watcher);
    watcher(this.state, this.error);
    return () => {
      this.#watchers.delete(watcher);
    };
  }

  async #connect() {
    this.#setState("connecting", this.error);
    let socket;
    try {
      socket = await this.#dial(this.#resume);
    } catch (error) {
      this.#lost(/** @type {Error} */ (error));
      return;
    }
    if (this.#isClosed) return socket.close(1000);
    const assembler = new PacketAssembler();
    this.#greeted.clear();
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onmessage = (/** @type {{data: ArrayBuffer}} */ { data }) => {
      if (this.#socket !== socket) return;
      try {
        const message = assembler.receive(new Uint8Array(data));
        if (message) this.#receive(message);
      } catch (error) {
        socket.close(1002);
        this.#lost(/** @type {Error} */ (error));
      }
    };
    socket.onclose = () => {
      if (this.#socket === socket) this.#lost(new ConnectionLostError());
    };
    socket.onerror = () => {};
    return undefined;
  }

  /** @param {import("./packets.js").Message} message */
  #receive({ id, type, data }) {
    const { header, payload } = unpackMessage(data);
    if (type === REPLY) {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (!waiting) return;
      try {
        waiting.resolve(readReply(header, payload));
      } catch (error) {
        waiting.reject(/** @type {Error} */ (error));
      }
      return;
    }
    if (type === "room_ready" || (type === "connected" && header.type === "init")) this.#greet(type, header);
    for (const listener of this.#listeners.get(type) ?? []) {
      try {
        listener(header, payload);
      } catch (error) {
        // One page's mistake must not end the connection of all.
        console.error(error);
      }
    }
  }

  /** @param {string} type @param {Header} header */
  #greet(type, header) {
    this.#greeted.add(type);
    if (type === "connected") {
      this.participantId = String(header.participantId ?? "");
      this.attributes = header.attributes ?? {};
      this.#resume = header.meshhost?.resume_token ?? "-";
    }
    if (this.#greeted.size < 2 || this.state === "ready") return;
    this.#delay = FIRST_RETRY_MS;
    this.#setState("ready", null);
  }

  /** @param {Error} error */
  #lost(error) {
    if (this.#isClosed) return;
    this.#socket = null;
    this.#failAll();
    if (this.#isFinal(error)) return this.#setState("ended", error);
    this.#setState("lost", error);
    this.#timer = setTimeout(() => void this.#connect(), this.#delay);
    this.#delay = Math.min(this.#delay * 1.7, LAST_RETRY_MS);
    return undefined;
  }

  #failAll() {
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(new ConnectionLostError());
  }

  /** @param {State} state @param {Error | null} error */
  #setState(state, error) {
    this.state = state;
    this.error = error;
    for (const watcher of [...this.#watchers]) watcher(state, error);
  }
}
