/**
 * What was logged while a message was worked on, on its page: live until it has ended and its last lines have come.
 *
 * Agents report these lines to the server, which keeps the last ones of a room in memory; so there may be none, and the card says why.
 */
import { to } from "../../app/router.js";
import { Card, Empty, Loaded } from "../../ui/parts.js";
import { html, useEffect, useRef } from "../../ui/preact.js";
import { Lines, useLines } from "../logs.js";
import { ENDED } from "./states.js";

const EVERY_MS = 1200;
/** Lines come in a moment later than what they say. */
const LAST_SECONDS = 15;
/** What the page says already. */
const KNOWN = ["queue", "message_id"];

/** @typedef {import("./messages.js").Message} Message */

/** Whether lines of it may still come. @param {Message} message @param {number} [now] seconds since 1970 */
export const mayGrow = ({ state, ended_at: ended }, now = Date.now() / 1000) => !ENDED.includes(state) || (ended !== null && now - ended < LAST_SECONDS);

/** @param {{room: string, queue: string, message: Message}} props */
export function MessageLog({ room, queue, message }) {
  const grows = mayGrow(message);
  const log = useLines(room, { level: "INFO", queue, message: message.id }, grows ? EVERY_MS : undefined);
  const before = useRef(grows);
  useEffect(() => {
    // It was over, and goes on: replayed, for instance.
    if (grows && !before.current) log.refresh();
    before.current = grows;
  }, [grows]);
  const whole = html`<a class="button quiet" href=${message.by ? `${to`/rooms/${room}/logs`}?agent=${encodeURIComponent(message.by)}` : to`/rooms/${room}/logs`}>${message.by ? "Log of its worker" : "Log of the room"}</a>`;
  return html`<${Card} title="Log" actions=${whole}>
    <${Loaded} of=${log} what="Loading its log">
      ${(/** @type {import("../logs.js").Line[]} */ lines) => (lines.length ? html`<${Lines} lines=${lines} without=${KNOWN} />` : html`<${Nothing} message=${message} />`)}
    </${Loaded}>
  </${Card}>`;
}

/** @param {{message: Message}} props */
function Nothing({ message }) {
  if (message.state === "leased") {
    return html`<${Empty} title="Nothing logged yet">What the worker's code logs with Python's <code>logging</code>, from INFO on, is shown here as it comes. If nothing comes, lower the level of its program, such as with <code>MESHHOST_LOG_LEVEL=info</code>.</${Empty}>`;
  }
  if (message.began_at === null) return html`<${Empty} title="No lines yet">What its worker logs while it works on it will be shown here.</${Empty}>`;
  return html`<${Empty} title="No lines are kept of it">Its worker logged nothing from INFO on, or it is too long ago: the server keeps the last lines of a room, in memory. Look into the log of the worker's program, or replay the message and watch it here.</${Empty}>`;
}
