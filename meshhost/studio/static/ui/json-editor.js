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
  } catch {
    const { offset, expected } = placeOfFault(text);
    const before = text.slice(0, offset).split("\n");
    return { fault: `Line ${before.length}, column ${before[before.length - 1].length + 1}: expected ${expected}.` };
  }
}

/** @typedef {{offset: number, expected: string}} Place */

const TOKENS = /\s*(?:("(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")|(-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)|(true|false|null)|([{}[\],:]))/y;

/**
 * Where a text stops being JSON, and what should stand there. Browsers say it in their own words, and some without the place.
 * @param {string} text
 * @returns {Place}
 */
function placeOfFault(text) {
  let offset = 0;
  /** @type {string[]} */
  const open = [];
  // What may come next: a value, the name of a member, a colon, or what ends a value.
  let wanted = "value";
  for (;;) {
    TOKENS.lastIndex = offset;
    const found = TOKENS.exec(text);
    const start = offset + (/^\s*/.exec(text.slice(offset))?.[0].length ?? 0);
    if (!found) return { offset: start, expected: names(wanted, open) };
    const mark = found[4];
    if (wanted === "value" || wanted === "value or ]") {
      if (mark === "{") {
        open.push("}");
        wanted = "name or }";
      } else if (mark === "[") {
        open.push("]");
        wanted = "value or ]";
      } else if (mark === "]" && wanted === "value or ]") {
        open.pop();
        wanted = "end";
      } else if (mark) return { offset: start, expected: names(wanted, open) };
      else wanted = "end";
    } else if (wanted.startsWith("name")) {
      if (mark === "}" && wanted === "name or }") {
        open.pop();
        wanted = "end";
      } else if (found[1] === undefined) return { offset: start, expected: names(wanted, open) };
      else wanted = "colon";
    } else if (wanted === "colon") {
      if (mark !== ":") return { offset: start, expected: names(wanted, open) };
      wanted = "value";
    } else if (mark === "," && open.length) wanted = open.at(-1) === "}" ? "name" : "value";
    else if (mark && mark === open.at(-1)) open.pop();
    else return { offset: start, expected: names(wanted, open) };
    offset = TOKENS.lastIndex;
  }
}

/** @param {string} wanted @param {string[]} open */
function names(wanted, open) {
  const closing = open.at(-1);
  /** @type {Record<string, string>} */
  const said = {
    value: "a value",
    "value or ]": "a value or ]",
    name: "a name in double quotes",
    "name or }": "a name in double quotes, or }",
    colon: "a colon",
    end: closing ? `a comma or ${closing}` : "the end",
  };
  return said[wanted];
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
