/**
 * A document of a room, kept the same as everybody else's (docs/reference/room-protocol.md, 13).
 *
 * The content is a Yjs document; updates travel as base64 text. The listener stands before `room.connect` is sent, as the state
 * comes right behind the reply. After a reconnection the document is opened again, and what was written in between is sent: Yjs
 * merges both. A document that is closed while it is being opened is left once it is open; what is opened next waits for that, as
 * the room knows an open document by its path. Yjs is loaded with the first document.
 */
import { ConnectionLostError } from "./client.js";

/** @typedef {import("./client.js").RoomClient} RoomClient */

/** What ends when all closed documents of a client are left. @type {WeakMap<RoomClient, Promise<void>>} */
const leaving = new WeakMap();
const NOT_FOUND = 1003;

/** @param {Uint8Array} data */
export function toBase64(data) {
  let text = "";
  for (let start = 0; start < data.length; start += 0x8000) text += String.fromCharCode(...data.subarray(start, start + 0x8000));
  return btoa(text);
}

/** @param {Uint8Array} payload ASCII bytes of base64 text */
export function fromBase64(payload) {
  const text = atob(new TextDecoder("latin1").decode(payload));
  return Uint8Array.from(text, (sign) => sign.charCodeAt(0));
}

export class RoomDocument {
  /**
   * @param {RoomClient} client @param {string} path
   * @param {typeof import("../vendor/yjs.js")} yjs @param {() => void} changed called after each change, by anybody
   */
  constructor(client, path, yjs, changed) {
    this.#client = client;
    this.path = path;
    this.yjs = yjs;
    this.doc = new yjs.Doc();
    this.root = this.doc.getXmlFragment("xml");
    this.#changed = changed;
    this.doc.on("update", (/** @type {Uint8Array} */ update, /** @type {unknown} */ origin) => {
      if (origin !== this) this.#send(update);
      changed();
    });
  }

  #client;
  #changed;
  /** @type {(() => void)[]} */
  #stops = [];
  #isOpen = false;
  #isClosed = false;
  #connecting = Promise.resolve();

  /** Whether the first state has come. */
  isLoaded = false;
  /** Who changed it last, of what came since it was opened: the participant's id. @type {{by: string, at: number} | null} */
  lastEdit = null;
  /** Why it is not, or why what was written here is not stored. @type {Error | null} */
  error = null;

  /** Open it, and again after each reconnection, until `close`. @param {unknown} [json] its content, if it is not there yet */
  open(json = null) {
    this.#stops = [
      this.#client.on("room.sync", ({ path, participant_id: by }, payload) => {
        if (path !== this.path || !payload.length) return;
        this.isLoaded = true;
        if (by) this.lastEdit = { by, at: Date.now() / 1000 };
        this.yjs.applyUpdate(this.doc, fromBase64(payload), this);
        this.#changed();
      }),
      this.#client.watch((state, error) => {
        this.#isOpen = false;
        if (state === "ready") this.#connecting = this.#connect(json);
        else if (state === "ended" && error) this.#fail(error);
      }),
    ];
  }

  /** @param {unknown} json */
  async #connect(json) {
    try {
      await leaving.get(this.#client);
      // It may be there already: then what is there counts.
      const refused = json === null || this.isLoaded || this.#isClosed ? null : await this.#create(json);
      if (this.#isClosed) return;
      await this.#client.request("room.connect", { path: this.path, create: false }).catch((error) => {
        throw error.code === NOT_FOUND && refused ? refused : error;
      });
      this.#isOpen = true;
      // What was written before the connection is merged into what is there.
      if (this.isLoaded && !this.#isClosed) this.#send(this.yjs.encodeStateAsUpdate(this.doc));
    } catch (error) {
      this.#fail(/** @type {Error} */ (error));
    }
  }

  /** Make it; returns why it was not made. @param {unknown} json @returns {Promise<Error | null>} */
  #create(json) {
    return this.#client.request("room.create", { path: this.path, json }).then(
      () => null,
      (error) => error,
    );
  }

  /** Change it; all changes in `edit` become one update. @param {() => void} edit */
  edit(edit) {
    this.doc.transact(edit);
  }

  close() {
    this.#isClosed = true;
    this.#stops.forEach((stop) => stop());
    leaving.set(this.#client, this.#leave());
    this.doc.destroy();
  }

  async #leave() {
    await this.#connecting;
    // A connection that is lost leaves, too, and nobody is there any more who could be told of another error.
    if (this.#isOpen) await this.#client.request("room.disconnect", { path: this.path }).catch(() => {});
  }

  /** @param {Uint8Array} update */
  #send(update) {
    if (!this.#isOpen) return;
    const payload = new TextEncoder().encode(toBase64(update));
    this.#client.request("room.sync", { path: this.path }, payload).catch((error) => this.#fail(error));
  }

  /** @param {Error} error */
  #fail(error) {
    // What a lost connection did not do is done when there is one again.
    if (this.#isClosed || error instanceof ConnectionLostError) return;
    this.error = error;
    this.#changed();
  }
}
