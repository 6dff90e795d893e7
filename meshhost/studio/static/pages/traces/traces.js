/**
 * The traces of a room, the newest first: filtered by the server, loaded as one scrolls. What is filtered is part of the address.
 */
import { at } from "../../app/api.js";
import { useSettled } from "../../app/live.js";
import { usePages } from "../../app/paging.js";
import { here, setQuery, to } from "../../app/router.js";
import { TextField } from "../../ui/field.js";
import { counted, duration } from "../../ui/format.js";
import { Icon } from "../../ui/icons.js";
import { Badge, Card, Empty, Failed, Loading, PageHead, Time } from "../../ui/parts.js";
import { html, useEffect, useSignal, useState } from "../../ui/preact.js";
import { VirtualList } from "../../ui/virtual.js";

/**
 * @typedef {{trace: string, name: string, began_at: number, seconds: number, failed: boolean, queues: string[], messages: string[],
 *   agents: string[], span_count: number, dropped: number}} Trace
 */

const PAGE = 100;
const EVERY_MS = 4000;
const PAUSE_MS = 300;
const FIELDS = /** @type {const} */ (["queue", "message", "agent", "longer"]);

/** @param {{room: string}} props */
export default function Traces({ room }) {
  const { search } = useSignal(here);
  const given = new URLSearchParams(search);
  const seconds = Number(given.get("longer") ?? 0);
  const filter = {
    queue: given.get("queue") ?? "",
    message: given.get("message") ?? "",
    agent: given.get("agent") ?? "",
    longer: seconds > 0 && Number.isFinite(seconds) ? String(seconds) : "",
    failed: given.get("failed") === "true" ? "true" : "",
  };
  /** @type {ReturnType<typeof usePages<Trace>>} */
  const { rows, next, error, isFirst, first, load, newest } = usePages(at`/rooms/${room}/traces`, filter, { member: "traces", limit: PAGE, every: EVERY_MS });
  const isFiltered = Object.values(filter).some(Boolean);
  return html`<${PageHead} title=${`Traces of ${room}`} />
    <${Card} label="Traces" title="Traces" actions=${!isFirst && html`<button class="button quiet" onClick=${newest}><${Icon} name="retry" />Back to the newest</button>`}>
      <div class="card-body"><${Filters} key=${room} given=${given} failed=${filter.failed === "true"} /></div>
      ${first.data
        ? rows.length
          ? html`<${VirtualList} label="Traces, newest first" rows=${rows} rowKey=${(/** @type {Trace} */ trace) => trace.trace} onEnd=${load}
              total=${next ? null : rows.length} rowHeight=${52} row=${(/** @type {Trace} */ trace) => html`<${TraceRow} room=${room} trace=${trace} />`} />
              ${error && html`<p class="note" data-tone="bad" role="alert">Older traces could not be loaded: ${error.message} <button class="button" onClick=${load}>Try again</button></p>`}`
          : html`<${None} isFiltered=${isFiltered} isRecording=${first.data.recording} />`
        : first.error
          ? html`<${Failed} error=${first.error} retry=${first.refresh} />`
          : html`<${Loading} what="Loading traces" />`}
    </${Card}>`;
}

/** @param {{isFiltered: boolean, isRecording: boolean}} props */
function None({ isFiltered, isRecording }) {
  if (!isRecording) return html`<${Empty} title="No traces are kept">The operator of this server turned them off: <code>[traces]</code> of its configuration file.</${Empty}>`;
  if (isFiltered) return html`<${Empty} title="Nothing found">No trace that is kept fits. Of many messages only some are recorded, and those that fail. Remove a filter.</${Empty}>`;
  return html`<${Empty} title="No traces yet">Send a message: what happens with it is seen here, from its queue to the calls of models and tools.</${Empty}>`;
}

/** @param {{given: URLSearchParams, failed: boolean}} props */
function Filters({ given, failed }) {
  const [typed, setTyped] = useState(() => Object.fromEntries(FIELDS.map((name) => [name, given.get(name) ?? ""])));
  const settled = useSettled(JSON.stringify(typed), PAUSE_MS);
  useEffect(() => setQuery(Object.fromEntries(FIELDS.map((name) => [name, JSON.parse(settled)[name].trim()]))), [settled]);
  const field = (/** @type {string} */ label, /** @type {string} */ name, more = {}) =>
    html`<${TextField} label=${label} value=${typed[name]} onInput=${(/** @type {string} */ text) => setTyped((before) => ({ ...before, [name]: text }))} ...${more} />`;
  return html`<div class="form">
    <div class="chips" role="group" aria-label="Outcome">
      <button class="chip" aria-pressed=${failed} onClick=${() => setQuery({ failed: failed ? "" : "true" })}>Failed only</button>
    </div>
    <div class="filters">
      ${field("Queue", "queue")} ${field("Id of a message", "message", { inputmode: "numeric" })} ${field("Whole name of an agent", "agent")}
      ${field("Took at least, in seconds", "longer", { inputmode: "decimal" })}
    </div>
  </div>`;
}

/** A line about a trace, which leads to it. @param {{room: string, trace: Trace}} props */
export function TraceRow({ room, trace }) {
  return html`<a class="trace-row" href=${to`/rooms/${room}/traces/${trace.trace}`}>
    <span class="clip what">${trace.name} ${trace.messages.length > 0 && html`<span class="muted">${trace.messages.length === 1 ? `message ${trace.messages[0]}` : counted(trace.messages.length, "message")}</span>`}</span>
    <span>${trace.failed && html`<${Badge} tone="bad">failed</${Badge}>`}</span>
    <span class="clip muted agents">${trace.agents.join(", ")}</span>
    <span class="muted small spans">${counted(trace.span_count, "span")}</span>
    <span class="small took">${duration(trace.seconds)}</span>
    <span class="muted small when"><${Time} at=${trace.began_at} /></span>
  </a>`;
}
