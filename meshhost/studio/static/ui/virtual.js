/**
 * Lists that render only the rows in view, of which there may be a million.
 *
 * A list is its own scrolling region; `onEnd` is called when the last loaded row comes near, so that more can be loaded. `useRowsInView`
 * says which rows to render, from the height of one: the rows of `VirtualList` all have the one that it is told, those of a table
 * (`table.js`) the one that those in view have on average, so that cards on a narrow screen work, too. Arrow keys, Home and End move
 * between rows' links.
 */
import { html, useEffect, useLayoutEffect, useRef, useState } from "./preact.js";

const BEYOND = 8;
const NEAR_ROWS = 30;

/**
 * The rows from `first` to before `last` that are to be rendered. `box` belongs to the scrolling element and `space` to the only one in
 * it, which holds the rows.
 * @param {number} count @param {number} rowHeight @param {(() => void) | undefined} onEnd
 */
export function useRowsInView(count, rowHeight, onEnd) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const space = useRef(/** @type {HTMLElement | null} */ (null));
  const [view, setView] = useState({ top: 0, height: 600 });
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const measure = () => setView({ top: element.scrollTop, height: element.clientHeight || 600 });
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener("scroll", measure, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", measure);
    };
  }, []);
  const { first, last } = rowsInView(count, rowHeight, view);
  const isNearEnd = last + NEAR_ROWS >= count;
  useEffect(() => {
    if (isNearEnd) onEnd?.();
  }, [isNearEnd, count]);
  useLayoutEffect(() => {
    // Set from here and not as attributes: the page's policy forbids inline styles in markup, and one place is enough.
    if (!space.current) return;
    space.current.style.paddingTop = `${first * rowHeight}px`;
    space.current.style.paddingBottom = `${(count - last) * rowHeight}px`;
  });
  return { box, space, first, last };
}

/**
 * Which rows are in view, or close to it. When a list got shorter than where one had scrolled to, its end is shown.
 * @param {number} count @param {number} rowHeight @param {{top: number, height: number}} view
 */
export function rowsInView(count, rowHeight, { top, height }) {
  const last = Math.min(count, Math.ceil((top + height) / rowHeight) + BEYOND);
  const shown = Math.ceil(height / rowHeight) + 2 * BEYOND;
  return { first: Math.max(0, Math.min(Math.floor(top / rowHeight) - BEYOND, last - shown)), last };
}

/**
 * @template T
 * @param {{label: string, rows: T[], rowKey: (row: T) => string, row: (row: T, index: number) => any, rowHeight?: number,
 *   onEnd?: () => void, total?: number | null, fill?: boolean}} props `total`: how many there are, where that is known
 */
export function VirtualList({ label, rows, rowKey, row, rowHeight = 44, onEnd, total }) {
  const { box, space, first, last } = useRowsInView(rows.length, rowHeight, onEnd);
  /** @param {KeyboardEvent} event */
  const onKeyDown = (event) => {
    const element = box.current;
    const active = document.activeElement?.closest("li");
    if (!element || !active || !element.contains(active)) return;
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (event.key === "Home") element.scrollTop = 0;
    else if (event.key === "End") element.scrollTop = element.scrollHeight;
    else if (step) /** @type {any} */ (active)[step]?.querySelector("a, button")?.focus();
    else return;
    event.preventDefault();
  };
  return html`<div class="virtual" ref=${box} onKeyDown=${onKeyDown}>
    <ul ref=${space} aria-label=${label}>
      ${rows.slice(first, last).map((each, offset) => {
        const index = first + offset;
        return html`<li key=${rowKey(each)} aria-posinset=${index + 1} aria-setsize=${total ?? -1}>${row(each, index)}</li>`;
      })}
    </ul>
  </div>`;
}
