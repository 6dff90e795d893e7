/** The trace of a message, on its page: where the time of its attempts went. Nothing is shown of a message that has none. */
import { at, get, query } from "../../app/api.js";
import { useResource } from "../../app/live.js";
import { to } from "../../app/router.js";
import { Card } from "../../ui/parts.js";
import { html } from "../../ui/preact.js";
import { ENDED } from "../work/states.js";
import { useTrace } from "./trace.js";
import { TraceRow } from "./traces.js";
import { Waterfall } from "./waterfall.js";

const EVERY_MS = 4000;
const MOST = 5;

/** @param {{room: string, queue: string, message: import("../work/messages.js").Message}} props */
export function MessageTraces({ room, queue, message }) {
  const read = async (/** @type {AbortSignal} */ signal) => {
    const found = await get(at`/rooms/${room}/traces` + query({ queue, message: message.id, limit: MOST }), signal);
    return /** @type {import("./traces.js").Trace[]} */ (found.traces);
  };
  const found = useResource(read, [room, queue, message.id], { every: EVERY_MS });
  const traces = found.data ?? [];
  // It is looked for as long as none is there and the message goes on; one that is there is followed by itself.
  if (!traces.length) {
    return ENDED.includes(message.state) && found.data ? html`<p class="muted">No trace of it is kept: of many messages only some are recorded, and those that fail.</p>` : null;
  }
  return html`<${Card} title="Trace" actions=${html`<a class="button quiet" href=${to`/rooms/${room}/traces/${traces[0].trace}`}>Open it</a>`}>
    <${Newest} room=${room} trace=${traces[0].trace} />
    ${traces.slice(1).map((trace) => html`<${TraceRow} key=${trace.trace} room=${room} trace=${trace} />`)}
  </${Card}>`;
}

/** @param {{room: string, trace: string}} props */
function Newest({ room, trace }) {
  const { data } = useTrace(at`/rooms/${room}/traces/${trace}`);
  return data ? html`<${Waterfall} room=${room} spans=${data.spans} />` : null;
}
