/**
 * Storing a file in a room over its protocol: open, write in pieces, close. The file appears as a whole at the end.
 *
 * Two pieces are on their way at a time, so that the connection is never idle and its memory stays small. What was begun dies with
 * its connection: the server drops its pieces.
 */

const PIECE_BYTES = 512 * 1024;
const AT_ONCE = 2;

/**
 * Raises RoomError, ConnectionLostError.
 * @param {import("../protocol/client.js").RoomClient} client @param {string} path @param {File} file
 * @param {{overwrite?: boolean, isStopped?: () => boolean, onStored?: (bytes: number) => void}} [options]
 * `isStopped` is asked before each piece; `onStored` is told what the room confirmed
 */
export async function storeFile(client, path, file, { overwrite = false, isStopped = () => false, onStored = () => {} } = {}) {
  const { handle } = await client.request("storage.open", { path, overwrite });
  /** @type {Promise<void>[]} */
  const underWay = [];
  let offset = 0;
  while (offset < file.size && !isStopped()) {
    const piece = new Uint8Array(await file.slice(offset, offset + PIECE_BYTES).arrayBuffer());
    offset += piece.length;
    const confirmed = client.request("storage.write", { handle }, piece).then(() => onStored(piece.length));
    confirmed.catch(() => {}); // awaited below, perhaps only after another one failed
    underWay.push(confirmed);
    if (underWay.length >= AT_ONCE) await underWay.shift();
  }
  await Promise.all(underWay);
  if (!isStopped()) await client.request("storage.close", { handle });
}
