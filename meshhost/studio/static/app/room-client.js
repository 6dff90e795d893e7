/**
 * The page's own connection to a room, with a token that the session was given for it.
 *
 * All components of a page share one connection for each room: the first that needs it opens it, and it is closed a while after the
 * last one left, so that going from Files to Talk does not leave and join. Tokens are asked for at each dial; a session that may not
 * have one (a viewer's) ends the connection with the server's words.
 */
import { ConnectionLostError, RoomClient } from "../protocol/client.js";
import { useEffect, useState } from "../ui/preact.js";
import { at, isFinal, post, query } from "./api.js";

const LINGER_MS = 5000;

/** @type {Map<string, {client: RoomClient, users: number, timer?: ReturnType<typeof setTimeout>}>} */
const open = new Map();

/** @param {string} room @param {string} resume */
async function dial(room, resume) {
  const { jwt } = await post(at`/studio/api/rooms/${room}/token`, {});
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return new WebSocket(`${scheme}://${location.host}${at`/rooms/${room}`}${query({ token: jwt, resume })}`);
}

/** Take part in the use of a room's connection; returns it, and what ends the use. @param {string} room */
export function borrow(room) {
  let entry = open.get(room);
  if (!entry) {
    entry = { client: new RoomClient({ dial: (resume) => dial(room, resume), isFinal }), users: 0 };
    open.set(room, entry);
    entry.client.start();
  }
  const mine = entry;
  clearTimeout(mine.timer);
  mine.users += 1;
  const giveBack = () => {
    mine.users -= 1;
    if (mine.users > 0) return;
    mine.timer = setTimeout(() => {
      open.delete(room);
      mine.client.close();
    }, mine.client.state === "ended" ? 0 : LINGER_MS);
  };
  return { client: mine.client, giveBack };
}

/**
 * The room's connection and its state; the component renders again when that changes.
 * @param {string} room
 * @returns {{client: RoomClient | null, state: import("../protocol/client.js").State, error: Error | null}}
 */
export function useRoomClient(room) {
  const [held, setHeld] = useState(/** @type {{client: RoomClient | null, state: any, error: Error | null}} */ ({ client: null, state: "connecting", error: null }));
  useEffect(() => {
    const { client, giveBack } = borrow(room);
    const stop = client.watch((state, error) => setHeld({ client, state, error }));
    return () => {
      stop();
      giveBack();
    };
  }, [room]);
  return held;
}

/**
 * Ask the room for something now, whenever `inputs` change, and after each reconnection.
 * @template T
 * @param {ReturnType<typeof useRoomClient>} room
 * @param {(client: RoomClient) => Promise<T>} load
 * @param {unknown[]} inputs
 * @returns {import("./live.js").Resource<T>}
 */
export function useRoomResource(room, load, inputs) {
  const [state, setState] = useState(/** @type {{data: T | undefined, error: Error | null, isLoading: boolean, key: string}} */ ({ data: undefined, error: null, isLoading: true, key: "" }));
  const [asked, setAsked] = useState(0);
  const key = JSON.stringify(inputs);
  useEffect(() => {
    const { client } = room;
    if (room.state === "ended") setState({ data: undefined, error: room.error, isLoading: false, key });
    if (room.state !== "ready" || !client) return undefined;
    let isHere = true;
    load(client).then(
      (data) => isHere && setState({ data, error: null, isLoading: false, key }),
      (error) => {
        // It is asked again when the connection is back.
        if (isHere && !(error instanceof ConnectionLostError)) setState((before) => ({ ...before, error, isLoading: false, key }));
      },
    );
    return () => {
      isHere = false;
    };
  }, [room.client, room.state, key, asked]);
  const isSame = state.key === key;
  return {
    data: isSame ? state.data : undefined,
    error: isSame ? state.error : null,
    isLoading: !isSame || state.isLoading,
    refresh: () => setAsked((before) => before + 1),
  };
}
