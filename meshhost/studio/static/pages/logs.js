/**
 * The log of a room as it grows: what the server notes about the room, and what its participants write.
 *
 * New lines come with `GET /rooms/{room}/log?after=…` every second or so while somebody looks. Level, agent and text filter on the
 * server, so that what is kept there is searched, not only what is here. The view follows the end unless one scrolled up.
 */
import { at, get, query } from "../app/api.js";
import { useSignal, html, useEffect, useRef, useState } from "../ui/preact.js";
import { here } from "../app/router.js";
import { epoch } from "../app/store.js";
import { SelectField, TextField } from "../ui/field.js";
import { clockTime, fullTime } from "../ui/format.js";
import { Empty, Failed, Loading, PageHead } from "../ui/parts.js";

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
  const { lines, error, isLoading } = useLines(room, level, agent, text);
  return html`<${PageHead} title=${`Log of ${room}`} />
    <div class="filters">
      <${SelectField} label="At least" value=${level} onChange=${setLevel} options=${["INFO", "WARNING", "ERROR"]} />
      <${TextField} label="Whole name of an agent" value=${agent} onInput=${setAgent} />
      <${TextField} label="Contains" value=${text} onInput=${setText} grow=${true} />
    </div>
    <section class="card" aria-label="Log">
      ${error ? html`<${Failed} error=${error} />` : isLoading ? html`<${Loading} what="Loading the log" />` : lines.length ? html`<${Lines} lines=${lines} />` : html`<${Empty} title="No lines">What happens in the room is seen here from now on. The server keeps the last lines in memory.</${Empty}>`}
    </section>`;
}

/** @param {string} room @param {string} level @param {string} agent @param {string} text */
function useLines(room, level, agent, text) {
  const [state, setState] = useState(/** @type {{lines: Line[], error: Error | null, isLoading: boolean}} */ ({ lines: [], error: null, isLoading: true }));
  const current = useSignal(epoch);
  useEffect(() => {
    const control = new AbortController();
    /** @type {ReturnType<typeof setTimeout>} */
    let timer;
    let after = /** @type {number | null} */ (null);
    const read = async () => {
      try {
        const answer = await get(at`/rooms/${room}/log` + query({ level, agent: agent.trim(), text: text.trim(), after, limit: 500 }), control.signal);
        const isFirst = after === null;
        after = answer.next;
        if (isFirst || answer.lines.length) setState((before) => ({ lines: [...(isFirst ? [] : before.lines), ...answer.lines].slice(-MOST_LINES), error: null, isLoading: false }));
      } catch (error) {
        if (control.signal.aborted) return;
        if (/** @type {any} */ (error).status) return setState({ lines: [], error: /** @type {Error} */ (error), isLoading: false });
      }
      return wait(EVERY_MS);
    };
    const wait = (/** @type {number} */ delay) => {
      if (control.signal.aborted) return;
      timer = setTimeout(() => (document.hidden ? wait(EVERY_MS) : void read()), delay);
    };
    wait(text || agent ? PAUSE_MS : 0);
    return () => {
      control.abort();
      clearTimeout(timer);
    };
  }, [room, level, agent, text, current]);
  return state;
}

/** @param {{lines: Line[]}} props */
function Lines({ lines }) {
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
          <span class="text">${text}${Object.entries(fields).map(([name, value]) => html` <span class="muted">${name}=${typeof value === "string" ? value : JSON.stringify(value)}</span>`)}</span>
        </li>`,
      )}
    </ol>
  </div>`;
}
