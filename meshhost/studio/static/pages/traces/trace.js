/**
 * One trace of a room as a waterfall. It is read again as long as one looks: a job may take hours, and note nothing for a long while. The
 * longer nothing came, the less often it is read, which the page says, with a button to read it at once.
 */
import { at, get, isFinal } from "../../app/api.js";
import { useResource } from "../../app/live.js";
import { to } from "../../app/router.js";
import { counted, duration } from "../../ui/format.js";
import { Badge, Card, Facts, Loaded, PageHead, Time } from "../../ui/parts.js";
import { html, useRef } from "../../ui/preact.js";
import { Waterfall } from "./waterfall.js";

/** @typedef {import("./traces.js").Trace & {spans: import("./waterfall.js").Span[]}} WholeTrace */

const EVERY_MS = 3000;
const SLOWEST_MS = 60_000;
/** Of the time that nothing came for, what passes until the next reading. */
const PART = 1 / 20;

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
        ${found.pause > EVERY_MS && html`<p class="note"><span>Nothing came for ${duration(quietSeconds(shown))}. It is read again every ${duration(Math.round(found.pause / 1000))}.</span> <button class="button" onClick=${found.refresh}>Read it now</button></p>`}
        ${shown.dropped > 0 && html`<p class="note">${counted(shown.dropped, "more span")} did not fit into the trace.</p>`}`}
    </${Loaded}>`;
}

/** For how long nothing came. @param {{began_at: number, seconds: number}} trace @param {number} [now] seconds since 1970 */
const quietSeconds = ({ began_at: began, seconds }, now = Date.now() / 1000) => Math.max(0, now - (began + seconds));

/** How long to wait until a trace is read again, in milliseconds. @param {{began_at: number, seconds: number}} trace @param {number} [now] */
export const pauseAfter = (trace, now) => Math.min(Math.max(quietSeconds(trace, now) * 1000 * PART, EVERY_MS), SLOWEST_MS);

/**
 * A trace, read again and again, the less often the longer nothing came; `pause` is how long that takes now. One that is gone is not.
 * @param {string} path @returns {import("../../app/live.js").Resource<WholeTrace> & {pause: number}}
 */
export function useTrace(path) {
  const pause = useRef(/** @type {number | undefined} */ (EVERY_MS));
  const read = async (/** @type {AbortSignal} */ signal) => {
    try {
      /** @type {WholeTrace} */
      const trace = await get(path, signal);
      pause.current = pauseAfter(trace);
      return trace;
    } catch (error) {
      pause.current = isFinal(error) ? undefined : EVERY_MS;
      throw error;
    }
  };
  const found = useResource(read, [path], { every: pause.current });
  return { ...found, pause: pause.current ?? 0 };
}

/** @param {any[]} parts */
const listed = (parts) => parts.map((part, index) => html`${index > 0 && ", "}${part}`);
