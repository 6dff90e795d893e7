// Runs hooks of the page without a browser: a component that shows nothing, in a place that can hold nothing.
import { html, render } from "../../meshhost/studio/static/ui/preact.js";
import { options } from "../../meshhost/studio/static/vendor/preact.js";

// Effects run after a frame is drawn; here none is, and a test may hold the timers.
options.requestAnimationFrame = (call) => setImmediate(call);

/** Let all that is due be done: effects, renderings, answers that are there. */
export const settled = async (turns = 20) => {
  for (let turn = 0; turn < turns; turn += 1) await new Promise((resolve) => setImmediate(resolve));
};

/**
 * Use a hook; returns what it gave last, and what changes its arguments or ends it.
 * @template T
 * @param {(...args: any[]) => T} hook @param {...any} first
 */
export async function shown(hook, ...first) {
  const place = { childNodes: [], firstChild: null, namespaceURI: "http://www.w3.org/1999/xhtml", nodeType: 1, contains: () => true };
  const held = { now: /** @type {any} */ (undefined), count: 0 };
  function Holder({ args }) {
    held.now = hook(...args);
    held.count += 1;
    return null;
  }
  const show = async (/** @type {any[]} */ args) => {
    render(html`<${Holder} args=${args} />`, /** @type {any} */ (place));
    await settled();
  };
  await show(first);
  return {
    get now() {
      return held.now;
    },
    with: (/** @type {any[]} */ ...args) => show(args),
    end: async () => {
      render(null, /** @type {any} */ (place));
      await settled();
    },
  };
}
