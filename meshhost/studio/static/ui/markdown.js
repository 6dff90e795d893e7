/**
 * Markdown as nodes. The one place where text of others becomes elements: marked makes HTML of it, DOMPurify lets through what is
 * harmless and gives nodes, which are put in place without a parser in between. Images are left out, as addresses of others would
 * be told who reads; links open in a new tab and tell nobody where from. Both libraries are loaded with the first text.
 */
import { html, useEffect, useRef, useState } from "./preact.js";

const ALLOWED = ["a", "abbr", "b", "blockquote", "br", "code", "del", "dd", "dl", "dt", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "kbd", "li", "ol", "p", "pre", "s", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul"];

/** @type {Promise<(text: string) => DocumentFragment> | null} */
let loading = null;

async function load() {
  const [{ Marked }, { default: purify }] = await Promise.all([import("../vendor/marked.js"), import("../vendor/purify.js")]);
  // HTML inside Markdown is shown as what it is, text: DOMPurify would take it away, and with it what somebody wrote.
  const marked = new Marked({ gfm: true, breaks: false, renderer: { html: (/** @type {{text: string}} */ { text }) => escaped(text) } });
  purify.addHook("afterSanitizeAttributes", (node) => {
    if (node.nodeName !== "A") return;
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer");
  });
  return (/** @type {string} */ text) =>
    purify.sanitize(marked.parse(text, { async: false }), {
      RETURN_DOM_FRAGMENT: true,
      ALLOWED_TAGS: ALLOWED,
      ALLOWED_ATTR: ["href", "title", "align", "start"],
      // These are no addresses, which the next line would ask of them.
      ADD_URI_SAFE_ATTR: ["align", "start"],
      ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
    });
}

/** @param {string} text */
const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");

/** @param {{text: string}} props */
export function Markdown({ text }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const [made, setMade] = useState(/** @type {{convert: (text: string) => DocumentFragment} | null} */ (null));
  useEffect(() => {
    loading ??= load();
    let isHere = true;
    loading.then((convert) => isHere && setMade({ convert }), console.error);
    return () => {
      isHere = false;
    };
  }, []);
  useEffect(() => {
    if (made && place.current) place.current.replaceChildren(made.convert(text));
  }, [made, text]);
  // Until the libraries are there the text stands as it is.
  return made ? html`<div class="markdown" ref=${place} key="made"></div>` : html`<div class="markdown plain" key="plain">${text}</div>`;
}
