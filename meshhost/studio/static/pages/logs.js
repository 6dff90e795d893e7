/**
 * The log of a room as it grows: what the server notes about the room, what its participants write, and what agents log while they
 * work on messages; of one message alone on its page (`work/message-log.js`).
 *
 * New lines come with `GET /rooms/{room}/log?after=…` every second or so while somebody looks. Level, agent and text filter on the
 * server, so that what is kept there is searched, not only what is here. The view follows the end unless one scrolled up.
 */
import { at, get, query } from "../app/api.js";
import { useResource, useSettled } from "../app/live.js";
import { here } from "../app/router.js";
import { epoch } from "../app/store.js";
import { SelectField, TextField } from "../ui/field.js";
import { clockTime, fullTime } from "../ui/format.js";
import { Empty, Loaded, PageHead } from "../ui/parts.js";
import { html, useEffect, useRef, useSignal, useState } from "../ui/preact.js";

const EVERY_MS = 1200;
const MOST_LINES = 2000;
const NEAR_PX = 60;
const PAUSE_MS = 300;

/** @typedef {{n: number, at: number, level: string, agent: string, text: string, fields: Record<string, unknown>}} Line */

/** @param {{room: string}} props */
export default function Logs({ room }) {
  const [level, setLevel] = useState("INFO");
  const asked = new URLSearchParams(here.peek().search);
  const [agent, setAgent] = useState(asked.get("agent") ?? "");
  const [text, setText] = useState(asked.get("text") ?? "");
  const log = useLines(room, { level, agent: useSettled(agent.trim(), PAUSE_MS), text: useSettled(text.trim(), PAUSE_MS) }, EVERY_MS);
  return html`<${PageHead} title=${`Log of ${room}`} />
    <div class="filters">
      <${SelectField} label="At least" value=${level} onChange=${setLevel} options=${["INFO", "WARNING", "ERROR"]} />
      <${TextField} label="Whole name of an agent" value=${agent} onInput=${setAgent} />
      <${TextField} label="Contains" value=${text} onInput=${setText} grow=${true} />
    </div>
    <section class="card" aria-label="Log">
      <${Loaded} of=${log} what="Loading the log">
        ${(/** @type {Line[]} */ lines) => (lines.length ? html`<${Lines} lines=${lines} />` : html`<${Empty} title="No lines">What happens in the room is seen here from now on. The server keeps the last lines in memory.</${Empty}>`)}
      </${Loaded}>
    </section>`;
}

/**
 * The lines so far that fit the filter. Each reading asks for what came after the one before, unless the server was away meanwhile.
 * @param {string} room @param {{level: string, agent?: string, text?: string, queue?: string, message?: string}} filter
 * @param {number | undefined} every milliseconds; undefined: once
 * @returns {import("../app/live.js").Resource<Line[]>}
 */
export function useLines(room, filter, every) {
  const current = useSignal(epoch);
  const path = at`/rooms/${room}/log`;
  const key = `${path}${query(filter)} ${current}`;
  const kept = useRef({ key: "", after: /** @type {number | null} */ (null), lines: /** @type {Line[]} */ ([]) });
  const read = async (/** @type {AbortSignal} */ signal) => {
    const before = kept.current.key === key ? kept.current : { after: null, lines: [] };
    const answer = await get(path + query({ ...filter, after: before.after, limit: 500 }), signal);
    const lines = answer.lines.length ? [...before.lines, ...answer.lines].slice(-MOST_LINES) : before.lines;
    kept.current = { key, after: answer.next, lines };
    return lines;
  };
  return useResource(read, [path, filter], { every });
}

/**
 * Texts are set apart from each other (`bdi`): one with marks that turn its direction around turns nothing but itself.
 * @param {{lines: Line[], without?: string[]}} props `without`: fields that are not shown
 */
export function Lines({ lines, without = [] }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const follows = useRef(true);
  useEffect(() => {
    const element = box.current;
    if (element && follows.current) element.scrollTop = element.scrollHeight;
  }, [lines]);
  const onScroll = () => {
    const element = box.current;
    if (element) follows.current = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_PX;
  };
  return html`<div class="log" ref=${box} onScroll=${onScroll} role="log" aria-label="Lines" tabindex="0">
    <ol>
      ${lines.map(
        ({ n, at: time, level, agent, text, fields }) => html`<li key=${n} data-level=${level}>
          <time title=${fullTime(time)} datetime=${new Date(time * 1000).toISOString()}>${clockTime(time)}</time>
          <span class="level">${level}</span><span class="agent">${agent}</span>
          <span class="text"><bdi>${text}</bdi>${Object.entries(fields).filter(([name]) => !without.includes(name)).map(([name, value]) => html` <bdi class="muted">${name}=${typeof value === "string" ? value : JSON.stringify(value)}</bdi>`)}</span>
        </li>`,
      )}
    </ol>
  </div>`;
}
