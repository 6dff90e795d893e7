/** A text field for JSON, which says where it is wrong while one types, and can set it in order. */
import { Field } from "./field.js";
import { html } from "./preact.js";

/**
 * The value of a JSON text, or why it is none with the place.
 * @param {string} text
 * @returns {{value: unknown} | {fault: string}}
 */
export function parseJson(text) {
  try {
    return { value: JSON.parse(text) };
  } catch (error) {
    return { fault: explained(/** @type {Error} */ (error).message, text) };
  }
}

/** @param {string} message @param {string} text */
function explained(message, text) {
  const found = /position (\d+)/.exec(message);
  const offset = found ? Number(found[1]) : text.length;
  const before = text.slice(0, offset).split("\n");
  const reason = message.replace(/ in JSON at position.*$/, "").replace(/ \(line \d+ column \d+\)$/, "").replace(/^JSON\.parse: /, "");
  return `Line ${before.length}, column ${before[before.length - 1].length + 1}: ${reason}`;
}

/**
 * @param {{label: string, value: string, onInput: (text: string) => void, fault?: string | null, hint?: string, rows?: number}} props
 */
export function JsonEditor({ label, value, onInput, fault, hint, rows = 9 }) {
  const parsed = value.trim() ? parseJson(value) : null;
  const problem = fault ?? (parsed && "fault" in parsed ? parsed.fault : null);
  const format = () => {
    if (parsed && "value" in parsed) onInput(JSON.stringify(parsed.value, null, 2));
  };
  return html`<div class="json-editor">
    <${Field} label=${label} fault=${problem} hint=${hint}>
      ${(/** @type {object} */ attributes) => html`<textarea class="code-area" ...${attributes} rows=${rows} spellcheck=${false}
        value=${value} onInput=${(/** @type {any} */ event) => onInput(event.target.value)}></textarea>`}
    </${Field}>
    <button class="button quiet" type="button" disabled=${!parsed || "fault" in parsed} onClick=${format}>Set in order</button>
  </div>`;
}
