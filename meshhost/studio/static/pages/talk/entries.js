/** What was said and done in a thread. Answers are Markdown; tool calls can be opened; the view follows what grows, unless one scrolled up. */
import { Icon } from "../../ui/icons.js";
import { Markdown } from "../../ui/markdown.js";
import { Time } from "../../ui/parts.js";
import { html, useEffect, useRef } from "../../ui/preact.js";
import { fileAddress } from "../files/files.js";

const NEAR_PX = 80;

/** @typedef {import("./thread.js").Entry} Entry */

/** @param {{room: string, entries: Entry[], own: string, isThinking: boolean}} props */
export function Entries({ room, entries, own, isThinking }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const follows = useRef(true);
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const keep = () => {
      if (follows.current) element.scrollTop = element.scrollHeight;
    };
    const watch = () => {
      follows.current = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_PX;
    };
    keep();
    const observer = new MutationObserver(keep);
    observer.observe(element, { childList: true, subtree: true, characterData: true });
    element.addEventListener("scroll", watch, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", watch);
    };
  }, []);
  return html`<div class="entries" ref=${box} role="log" aria-label="Conversation" tabindex="0">
    ${entries.length === 0 && html`<p class="muted">Nothing was said yet.</p>`}
    ${entries.map((entry) => html`<${OneEntry} key=${entry.id} room=${room} entry=${entry} isOwn=${entry.author === own} />`)}
    ${isThinking && html`<p class="muted thinking" role="status">Thinking…</p>`}
  </div>`;
}

/** @param {{room: string, entry: Entry, isOwn: boolean}} props */
function OneEntry({ room, entry, isOwn }) {
  if (entry.kind === "tool") {
    return html`<details class="tool-call"><summary><${Icon} name="tool" /> <code class="clip">${entry.text}</code> <span class="muted">${entry.result ? "" : "running…"}</span></summary>
      ${entry.result && html`<pre class="code-block" tabindex="0">${entry.result}</pre>`}</details>`;
  }
  if (entry.kind === "reasoning") {
    return entry.text ? html`<details class="tool-call"><summary>Reasoning</summary><div class="muted"><${Markdown} text=${entry.text} /></div></details>` : null;
  }
  if (entry.kind === "other") return entry.text ? html`<pre class="code-block">${entry.text}</pre>` : null;
  return html`<article class="said" data-own=${isOwn} data-error=${entry.isError}>
    <header><strong>${entry.author || "somebody"}</strong> <span class="muted small">${entry.at && html`<${Time} at=${entry.at} />`}${entry.isWriting && " · writing…"}</span></header>
    ${isOwn || entry.isError ? html`<div class="plain-text">${entry.text}</div>` : html`<${Markdown} text=${entry.text} />`}
    ${entry.files.length > 0 && html`<ul class="attached">${entry.files.map((path) => html`<li><a href=${fileAddress(room, path)}><${Icon} name="file" />${path.split("/").pop()}</a></li>`)}</ul>`}
  </article>`;
}
