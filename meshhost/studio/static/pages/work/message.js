/**
 * One message through its life: what happened to it and what comes next, progress as it is reported, result, contents.
 *
 * While it has not ended, the page waits for its next change with the server's long poll (`wait` and `seen`), so that what happens
 * is seen at once and nothing is asked in vain.
 */
import { ask, at, isFinal, post, remove } from "../../app/api.js";
import { epoch, may } from "../../app/store.js";
import { to } from "../../app/router.js";
import { Confirm } from "../../ui/dialog.js";
import { duration, fullTime, lastLine, pretty } from "../../ui/format.js";
import { Icon } from "../../ui/icons.js";
import { Age, Card, Countdown, Facts, Failed, Loading, PageHead, Time } from "../../ui/parts.js";
import { html, useEffect, useSignal, useState } from "../../ui/preact.js";
import { attempt, notify } from "../../ui/toast.js";
import { MessageTraces } from "../traces/of-message.js";
import { MessageLog } from "./message-log.js";
import { SendDialog } from "./send.js";
import { ENDED, isEmptied, StateBadge, STATES } from "./states.js";

/** @typedef {import("./messages.js").Message} Message */

const WAIT_SECONDS = 25;
const RETRY_MS = 2000;

/** @param {{room: string, queue: string, id: string}} props */
export default function MessagePage({ room, queue, id }) {
  const path = at`/rooms/${room}/queues/${queue}/messages/${id}`;
  const [asked, setAsked] = useState(0);
  const { message, error } = useMessage(path, asked);
  const [open, setOpen] = useState(/** @type {"cancel" | "again" | null} */ (null));
  const again = () => setAsked((before) => before + 1);
  const replay = async () => {
    const done = await attempt(() => post(at`/rooms/${room}/queues/${queue}/replay`, { ids: [id] }));
    if (done === undefined) return;
    notify(done.replayed ? "The message is ready again." : "It was not dead any more.");
    again();
  };
  if (!message) {
    return html`<${PageHead} title=${`Message ${id}`} /><div class="card">${error ? html`<${Failed} error=${error} retry=${again} />` : html`<${Loading} what="Loading the message" />`}</div>`;
  }
  const canCancel = !ENDED.includes(message.state) && !message.cancelling;
  return html`<${PageHead} title=${`Message ${id}`} badge=${html`<${StateBadge} state=${message.state} />`}>
      ${may("developer") &&
      html`${message.state === "dead" && html`<button class="button primary" onClick=${replay}><${Icon} name="retry" />Replay</button>`}
        ${canCancel && html`<button class="button danger" onClick=${() => setOpen("cancel")}>Cancel it</button>`}
        ${!isEmptied(message) && html`<button class="button" onClick=${() => setOpen("again")}><${Icon} name="send" />Send again as new</button>`}`}
    </${PageHead}>
    <p class="muted">${STATES[message.state]?.meaning} ${message.cancelling && "It was cancelled; its worker is told to stop."}</p>
    ${message.reason && html`<${Reason} message=${message} />`}
    <div class="columns">
      <${Card} title="Facts" padded=${true}><${About} room=${room} queue=${queue} message=${message} /></${Card}>
      <${Card} title="Timeline"><${Timeline} message=${message} /></${Card}>
    </div>
    ${may("developer") && html`<${MessageTraces} room=${room} queue=${queue} message=${message} /><${MessageLog} key=${message.id} room=${room} queue=${queue} message=${message} />`}
    ${message.progress !== null && html`<${Card} title="Progress" padded=${true}><${Progress} value=${message.progress} /></${Card}>`}
    ${message.result !== null && html`<${Card} title="Result" padded=${true}><pre class="code-block" tabindex="0">${pretty(message.result)}</pre></${Card}>`}
    ${message.message !== undefined && html`<${Card} title="Message" padded=${true}>${isEmptied(message) ? html`<p class="muted">The server keeps what was sent only until a message is done, cancelled or expired.</p>` : html`<pre class="code-block" tabindex="0">${pretty(message.message)}</pre>`}</${Card}>`}
    ${message.headers && Object.keys(message.headers).length > 0 && html`<${Card} title="Headers" padded=${true}><${Facts} entries=${Object.entries(message.headers).map(([name, value]) => [html`<code>${name}</code>`, html`<code>${value}</code>`])} /></${Card}>`}
    ${open === "again" && html`<${SendDialog} room=${room} queue=${queue} message=${message.message} onClose=${() => setOpen(null)} />`}
    ${open === "cancel" && html`<${Confirm} title="Cancel this message" action="Cancel it" onClose=${() => setOpen(null)} onConfirm=${async () => {
      await attempt(() => remove(path), ({ state }) => (state === "leased" ? "Its worker is told to stop." : `The message is ${STATES[/** @type {import("./states.js").State} */ (state)]?.title ?? state}.`));
      again();
    }}>${message.state === "leased" ? "A worker has it: it is told at its next renewal, and stops." : "Nobody has begun it: it is gone at once."}</${Confirm}>`}`;
}

/** @param {{message: Message}} props */
function Reason({ message }) {
  const text = message.reason ?? "";
  const short = lastLine(text);
  return html`<div class="note" data-tone=${message.state === "dead" || message.state === "failed" ? "bad" : undefined}>
    <strong>${message.state === "dead" ? "Why it is dead: " : "Last error: "}</strong><span>${short}</span>
    ${short !== text.trim() && html`<details><summary>All of it</summary><pre class="reason" tabindex="0">${text}</pre></details>`}
  </div>`;
}

/** @param {string} path @param {number} asked @returns {{message: Message | null, error: Error | null}} */
export function useMessage(path, asked) {
  const [state, setState] = useState({ message: /** @type {Message | null} */ (null), error: /** @type {Error | null} */ (null) });
  const current = useSignal(epoch);
  useEffect(() => {
    const control = new AbortController();
    setState((before) => (before.message && path.endsWith(`/${before.message.id}`) ? before : { message: null, error: null }));
    const follow = async () => {
      /** @type {Message | null} */
      let message = null;
      while (!control.signal.aborted) {
        try {
          /** @type {Message} */
          const found = await ask(path, { signal: control.signal });
          message = found;
          setState({ message: found, error: null });
          while (message && !ENDED.includes(message.state)) {
            const changed = await ask(`${path}?wait=${WAIT_SECONDS}&seen=${encodeURIComponent(message.seen)}`, { signal: control.signal });
            // The long poll's answer has no history; what happened is read anew.
            if (changed.seen !== message.seen) break;
          }
          if (message && ENDED.includes(message.state)) return;
        } catch (error) {
          if (control.signal.aborted) return;
          // What is shown stays, unless it is there no more; what only failed now is asked again.
          setState((before) => ({ message: isFinal(error) ? null : before.message, error: /** @type {Error} */ (error) }));
          if (isFinal(error)) return;
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
        }
      }
    };
    void follow();
    return () => control.abort();
  }, [path, asked, current]);
  return state;
}

/** @param {{room: string, queue: string, message: Message}} props */
function About({ room, queue, message }) {
  const time = (/** @type {number} */ at) => html`<${Time} at=${at} /> <span class="muted">· ${fullTime(at)}</span>`;
  return html`<${Facts} entries=${[
    ["Queue", html`<a href=${to`/rooms/${room}/queues/${queue}`}>${queue}</a>`],
    ["Sent", time(message.sent_at)],
    message.due_at !== null && ["Due", time(message.due_at)],
    message.began_at !== null && ["Begun", html`${time(message.began_at)}`],
    message.by && ["Worker", html`<code>${message.by}</code>${may("developer") && html` · <a href=${`${to`/rooms/${room}/logs`}?agent=${encodeURIComponent(message.by)}`}>its log</a>`}`],
    message.lease_until !== null && ["Lease ends", time(message.lease_until)],
    message.ended_at !== null && ["Ended", time(message.ended_at)],
    message.ended_at !== null && message.began_at !== null && ["Took", duration(message.ended_at - message.began_at)],
    message.expires_at !== null && ["Expires", time(message.expires_at)],
    // Of what has ended otherwise the server does not count them.
    !ENDED.includes(message.state) || message.state === "dead" ? ["Deliveries", `${message.deliveries}, of which ${message.failures} failed`] : message.failures > 0 && ["Failed attempts", String(message.failures)],
    message.priority !== 0 && ["Priority", String(message.priority)],
    message.key && ["Key", html`<a href=${`${to`/rooms/${room}/queues/${queue}`}?key=${encodeURIComponent(message.key)}`}><code>${message.key}</code></a>`],
  ]} />`;
}

/** What happened to it, and what comes next. @param {{message: Message}} props */
function Timeline({ message }) {
  const history = message.history ?? [];
  return html`<ol class="timeline">
    <li><p><strong>Sent</strong> <span class="muted">· <${Time} at=${message.sent_at} /></span></p></li>
    ${message.history === undefined && message.failures > 0 && html`<li data-tone="bad"><p class="muted">Of the ${message.failures} attempts that failed, developers see the errors.</p></li>`}
    ${history.map(
      (each, index) => html`<li data-tone=${each.reason === "failed" ? "bad" : "warn"}>
        <p><strong>Attempt ${index + 1}</strong> · ${REASONS[each.reason] ?? each.reason} after ${duration(each.ended_at - each.began_at)} <span class="muted">· <${Time} at=${each.ended_at} /></span></p>
        <p class="muted small">by <code>${each.by}</code></p>
        ${each.error && html`<p class="wrap">${lastLine(each.error)}</p><details><summary>All of it</summary><pre class="code-block" tabindex="0">${each.error}</pre></details>`}
      </li>`,
    )}
    <${Now} message=${message} attempt=${(message.history === undefined ? message.deliveries - 1 : history.length) + 1} />
  </ol>`;
}

/** The last line of it: how it ended, or what it waits for. @param {{message: Message, attempt: number}} props */
function Now({ message, attempt }) {
  const { state, by, began_at: began, due_at: due, ended_at: ended } = message;
  const line = (/** @type {string} */ tone, /** @type {any} */ content) => html`<li data-tone=${tone} aria-current=${ended === null ? "step" : undefined}><p>${content}</p></li>`;
  const when = (/** @type {number | null} */ at) => at !== null && html` <span class="muted">· <${Time} at=${at} /></span>`;
  const whom = by && html` by <code>${by}</code>`;
  switch (state) {
    case "leased":
      return line("info", html`<strong>Attempt ${attempt}</strong> · in progress${whom}${began !== null && html`, for <${Age} since=${began} />`}`);
    case "done":
      return line("ok", html`<strong>Attempt ${attempt}</strong> · done${whom}${began !== null && ended !== null && ` after ${duration(ended - began)}`}${when(ended)}`);
    case "failed":
      return line("warn", html`<strong>Next attempt</strong> ${due === null ? "soon" : html`<${Countdown} until=${due} />`}`);
    case "delayed":
      return line("info", html`<strong>Ready</strong> ${due === null ? "later" : html`<${Countdown} until=${due} />`}`);
    case "ready":
      return line("info", html`<strong>Waits for a worker</strong>, the next one that asks`);
    case "blocked":
      return line("warn", html`<strong>Waits</strong> for an earlier message of its key`);
    case "dead":
      return line("bad", html`<strong>Given up</strong>, after ${message.failures} that failed${when(ended)}`);
    default:
      return line("warn", html`<strong>${STATES[state]?.title ?? state}</strong>${when(ended)}`);
  }
}

/** @type {Record<string, string>} */
const REASONS = { failed: "failed", interrupted: "interrupted", expired: "its worker was lost", released: "handed back" };

/** @param {{value: unknown}} props */
function Progress({ value }) {
  const fraction = typeof value === "number" ? value : typeof value === "object" && value !== null && typeof (/** @type {any} */ (value).fraction) === "number" ? /** @type {any} */ (value).fraction : null;
  return html`${fraction !== null && html`<progress value=${fraction} max="1" aria-label="Progress">${Math.round(fraction * 100)} %</progress>`}
    ${(fraction === null || typeof value === "object") && html`<pre class="code-block" tabindex="0">${pretty(value)}</pre>`}`;
}
