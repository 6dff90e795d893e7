/**
 * The view library as Studio uses it: Preact with htm, and hooks that read signals.
 *
 * Every other module takes `html` and hooks from here, so that the vendored libraries are named in one place. Text in `html`
 * templates is text: Preact sets it by `textContent`, and no module uses `dangerouslySetInnerHTML` but `markdown.js`.
 */
import { h } from "../vendor/preact.js";
import { useEffect, useState } from "../vendor/preact-hooks.js";
import htm from "../vendor/htm.js";

export const html = htm.bind(h);

export { Component, render } from "../vendor/preact.js";
export { useCallback, useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "../vendor/preact-hooks.js";
export { signal } from "../vendor/signals.js";

/**
 * The value of a signal; the component renders again when it changes.
 * @template T
 * @param {{readonly value: T, peek(): T, subscribe(listener: (value: T) => void): () => void}} source
 * @returns {T}
 */
export function useSignal(source) {
  const [value, setValue] = useState(() => source.peek());
  // A function as value would be called by the setter.
  useEffect(() => source.subscribe((next) => setValue(() => next)), [source]);
  return value;
}
