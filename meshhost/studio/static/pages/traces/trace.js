/** One trace of a room as a waterfall. It is read again for a while, as spans of agents come a moment later than what they note. */
import { at, get, isFinal } from "../../app/api.js";
import { useResource } from "../../app/live.js";
import { to } from "../../app/router.js";
import { counted, duration } from "../../ui/format.js";
import { Badge, Card, Facts, Loaded, PageHead, Time } from "../../ui/parts.js";
import { html, useRef } from "../../ui/preact.js";
import { Waterfall } from "./waterfall.js";

/** @typedef {import("./traces.js").Trace & {spans: import("./waterfall.js").Span[]}} WholeTrace */

const EVERY_MS = 3000;
const QUIET_SECONDS = 60;

/** @param {{room: string, trace: string}} props */
export default function TracePage({ room, trace }) {
  const path = at`/rooms/${room}/traces/${trace}`;
  const found = useTrace(path);
  const whole = found.data;
  return html`<${PageHead} title=${whole ? whole.name : `Trace ${trace.slice(0, 8)}`} badge=${whole?.failed && html`<${Badge} tone="bad">failed</${Badge}>`} />
    <${Loaded} of=${found} what="Loading the trace">
      ${(/** @type {WholeTrace} */ { messages, queues, agents, ...shown }) => html`
        <${Card} title="Facts" padded=${true}><${Facts} entries=${[
          ["Trace", html`<code class="wrap">${shown.trace}</code>`],
          ["Began", html`<${Time} at=${shown.began_at} />`],
          ["Took", duration(shown.seconds)],
          queues.length > 0 && ["Queues", listed(queues.map((name) => html`<a href=${to`/rooms/${room}/queues/${name}`}>${name}</a>`))],
          messages.length > 0 && ["Messages", listed(messages.map((id) => (queues.length === 1 ? html`<a href=${to`/rooms/${room}/queues/${queues[0]}/${id}`}>${id}</a>` : html`<code>${id}</code>`)))],
          agents.length > 0 && ["Agents", listed(agents.map((name) => html`<code>${name}</code>`))],
        ]} /></${Card}>
        <${Card} title=${counted(shown.span_count, "span")} label="Waterfall"><${Waterfall} room=${room} spans=${shown.spans} /></${Card}>
        ${shown.dropped > 0 && html`<p class="note">${counted(shown.dropped, "more span")} did not fit into the trace.</p>`}`}
    </${Loaded}>`;
}

/** A trace, read again while it may still grow. @param {string} path @returns {import("../../app/live.js").Resource<WholeTrace>} */
export function useTrace(path) {
  const isQuiet = useRef(false);
  const read = async (/** @type {AbortSignal} */ signal) => {
    try {
      /** @type {WholeTrace} */
      const trace = await get(path, signal);
      isQuiet.current = Date.now() / 1000 - (trace.began_at + trace.seconds) > QUIET_SECONDS;
      return trace;
    } catch (error) {
      isQuiet.current = isFinal(error);
      throw error;
    }
  };
  return useResource(read, [path], { every: isQuiet.current ? undefined : EVERY_MS });
}

/** @param {any[]} parts */
const listed = (parts) => parts.map((part, index) => html`${index > 0 && ", "}${part}`);
