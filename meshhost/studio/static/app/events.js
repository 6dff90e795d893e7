/**
 * A room as it is now: `GET /rooms/{room}/events`, a stream that begins with a whole snapshot and goes on with what changes, read
 * with `fetch` because the session needs a header that `EventSource` can't send.
 *
 * The stream is opened again when it ends or falls silent for longer than two of the server's pings. A page that is hidden
 * closes it, so that forgotten tabs cost the server nothing.
 */
import { useEffect, useSignal, useState } from "../ui/preact.js";
import { at, isFinal, refusal, send } from "./api.js";
import { epoch } from "./store.js";

const SILENCE_MS = 40_000;
const FIRST_RETRY_MS = 800;
const LAST_RETRY_MS = 10_000;

/**
 * @typedef {{id: string, name: string, role: string, joined_at?: number}} Participant
 * @typedef {{name: string, size: number, ready: number, leased: number, delayed: number, blocked: number, dead: number,
 *   oldest_age: number | null, oldest_at: number | null, paused: boolean}} Queue
 * @typedef {{at: number, url: string, outcome: string, status: number | null, error: string | null}} Attempt
 * @typedef {{url: string, path: string, identity: string, outcome: string | null, error: string | null, joined_at: number | null,
 *   is_present: boolean, next_call_at: number | null, total: number, attempts: Attempt[]}} Call
 * @typedef {{open: boolean, participants: Participant[], queues: Queue[], calls: Call[]}} Snapshot
 */

/**
 * Split a stream of text into events. A pure step, for tests: give it what has come and what was left.
 * @param {string} text
 * @returns {{events: {event: string, data: string}[], rest: string}}
 */
export function parseEvents(text) {
  const blocks = text.split(/\r?\n\r?\n/);
  const rest = blocks.pop() ?? "";
  const events = [];
  for (const block of blocks) {
    let event = "message";
    const data = [];
    for (const line of block.split(/\r?\n/)) {
      if (line.startsWith("event:")) event = line.slice(6).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
    }
    if (data.length) events.push({ event, data: data.join("\n") });
  }
  return { events, rest };
}

/**
 * Read snapshots until the stream ends or `signal` aborts. Raises ApiError, UnreachableError.
 * @param {string} path @param {AbortSignal} signal @param {(event: {event: string, data: string}) => void} onEvent
 */
async function readStream(path, signal, onEvent) {
  const control = new AbortController();
  const stop = () => control.abort();
  signal.addEventListener("abort", stop);
  let watchdog = setTimeout(stop, SILENCE_MS);
  try {
    const response = await send(path, { signal: control.signal });
    if (!response.ok || !response.body) throw await refusal(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(watchdog);
      watchdog = setTimeout(stop, SILENCE_MS);
      const parsed = parseEvents(rest + value);
      rest = parsed.rest;
      parsed.events.forEach(onEvent);
    }
  } finally {
    clearTimeout(watchdog);
    signal.removeEventListener("abort", stop);
  }
}

/**
 * @param {string} room
 * @returns {import("./live.js").Resource<Snapshot>}
 */
export function useRoom(room) {
  const [state, setState] = useState(/** @type {{data?: Snapshot, error: Error | null, isLoading: boolean}} */ (START));
  const [asked, setAsked] = useState(0);
  const current = useSignal(epoch);
  useEffect(() => setState(START), [room]);
  useEffect(() => {
    const control = new AbortController();
    void follow(`${at`/rooms/${room}/events`}?changes=1`, control.signal, setState);
    return () => control.abort();
  }, [room, current, asked]);
  return { data: state.data, error: state.error, isLoading: state.isLoading, refresh: () => setAsked((before) => before + 1) };
}

const START = { data: undefined, error: null, isLoading: true };

/** @param {string} path @param {AbortSignal} signal @param {(state: any) => void} setState */
async function follow(path, signal, setState) {
  let delay = FIRST_RETRY_MS;
  while (!signal.aborted) {
    await untilVisible(signal);
    const turn = new AbortController();
    const end = () => turn.abort();
    const onHide = () => document.hidden && end();
    signal.addEventListener("abort", end);
    document.addEventListener("visibilitychange", onHide);
    try {
      await readStream(path, turn.signal, ({ event, data }) => {
        delay = FIRST_RETRY_MS;
        if (event === "room") setState({ data: dated(JSON.parse(data)), error: null, isLoading: false });
        // One that comes when there is no snapshot belongs to the room that was shown before.
        else if (event === "change") setState((/** @type {any} */ before) => (before.data ? { ...before, data: changed(before.data, JSON.parse(data)) } : before));
      });
    } catch (error) {
      if (signal.aborted) return;
      if (/** @type {Error} */ (error).name !== "AbortError") setState((/** @type {any} */ before) => ({ ...before, error, isLoading: false }));
      // Asking again would be answered the same: the page shows why, with a button to try.
      if (isFinal(error)) return;
    } finally {
      signal.removeEventListener("abort", end);
      document.removeEventListener("visibilitychange", onHide);
    }
    await new Promise((resolve) => setTimeout(resolve, delay));
    delay = Math.min(delay * 1.7, LAST_RETRY_MS);
  }
}

/**
 * The snapshot with the time since when each queue's oldest message waits: a snapshot comes when something changed, and ages grow
 * all the time.
 * @param {any} snapshot
 * @returns {Snapshot}
 */
export function dated(snapshot) {
  return { ...snapshot, queues: snapshot.queues.map((/** @type {Queue} */ queue) => datedQueue(queue, snapshot.at)) };
}

/** @param {Queue} queue @param {number | undefined} at @returns {Queue} */
function datedQueue(queue, at = Date.now() / 1000) {
  return { ...queue, oldest_at: queue.oldest_age === null ? null : at - queue.oldest_age };
}

/**
 * The snapshot after a change. What stays is the same object, so that nothing of it has to be drawn again.
 * @param {Snapshot} snapshot
 * @param {{at?: number, open: boolean, joined: Participant[], left: string[], queues: Queue[], gone: string[], calls?: Call[]}} change
 * @returns {Snapshot}
 */
export function changed(snapshot, { at: time, open, joined, left, queues, gone, calls }) {
  let { participants } = snapshot;
  if (joined.length || left.length) {
    const without = new Set([...left, ...joined.map(({ id }) => id)]);
    participants = [...participants.filter(({ id }) => !without.has(id)), ...joined];
  }
  let listed = snapshot.queues;
  if (queues.length || gone.length) {
    const byName = new Map(listed.map((queue) => [queue.name, queue]));
    gone.forEach((name) => byName.delete(name));
    const isNew = queues.some(({ name }) => !byName.has(name));
    queues.forEach((queue) => byName.set(queue.name, datedQueue(queue, time)));
    listed = [...byName.values()];
    if (isNew) listed.sort((one, other) => (one.name < other.name ? -1 : 1));
  }
  return { open, participants, queues: listed, calls: calls ?? snapshot.calls };
}

/** @param {AbortSignal} signal */
function untilVisible(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      signal.removeEventListener("abort", look);
      resolve(undefined);
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look);
  });
}
