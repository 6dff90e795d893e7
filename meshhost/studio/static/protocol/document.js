/**
 * A document of a room, kept the same as everybody else's (docs/reference/room-protocol.md, 13).
 *
 * The content is a Yjs document; updates travel as base64 text. The listener stands before `room.connect` is sent, as the state
 * comes right behind the reply. After a reconnection the document is opened again, and what was written in between is sent: Yjs
 * merges both. Yjs is loaded with the first document.
 */

/** @typedef {import("./client.js").RoomClient} RoomClient */

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
  /** @type {any} */
  schema = null;

  /** Whether the first state has come. */
  isLoaded = false;

  /** Open it, and again after each reconnection. Raises RoomError the first time. @param {{create?: boolean, json?: unknown}} [options] */
  async open({ create = false, json = null } = {}) {
    this.#stops.push(
      this.#client.on("room.sync", ({ path }, payload) => {
        if (path !== this.path || !payload.length) return;
        this.isLoaded = true;
        this.yjs.applyUpdate(this.doc, fromBase64(payload), this);
        this.#changed();
      }),
    );
    if (json !== null) {
      // It may be there already: then what is there counts.
      await this.#client.request("room.create", { path: this.path, json }).catch(() => {});
    }
    await this.#connect(create);
    let isFirst = true;
    this.#stops.push(
      this.#client.watch((state) => {
        if (state === "ready" && !isFirst) void this.#connect(false).catch(console.error);
        isFirst = false;
        if (state !== "ready") this.#isOpen = false;
      }),
    );
  }

  /** @param {boolean} create */
  async #connect(create) {
    const answer = await this.#client.request("room.connect", { path: this.path, create });
    this.schema = answer?.schema ?? null;
    this.#isOpen = true;
    // What was written before the connection is merged into what is there.
    if (this.isLoaded) this.#send(this.yjs.encodeStateAsUpdate(this.doc));
  }

  /** Change it; all changes in `edit` become one update. @param {() => void} edit */
  edit(edit) {
    this.doc.transact(edit);
  }

  close() {
    this.#stops.forEach((stop) => stop());
    this.#stops = [];
    if (this.#isOpen) this.#client.request("room.disconnect", { path: this.path }).catch(() => {});
    this.doc.destroy();
  }

  /** @param {Uint8Array} update */
  #send(update) {
    if (!this.#isOpen) return;
    this.#client.request("room.sync", { path: this.path }, new TextEncoder().encode(toBase64(update))).catch(() => {});
  }
}
