/**
 * Storing a file in a room over its protocol: open, write in pieces, close. The file appears as a whole at the end.
 *
 * Two pieces are on their way at a time, so that the connection is never idle and its memory stays small. What was begun outlives
 * a lost connection for a while: each piece says where it belongs, so after a cut it goes on with the first one that was not
 * confirmed. It begins again only when the server has forgotten it, because we were away for too long or it was started anew. A
 * file that is given up is aborted, so that it holds no place at the server.
 */
import { ConnectionLostError } from "../protocol/client.js";
import { RoomError } from "../protocol/messages.js";

const PIECE_BYTES = 512 * 1024;
const AT_ONCE = 2;
/** Cuts, or returns to a server that has forgotten the file, without a byte more in between. */
const MOST_VAIN = 5;
const NOT_FOUND = 1003;

/** @typedef {import("../protocol/client.js").RoomClient} RoomClient */
/** @typedef {{path: string, file: File, overwrite: boolean, signal: AbortSignal, onProgress: (bytes: number) => void}} Task */

/**
 * Raises RoomError, ConnectionLostError when it is in vain, and the signal's reason.
 * @param {() => RoomClient | null} clientOf the connection to the room, as it is now
 * @param {string} path @param {File} file
 * @param {{overwrite?: boolean, signal?: AbortSignal, onProgress?: (bytes: number) => void, onCut?: () => void}} [options]
 * `onProgress` is told how much the room confirmed, `onCut` that it waits for the connection
 */
export async function storeFile(clientOf, path, file, { overwrite = false, signal = new AbortController().signal, onProgress = () => {}, onCut = () => {} } = {}) {
  const task = { path, file, overwrite, signal, onProgress };
  const one = { handle: "", confirmed: 0 };
  let most = 0;
  try {
    for (let vain = 0; ; ) {
      const client = await ready(clientOf(), signal);
      try {
        return await runOnce(client, one, task);
      } catch (error) {
        signal.throwIfAborted();
        vain = one.confirmed > most ? 1 : vain + 1;
        most = Math.max(most, one.confirmed);
        if (vain > MOST_VAIN || !mayGoOn(error, one)) throw error;
        if (error instanceof RoomError) Object.assign(one, { handle: "", confirmed: 0 });
        else onCut();
      }
    }
  } catch (error) {
    giveUp(clientOf(), one);
    throw error;
  }
}

/** @param {unknown} error @param {{handle: string}} one */
function mayGoOn(error, one) {
  return error instanceof ConnectionLostError || (error instanceof RoomError && error.code === NOT_FOUND && one.handle !== "");
}

/** As far as this connection carries it. @param {RoomClient} client @param {{handle: string, confirmed: number}} one @param {Task} task */
async function runOnce(client, one, { path, file, overwrite, signal, onProgress }) {
  if (!one.handle) one.handle = (await client.request("storage.open", { path, overwrite })).handle;
  onProgress(one.confirmed);
  /** @type {Promise<void>[]} */
  const underWay = [];
  let offset = one.confirmed;
  while (offset < file.size) {
    signal.throwIfAborted();
    const piece = new Uint8Array(await file.slice(offset, offset + PIECE_BYTES).arrayBuffer());
    const end = offset + piece.length;
    const confirmed = client.request("storage.write", { handle: one.handle, offset }, piece).then(() => {
      one.confirmed = end; // they are confirmed in their order
      onProgress(end);
    });
    confirmed.catch(() => {}); // awaited below, perhaps only after another one failed
    offset = end;
    underWay.push(confirmed);
    if (underWay.length >= AT_ONCE) await underWay.shift();
  }
  await Promise.all(underWay);
  signal.throwIfAborted();
  await client.request("storage.close", { handle: one.handle });
  one.handle = "";
}

/** Nobody waits for it: what is left of it ends with our stay. @param {RoomClient | null} client @param {{handle: string}} one */
function giveUp(client, { handle }) {
  if (handle) client?.request("storage.abort", { handle }).catch(() => {});
}

/** The client, once it is connected. Raises what ended it, and the signal's reason. @param {RoomClient | null} client @param {AbortSignal} signal @returns {Promise<RoomClient>} */
function ready(client, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted || !client) return reject(signal.reason ?? new ConnectionLostError());
    const over = new AbortController();
    signal.addEventListener("abort", () => end(() => reject(signal.reason)), { signal: over.signal });
    /** @type {() => void} */
    let stop = () => {};
    const end = (/** @type {() => void} */ settle) => {
      over.abort();
      stop();
      settle();
    };
    stop = client.watch((state, error) => {
      if (state === "ready") end(() => resolve(client));
      if (state === "ended") end(() => reject(error ?? new ConnectionLostError()));
    });
    if (over.signal.aborted) stop();
    return undefined;
  });
}
