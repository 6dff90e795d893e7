/**
 * A trace as a waterfall: its spans as a tree, each with a bar where it lies in the time of the whole, and what is known of the one
 * that was chosen. Spans come from programs: names and attributes are texts, and one whose parent is not there stands at the top.
 *
 * Rows are buttons of a virtual list, whose arrow keys move between them; Enter chooses one, Left and Right close and open what is
 * below it.
 */
import { to } from "../../app/router.js";
import { may } from "../../app/store.js";
import { duration, fullTime } from "../../ui/format.js";
import { Icon } from "../../ui/icons.js";
import { Badge, Facts } from "../../ui/parts.js";
import { html, useMemo, useState } from "../../ui/preact.js";
import { VirtualList } from "../../ui/virtual.js";

/**
 * @typedef {{id: string, parent: string, name: string, begin: number, seconds: number, error?: string, agent?: string,
 *   attributes?: Record<string, string | number | boolean>}} Span
 * @typedef {{span: Span, depth: number, below: number}} Row `below`: how many rows that follow hang below this one
 */

const ROW_HEIGHT = 32;
const DEEPEST = 12;
const LEAST_PERCENT = 0.4;
const TICKS = [0, 0.25, 0.5, 0.75];
/** What a span shows beside its name. */
const TOLD = ["tool.name", "llm.model", "gen_ai.request.model"];

/** The spans in the order in which they are shown. @param {Span[]} spans @returns {Row[]} */
export function arranged(spans) {
  const ids = new Set(spans.map((span) => span.id));
  /** @type {Map<string, Span[]>} */
  const children = new Map();
  for (const span of spans) {
    const parent = ids.has(span.parent) ? span.parent : "";
    children.set(parent, [...(children.get(parent) ?? []), span]);
  }
  /** @type {Row[]} */
  const rows = [];
  const seen = new Set();
  // After those at the top, those that are their own ancestors.
  for (const top of [...(children.get("") ?? []), ...spans]) {
    const stack = [{ span: top, depth: 0 }];
    for (let next = stack.pop(); next; next = stack.pop()) {
      const { span, depth } = next;
      if (seen.has(span.id)) continue;
      seen.add(span.id);
      rows.push({ span, depth, below: 0 });
      for (const child of [...(children.get(span.id) ?? [])].reverse()) stack.push({ span: child, depth: depth + 1 });
    }
  }
  return counted(rows);
}

/** With how many rows hang below each. @param {Row[]} rows */
function counted(rows) {
  /** @type {number[]} */
  const open = [];
  for (let index = 0; index <= rows.length; index += 1) {
    while (open.length && (index === rows.length || rows[open[open.length - 1]].depth >= rows[index].depth)) {
      const ended = /** @type {number} */ (open.pop());
      rows[ended].below = index - ended - 1;
    }
    open.push(index);
  }
  return rows;
}

/** Without what hangs below the closed ones. @param {Row[]} rows @param {ReadonlySet<string>} closed */
export function opened(rows, closed) {
  /** @type {Row[]} */
  const shown = [];
  for (let index = 0; index < rows.length; index += 1) {
    shown.push(rows[index]);
    if (closed.has(rows[index].span.id)) index += rows[index].below;
  }
  return shown;
}

/** From when to when. @param {Span[]} spans */
export function extent(spans) {
  const begin = Math.min(...spans.map((span) => span.begin));
  return { begin, seconds: Math.max(...spans.map((span) => span.begin + span.seconds)) - begin };
}

/** @param {{room: string, spans: Span[]}} props */
export function Waterfall({ room, spans }) {
  const rows = useMemo(() => arranged(spans), [spans]);
  const whole = useMemo(() => extent(spans), [spans]);
  const [closed, setClosed] = useState(/** @type {ReadonlySet<string>} */ (new Set()));
  const [chosen, setChosen] = useState("");
  const toggle = (/** @type {string} */ id, /** @type {boolean} */ close) => setClosed((before) => {
    const after = new Set(before);
    if (close) after.add(id);
    else after.delete(id);
    return after;
  });
  const span = spans.find((each) => each.id === chosen);
  return html`<div class="span-axis" aria-hidden="true">
      <span></span><span class="ticks">${TICKS.map((tick) => html`<span>${duration(whole.seconds * tick)}</span>`)}</span><span>${duration(whole.seconds)}</span>
    </div>
    <${VirtualList} label="Spans" rows=${opened(rows, closed)} rowKey=${(/** @type {Row} */ row) => row.span.id} total=${rows.length} rowHeight=${ROW_HEIGHT}
      row=${(/** @type {Row} */ row) => html`<${SpanRow} row=${row} whole=${whole} isClosed=${closed.has(row.span.id)} isChosen=${row.span.id === chosen} toggle=${toggle}
        choose=${() => setChosen(row.span.id === chosen ? "" : row.span.id)} />`} />
    ${span && html`<${Chosen} room=${room} span=${span} whole=${whole} />`}`;
}

/**
 * @param {{row: Row, whole: {begin: number, seconds: number}, isClosed: boolean, isChosen: boolean, choose: () => void,
 *   toggle: (id: string, close: boolean) => void}} props
 */
function SpanRow({ row: { span, depth, below }, whole, isClosed, isChosen, choose, toggle }) {
  const onKeyDown = (/** @type {KeyboardEvent} */ event) => {
    if (!below || (event.key !== "ArrowLeft" && event.key !== "ArrowRight")) return;
    event.preventDefault();
    toggle(span.id, event.key === "ArrowLeft");
  };
  const left = whole.seconds > 0 ? ((span.begin - whole.begin) / whole.seconds) * 100 : 0;
  const width = whole.seconds > 0 ? Math.max((span.seconds / whole.seconds) * 100, LEAST_PERCENT) : 100;
  const told = TOLD.map((name) => span.attributes?.[name]).find((value) => value !== undefined);
  const tone = span.error ? "bad" : span.agent ? "info" : undefined;
  const label = `${span.error ? "failed: " : ""}${span.name}${told === undefined ? "" : ` ${told}`}, ${duration(span.seconds)}`;
  return html`<button class="span-row" aria-label=${label} aria-pressed=${isChosen} aria-expanded=${below ? !isClosed : undefined} onClick=${choose} onKeyDown=${onKeyDown}>
    <span class="span-name" style=${{ paddingLeft: `${Math.min(depth, DEEPEST) * 14}px` }}>
      <span class="fold" aria-hidden="true" data-shown=${below > 0} onClick=${(/** @type {Event} */ event) => {
        if (!below) return;
        event.stopPropagation();
        toggle(span.id, !isClosed);
      }}>${isClosed ? "▸" : "▾"}</span>
      ${span.error && html`<span class="bad-text"><${Icon} name="warning" /></span>`}
      <span class="clip">${span.name}${told !== undefined && html` <span class="muted">${String(told)}</span>`}${isClosed && html` <span class="muted">+${below}</span>`}</span>
    </span>
    <svg class="span-bar" aria-hidden="true" data-tone=${tone}><rect x=${`${Math.min(left, 100 - LEAST_PERCENT)}%`} y="25%" height="50%" rx="2" width=${`${Math.min(width, 100)}%`} /></svg>
    <span class="small span-time">${duration(span.seconds)}</span>
  </button>`;
}

/** @param {{room: string, span: Span, whole: {begin: number}}} props */
function Chosen({ room, span, whole }) {
  const { "messaging.destination.name": queue, "messaging.message.id": message } = span.attributes ?? {};
  return html`<section class="card-body span-facts" aria-label=${`Span ${span.name}`}>
    <h3>${span.name} ${span.error && html`<${Badge} tone="bad">failed</${Badge}>`}</h3>
    ${span.error && html`<p class="bad-text wrap">${span.error}</p>`}
    <${Facts} entries=${[
      ["Took", `${duration(span.seconds)}, from ${duration(span.begin - whole.begin)} after the beginning`],
      ["Began", fullTime(span.begin)],
      span.agent && ["Noted by", html`<code>${span.agent}</code>${may("developer") && html` · <a href=${`${to`/rooms/${room}/logs`}?agent=${encodeURIComponent(span.agent)}`}>its log</a>`}`],
      queue !== undefined && message !== undefined && ["Message", html`<a href=${to`/rooms/${room}/queues/${String(queue)}/${String(message)}`}>${message} of ${queue}</a>`],
      ...Object.entries(span.attributes ?? {}).map(([name, value]) => /** @type {[string, any]} */ ([/** @type {any} */ (html`<code>${name}</code>`), html`<code class="wrap">${String(value)}</code>`])),
    ]} />
  </section>`;
}
