/** The states of a message: their names, their colours, and which of them can still change. */
import { Badge } from "../../ui/parts.js";
import { html } from "../../ui/preact.js";

/** @typedef {"delayed" | "ready" | "blocked" | "leased" | "failed" | "done" | "dead" | "cancelled" | "expired"} State */

/** @type {Record<State, {title: string, tone?: "ok" | "warn" | "bad" | "info", meaning: string}>} */
export const STATES = {
  ready: { title: "ready", tone: "info", meaning: "The next worker that asks gets it." },
  leased: { title: "in progress", tone: "info", meaning: "A worker has it." },
  delayed: { title: "delayed", meaning: "It waits for its time." },
  blocked: { title: "waiting for its key", meaning: "An earlier message of its key comes first." },
  failed: { title: "failed, tried again", tone: "warn", meaning: "Its last attempt failed; it waits for the next." },
  dead: { title: "dead", tone: "bad", meaning: "All attempts failed. Replay it when the cause is gone." },
  done: { title: "done", tone: "ok", meaning: "It was processed." },
  cancelled: { title: "cancelled", meaning: "Somebody cancelled it." },
  expired: { title: "expired", tone: "warn", meaning: "Nobody began it in time." },
};

/** @type {State[]} */
export const ENDED = ["done", "dead", "cancelled", "expired"];

/** The server keeps the contents of a message until it has ended well, or for nothing. @type {State[]} */
const EMPTIED = ["done", "cancelled", "expired"];

/** Whether the contents are gone, so that they are null. @param {{state: State, message?: unknown}} message */
export const isEmptied = ({ state, message }) => EMPTIED.includes(state) && message === null;

/** @param {{state: State}} props */
export function StateBadge({ state }) {
  const { title, tone, meaning } = STATES[state] ?? { title: state, tone: undefined, meaning: "" };
  return html`<span title=${meaning}><${Badge} tone=${tone}>${title}</${Badge}></span>`;
}
