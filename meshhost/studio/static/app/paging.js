/**
 * A long list that the server gives page by page, in an order of its own.
 *
 * The first page is read again every few seconds while it is the only one, so that what comes is seen. From the second page on
 * nothing that was read changes, as rows must not jump; `newest` goes back. Another path or filter is another list: a page of the
 * one before that is still under way is dropped.
 */
import { useRef, useState } from "../ui/preact.js";
import { get, query } from "./api.js";
import { useResource } from "./live.js";

/** @typedef {Parameters<typeof query>[0]} Members */

/**
 * @template T
 * @param {string} path @param {Members} filter @param {{member: string, limit: number, every: number, cursor?: string}} options
 * `member`: what the rows are called in an answer; `cursor`: the name of the parameter that takes the `next` of an answer
 */
export function usePages(path, filter, { member, limit, every, cursor = "before" }) {
  const key = path + query(filter);
  const [kept, setMore] = useState(/** @type {{key: string, rows: T[], next: string | null, error: Error | null} | null} */ (null));
  const more = kept?.key === key ? kept : null;
  const page = (/** @type {string | null} */ from, /** @type {AbortSignal | undefined} */ signal) => get(path + query({ ...filter, limit, [cursor]: from }), signal);
  const first = useResource((signal) => page(null, signal), [key], { every: more ? undefined : every });
  const rows = /** @type {T[]} */ (more?.rows ?? first.data?.[member] ?? []);
  const next = /** @type {string | null} */ (more ? more.next : (first.data?.next ?? null));
  const loading = useRef(/** @type {string | null} */ (null));
  return {
    rows,
    next,
    error: more?.error ?? null,
    isFirst: more === null,
    first,
    /** Load the next page, if there is one. */
    async load() {
      const mine = `${key} ${next}`;
      if (!next || loading.current === mine) return;
      loading.current = mine;
      /** @type {{rows: T[], next: string | null, error: Error | null}} */
      let found;
      try {
        const answer = await page(next, undefined);
        found = { rows: [...rows, ...answer[member]], next: answer.next, error: null };
      } catch (error) {
        found = { rows, next, error: /** @type {Error} */ (error) };
      }
      if (loading.current !== mine) return;
      loading.current = null;
      setMore({ key, ...found });
    },
    /** Forget all but the first page, and read it anew. */
    newest() {
      loading.current = null;
      setMore(null);
      first.refresh();
    },
  };
}
