/**
 * What is in a file, as far as that can be shown without running it: text, Markdown, JSON, CSV, images, PDF, HTML.
 *
 * Files are written by agents and strangers. Text stays text; Markdown goes through DOMPurify; an image (SVG too) is shown by an
 * `<img>`, where nothing in it runs; HTML stands in a frame with a sandbox that permits nothing, and under this page's own policy,
 * so without scripts, styles and anything from elsewhere.
 */
import { IMAGES, kindOf } from "../../ui/kinds.js";
import { bytes, pretty } from "../../ui/format.js";
import { parseCsv } from "../../ui/csv.js";
import { Markdown } from "../../ui/markdown.js";
import { Empty, Failed, Loading } from "../../ui/parts.js";
import { html, useEffect, useState } from "../../ui/preact.js";

const MOST_TEXT = 1_000_000;
const MOST_OTHER = 60_000_000;
const CSV_ROWS = 500;

/** @param {{name: string, size: number, load: () => Promise<Blob>}} props */
export function Preview({ name, size, load }) {
  const kind = kindOf(name);
  const [state, setState] = useState(/** @type {{text?: string, url?: string, error?: Error}} */ ({}));
  const [asSource, setAsSource] = useState(false);
  const isTooLarge = size > (kind === "image" || kind === "pdf" ? MOST_OTHER : MOST_TEXT);
  const isShown = kind !== "other" && !isTooLarge;
  useEffect(() => {
    if (!isShown) return undefined;
    let isHere = true;
    /** @type {string | undefined} */
    let url;
    const read = async () => {
      const blob = await load();
      if (!isHere) return;
      const type = kind === "image" ? IMAGES[name.toLowerCase().split(".").pop() ?? ""] : kind === "pdf" ? "application/pdf" : null;
      if (type) {
        url = URL.createObjectURL(new Blob([blob], { type }));
        setState({ url });
      } else setState({ text: await blob.text() });
    };
    read().catch((error) => isHere && setState({ error }));
    return () => {
      isHere = false;
      if (url) URL.revokeObjectURL(url);
    };
  }, []);
  if (!isShown) {
    return html`<${Empty} title=${isTooLarge ? "Too large to show" : "No preview"}>${isTooLarge ? `The file has ${bytes(size)}.` : "Files of this kind are not shown."} Download it to see it.</${Empty}>`;
  }
  if (state.error) return html`<${Failed} error=${state.error} />`;
  if (state.url && kind === "image") return html`<div class="card-body preview-image"><img src=${state.url} alt=${name} /></div>`;
  if (state.url) return html`<iframe class="preview-frame" src=${state.url} title=${name}></iframe>`;
  if (state.text === undefined) return html`<${Loading} what="Loading the file" />`;
  if (state.text.includes("\0")) return html`<${Empty} title="No preview">The file is not text. Download it to see it.</${Empty}>`;
  const hasTwo = kind === "markdown" || kind === "html" || kind === "csv";
  return html`${hasTwo &&
    html`<div class="tabs" role="group" aria-label="How it is shown">
      <button aria-pressed=${!asSource} onClick=${() => setAsSource(false)}>As it reads</button>
      <button aria-pressed=${asSource} onClick=${() => setAsSource(true)}>Source</button>
    </div>`}
    <div class="card-body">${asSource ? html`<pre class="code-block tall" tabindex="0">${state.text}</pre>` : html`<${Shown} kind=${kind} text=${state.text} name=${name} />`}</div>`;
}

/** @param {{kind: string, text: string, name: string}} props */
function Shown({ kind, text, name }) {
  if (kind === "markdown") return html`<${Markdown} text=${text} />`;
  if (kind === "html") return html`<iframe class="preview-frame" sandbox="" srcdoc=${text} title=${name}></iframe>`;
  if (kind === "csv") return html`<${Csv} text=${text} separator=${name.toLowerCase().endsWith("tsv") ? "\t" : ","} />`;
  return html`<pre class="code-block tall" tabindex="0">${kind === "json" ? ordered(text) : text}</pre>`;
}

/** @param {string} text */
function ordered(text) {
  try {
    return pretty(JSON.parse(text));
  } catch {
    return text;
  }
}

/** @param {{text: string, separator: string}} props */
function Csv({ text, separator }) {
  const rows = parseCsv(text, separator, CSV_ROWS + 1);
  const [head, ...body] = rows;
  if (!head) return html`<p class="muted">The file is empty.</p>`;
  return html`<div class="table-wrap csv" tabindex="0" role="region" aria-label="Table"><table>
      <thead><tr>${head.map((cell) => html`<th scope="col">${cell}</th>`)}</tr></thead>
      <tbody>${body.slice(0, CSV_ROWS).map((row) => html`<tr>${row.map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody>
    </table></div>
    ${body.length >= CSV_ROWS && html`<p class="muted">The first ${CSV_ROWS} rows.</p>`}`;
}
