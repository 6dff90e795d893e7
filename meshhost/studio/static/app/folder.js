/**
 * A folder's entries as the room gives them: page by page, in the order of keys (the name, with a slash behind a folder's), and put
 * right by the events of what changes instead of being read again.
 *
 * `Loaded` is what is known: the entries up to where was read. A change behind that place is not shown before it is read; a change in
 * front of it is asked for by itself. A pure value with pure steps, for tests; `useFolder` asks the room.
 */
import { ConnectionLostError } from "../protocol/client.js";
import { useEffect, useRef, useState } from "../ui/preact.js";

/**
 * @typedef {{name: string, is_folder: boolean, updated_at: string | null, size: number | null}} Entry
 * @typedef {{entries: Entry[], next: string | null}} Loaded
 */

/** Entries of a page: small enough to be here soon, and more than most folders have. */
export const PAGE = 1000;
/** Changes after which the folder is read again, every so often, instead of asking for each. */
const MOST_ASKED = 20;
const REREAD_MS = 2000;

/** @param {Entry} entry */
export const keyOf = (entry) => (entry.is_folder ? `${entry.name}/` : entry.name);

/**
 * Whether one key comes before another, as the server counts: by code points, where JavaScript compares units of UTF-16.
 * @param {string} one @param {string} other
 */
export function isBefore(one, other) {
  const length = Math.min(one.length, other.length);
  for (let index = 0; index < length; index += 1) {
    const [a, b] = [one.charCodeAt(index), other.charCodeAt(index)];
    if (a === b) continue;
    // A half of a pair stands for a character behind all that have one unit.
    const [isHalf, isOtherHalf] = [a >= 0xd800 && a < 0xe000, b >= 0xd800 && b < 0xe000];
    return isHalf === isOtherHalf ? a < b : isOtherHalf;
  }
  return one.length < other.length;
}

/** Where a key is in entries in order, or would be. @param {Entry[]} entries @param {string} key */
function placeOf(entries, key) {
  let [first, end] = [0, entries.length];
  while (first < end) {
    const middle = (first + end) >> 1;
    if (isBefore(keyOf(entries[middle]), key)) first = middle + 1;
    else end = middle;
  }
  return first;
}

/**
 * What is loaded, with what is at some names now: null where nothing is.
 * @param {Loaded} loaded @param {Map<string, Entry | null>} now @returns {Loaded}
 */
export function patched(loaded, now) {
  const entries = [...loaded.entries];
  for (const [name, entry] of now) {
    for (const key of [name, `${name}/`]) {
      const place = placeOf(entries, key);
      const isThere = place < entries.length && keyOf(entries[place]) === key;
      if (entry && keyOf(entry) === key) {
        if (isThere) entries[place] = entry;
        // Behind what was read it comes with its page.
        else if (loaded.next === null || isBefore(key, loaded.next)) entries.splice(place, 0, entry);
      } else if (isThere) {
        entries.splice(place, 1);
      }
    }
  }
  return { ...loaded, entries };
}

/** What is loaded, with the page behind it. @param {Loaded} loaded @param {{files: Entry[], next?: string | null}} page @returns {Loaded} */
export function extended(loaded, page) {
  return { entries: [...loaded.entries, ...page.files], next: page.next ?? null };
}

/**
 * The entries of a folder whose names begin with `prefix`.
 * @param {ReturnType<typeof import("./room-client.js").useRoomClient>} connection @param {string} path @param {string} prefix
 */
export function useFolder(connection, path, prefix) {
  const key = `${path}\n${prefix}`;
  const [state, setState] = useState(/** @type {{key: string, loaded: Loaded | undefined, error: Error | null}} */ ({ key, loaded: undefined, error: null }));
  const [asked, setAsked] = useState(0);
  const reading = useRef(/** @type {object | null} */ (null));
  const late = useRef(/** @type {string[]} */ ([]));
  const { client } = connection;
  const mine = state.key === key ? state : { key, loaded: undefined, error: null };
  const latest = useRef(mine);
  latest.current = mine;
  /** Ask for a page; what came before it is still shown when it can't be had. @param {Loaded | null} before */
  const read = async (before) => {
    const turn = {};
    reading.current = turn;
    const isCurrent = () => reading.current === turn;
    try {
      let page = { files: [], next: before?.next ?? null };
      do {
        page = await /** @type {any} */ (client).request("storage.list", { path, prefix, limit: PAGE, after: page.next ?? "" });
        if (!isCurrent()) return;
      } while (!page.files.length && page.next); // all of it was deleted meanwhile
      const base = before ? (latest.current.loaded ?? before) : { entries: [], next: null };
      latest.current = { key, loaded: extended(base, page), error: null };
      setState(latest.current);
    } catch (error) {
      // It is asked again when the connection is back.
      if (isCurrent() && !(error instanceof ConnectionLostError)) setState({ key, loaded: latest.current.loaded, error: /** @type {Error} */ (error) });
    }
    if (!isCurrent()) return;
    reading.current = null;
    // The page may be older than a change that came before it.
    const paths = late.current;
    late.current = [];
    if (paths.length) await changed(paths);
  };
  useEffect(() => {
    if (connection.state === "ended") setState({ key, loaded: undefined, error: connection.error });
    if (connection.state === "ready") void read(null);
    return () => {
      reading.current = null;
      late.current = [];
    };
  }, [client, connection.state, key, asked]);
  const refresh = () => setAsked((before) => before + 1);
  const timer = useRef(/** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined));
  useEffect(
    () => () => {
      clearTimeout(timer.current);
      timer.current = undefined;
    },
    [key],
  );
  const reread = () => {
    timer.current ??= setTimeout(() => {
      timer.current = undefined;
      refresh();
    }, REREAD_MS);
  };
  /** What is at these names now. @param {string[]} names @returns {Promise<Map<string, Entry | null>>} */
  const at = async (names) => {
    const found = await Promise.all(names.map((name) => /** @type {any} */ (client).request("storage.stat", { path: path ? `${path}/${name}` : name })));
    return new Map(names.map((name, index) => [name, found[index].exists ? found[index] : null]));
  };
  /** Look again at what is at these paths, or below. @param {string[]} paths */
  const changed = async (paths) => {
    if (reading.current) late.current.push(...paths);
    const names = [...new Set(paths.map((each) => (path ? each.slice(path.length + 1) : each).split("/")[0]))].filter((name) => name.startsWith(prefix));
    if (!latest.current.loaded) return;
    if (names.length > MOST_ASKED || names.includes("")) {
      reread();
      return;
    }
    try {
      const now = await at(names);
      const { loaded } = latest.current;
      if (latest.current.key !== key || !loaded) return;
      latest.current = { key, loaded: patched(loaded, now), error: null };
      setState(latest.current);
    } catch {
      reread();
    }
  };
  return {
    data: mine.loaded,
    error: mine.error,
    isLoading: mine.loaded === undefined,
    refresh,
    /** Load the next page, if there is one. */
    load() {
      if (mine.loaded?.next && !reading.current && connection.state === "ready") void read(mine.loaded);
    },
    /** Which of these names are there already. @param {string[]} names @returns {Promise<Set<string>>} */
    async taken(names) {
      const loaded = new Set((mine.loaded?.entries ?? []).map(({ name }) => name));
      const unknown = mine.loaded?.next === null && !prefix ? [] : names.filter((name) => !loaded.has(name));
      // What can't be asked is refused when it is stored.
      const found = await at(unknown).catch(() => new Map());
      return new Set(names.filter((name) => loaded.has(name) || found.get(name)));
    },
    changed,
  };
}
