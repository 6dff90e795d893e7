/** One action for all messages that a filter finds, page by page, with how far it is; closing the dialog stops it. */
import { at, get, post, query, remove } from "../../app/api.js";
import { Dialog } from "../../ui/dialog.js";
import { counted } from "../../ui/format.js";
import { html, useEffect, useRef, useState } from "../../ui/preact.js";

const PAGE = 200;
const AT_ONCE = 6;

/** @param {{kind: "replay" | "cancel", path: string, filter: Parameters<typeof query>[0], room: string, queue: string, onClose: () => void}} props */
export function BulkDialog({ kind, path, filter, room, queue, onClose }) {
  const [state, setState] = useState({ isRunning: false, done: 0, failed: 0, isOver: false, fault: "" });
  const isStopped = useRef(false);
  useEffect(
    () => () => {
      isStopped.current = true;
    },
    [],
  );
  const verb = kind === "replay" ? "Replay" : "Cancel";
  const run = async () => {
    setState((before) => ({ ...before, isRunning: true }));
    let next = /** @type {string | null} */ ("");
    try {
      while (next !== null && !isStopped.current) {
        const page = await get(path + query({ ...filter, limit: PAGE, before: next }));
        const ids = page.messages.map((/** @type {{id: string}} */ message) => message.id);
        const count = kind === "replay" ? await replay(room, queue, ids) : await cancel(path, ids);
        setState((before) => ({ ...before, done: before.done + count, failed: before.failed + ids.length - count }));
        next = page.next;
      }
    } catch (error) {
      setState((before) => ({ ...before, fault: /** @type {Error} */ (error).message }));
    }
    setState((before) => ({ ...before, isRunning: false, isOver: true }));
  };
  return html`<${Dialog} title=${`${verb} all found`} onClose=${onClose}>
    ${state.isRunning || state.isOver
      ? html`<p role="status">${counted(state.done, "message")} ${kind === "replay" ? "ready again" : "cancelled"}${state.failed > 0 && `, ${state.failed} had changed in between`}${state.isRunning && "…"}</p>`
      : html`<p>${kind === "replay" ? "Every dead message that the filter finds becomes ready again, with all its attempts." : "Every message that the filter finds is cancelled: what waits is gone, and the worker of one in progress is told to stop."}</p>`}
    ${state.fault && html`<p class="note" data-tone="bad" role="alert">${state.fault}</p>`}
    <div class="dialog-foot">
      <button class="button" onClick=${onClose}>${state.isOver ? "Close" : state.isRunning ? "Stop" : "Keep them"}</button>
      ${!state.isRunning && !state.isOver && html`<button class=${kind === "cancel" ? "button primary danger" : "button primary"} onClick=${run}>${verb} all</button>`}
    </div>
  </${Dialog}>`;
}

/** @param {string} room @param {string} queue @param {string[]} ids @returns {Promise<number>} */
async function replay(room, queue, ids) {
  if (!ids.length) return 0;
  return (await post(at`/rooms/${room}/queues/${queue}/replay`, { ids })).replayed;
}

/** @param {string} path @param {string[]} ids */
async function cancel(path, ids) {
  const waiting = [...ids];
  let count = 0;
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
        const { state } = await remove(`${path}/${id}`);
        if (state === "cancelled" || state === "leased") count += 1;
      }
    }),
  );
  return count;
}
