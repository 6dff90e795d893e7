/** Short notices in the corner: what was done, or why it was not. Screen readers read them; errors stay until dismissed. */
import { Icon } from "./icons.js";
import { html, signal, useEffect, useRef, useSignal } from "./preact.js";

const SHOWN_MS = 6000;

/** @type {import("../vendor/signals.js").Signal<{id: number, text: string, tone: "ok" | "bad"}[]>} */
const notices = signal(/** @type {{id: number, text: string, tone: "ok" | "bad"}[]} */ ([]));
let last = 0;

/** @param {string} text @param {"ok" | "bad"} [tone] */
export function notify(text, tone = "ok") {
  last += 1;
  const id = last;
  notices.value = [...notices.peek().slice(-3), { id, text, tone }];
  if (tone === "ok") setTimeout(() => dismiss(id), SHOWN_MS);
}

/** @param {number} id */
function dismiss(id) {
  notices.value = notices.peek().filter((notice) => notice.id !== id);
}

/**
 * Do something and say how it went. Returns what it returned, or undefined when it failed.
 * @template T
 * @param {() => Promise<T>} action
 * @param {string | ((value: T) => string)} [done] what to say when it worked
 * @returns {Promise<T | undefined>}
 */
export async function attempt(action, done) {
  try {
    const value = await action();
    if (done) notify(typeof done === "function" ? done(value) : done);
    return value;
  } catch (error) {
    notify(/** @type {Error} */ (error).message, "bad");
    return undefined;
  }
}

export function Toasts() {
  const shown = useSignal(notices);
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    // A popover stands above dialogs, but only above those that were opened before it.
    if (box.current?.matches(":popover-open")) box.current.hidePopover();
    if (shown.length) box.current?.showPopover();
  }, [shown]);
  return html`<div class="toasts" ref=${box} popover="manual" role="status" aria-live="polite">
    ${shown.map(
      ({ id, text, tone }) => html`<div class="toast" key=${id} data-tone=${tone}>
        <p>${text}</p>
        <button class="button quiet icon-only" aria-label="Dismiss" onClick=${() => dismiss(id)}><${Icon} name="close" /></button>
      </div>`,
    )}
  </div>`;
}
