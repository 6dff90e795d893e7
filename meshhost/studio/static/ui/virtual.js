/**
 * A list that renders only the rows in view, of which there may be a million.
 *
 * All rows have one height. The list is its own scrolling region; `onEnd` is called when the last loaded row comes near, so that
 * more can be loaded. Arrow keys, Home and End move between rows' links.
 */
import { html, useEffect, useLayoutEffect, useRef, useState } from "./preact.js";

const BEYOND = 8;
const NEAR_ROWS = 30;

/**
 * @template T
 * @param {{label: string, rows: T[], rowKey: (row: T) => string, row: (row: T, index: number) => any, rowHeight?: number,
 *   onEnd?: () => void, total?: number | null, fill?: boolean}} props `total`: how many there are, where that is known
 */
export function VirtualList({ label, rows, rowKey, row, rowHeight = 44, onEnd, total }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
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
  const first = Math.max(0, Math.floor(view.top / rowHeight) - BEYOND);
  const last = Math.min(rows.length, Math.ceil((view.top + view.height) / rowHeight) + BEYOND);
  const isNearEnd = last + NEAR_ROWS >= rows.length;
  useEffect(() => {
    if (isNearEnd) onEnd?.();
  }, [isNearEnd, rows.length]);
  const space = useRef(/** @type {HTMLElement | null} */ (null));
  useLayoutEffect(() => {
    // Set from here and not as attributes: the page's policy forbids inline styles in markup, and one place is enough.
    if (!space.current) return;
    space.current.style.paddingTop = `${first * rowHeight}px`;
    space.current.style.paddingBottom = `${(rows.length - last) * rowHeight}px`;
  });
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
