/**
 * Keeping what is shown true: reading again, and saying when the server is gone.
 *
 * `useResource` reads something, again every so often while the page is visible, and keeps the last good answer when a
 * reading fails. `useSettled` is for what one types. When no answer comes at all, `outage` is set, the shell shows a bar, and one loop asks `/livez` with a growing
 * delay until the server is back; then `epoch` grows and everything that is mounted reads again.
 */
import { useCallback, useEffect, useRef, useSignal, useState } from "../ui/preact.js";
import { onLoss } from "./api.js";
import { epoch, outage } from "./store.js";

const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 10_000;
const ANSWER_MS = 10_000;

let looking = false;

onLoss.lost = () => {
  if (!looking) void lookForServer();
};

async function lookForServer() {
  looking = true;
  const since = Date.now();
  let delay = FIRST_RETRY_MS;
  for (;;) {
    outage.value = { since, retryAt: Date.now() + delay };
    await new Promise((resolve) => setTimeout(resolve, delay));
    if (await answers()) break;
    delay = Math.min(delay * 1.6, LAST_RETRY_MS);
  }
  looking = false;
  outage.value = null;
  epoch.value += 1;
}

async function answers() {
  try {
    return (await fetch("/livez", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) })).ok;
  } catch {
    return false;
  }
}

/**
 * @template T
 * @typedef {{data: T | undefined, error: Error | null, isLoading: boolean, refresh: () => void}} Resource
 */

/**
 * Read something now, whenever `inputs` change, and every `every` milliseconds while somebody looks.
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @param {unknown[]} inputs what the reading depends on
 * @param {{every?: number}} [options] without `every` no reading follows the present one, until `refresh`
 * @returns {Resource<T>}
 */
export function useResource(load, inputs, { every } = {}) {
  const key = JSON.stringify(inputs);
  const [state, setState] = useState(/** @type {{key: string, data: T | undefined, error: Error | null, isLoading: boolean}} */ ({ ...START, key }));
  const [asked, setAsked] = useState(0);
  const current = useSignal(epoch);
  const pause = useRef(every);
  pause.current = every;
  useEffect(() => {
    const control = new AbortController();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const read = async () => {
      try {
        const data = await load(control.signal);
        if (!control.signal.aborted) setState({ key, data, error: null, isLoading: false });
      } catch (error) {
        if (control.signal.aborted) return;
        setState((before) => ({ ...(before.key === key ? before : START), key, error: /** @type {Error} */ (error), isLoading: false }));
      }
      if (pause.current && !control.signal.aborted) timer = setTimeout(onTimer, pause.current);
    };
    const onTimer = () => {
      if (!pause.current) return;
      if (document.hidden) document.addEventListener("visibilitychange", onTimer, { once: true, signal: control.signal });
      else void read();
    };
    void read();
    return () => {
      control.abort();
      clearTimeout(timer);
    };
  }, [key, current, asked]);
  const refresh = useCallback(() => setAsked((before) => before + 1), []);
  // Other inputs are another thing: its predecessor must not be shown as if it were it.
  const { data, error, isLoading } = state.key === key ? state : START;
  return { data, error, isLoading, refresh };
}

const START = { data: undefined, error: null, isLoading: true };

/**
 * A text once it has stayed the same for a while, for what need not be asked at each key that is pressed.
 * @param {string} text @param {number} pause milliseconds
 */
export function useSettled(text, pause) {
  const [settled, setSettled] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(text), pause);
    return () => clearTimeout(timer);
  }, [text, pause]);
  return settled;
}
