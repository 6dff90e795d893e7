/**
 * The messages of a queue, newest first: filtered and searched by the server, loaded as one scrolls, rendered as far as seen.
 *
 * The first page is read again every few seconds while it is the only one, so that what comes is seen; who has scrolled on gets a
 * button instead, as rows must not jump. What is filtered is part of the address, so that it can be sent to somebody.
 */
import { at } from "../../app/api.js";
import { useSettled } from "../../app/live.js";
import { usePages } from "../../app/paging.js";
import { here, setQuery, to } from "../../app/router.js";
import { may } from "../../app/store.js";
import { Field } from "../../ui/field.js";
import { duration, lastLine, oneLine } from "../../ui/format.js";
import { Icon } from "../../ui/icons.js";
import { Card, Empty, Failed, Loading, Time } from "../../ui/parts.js";
import { html, useEffect, useSignal, useState } from "../../ui/preact.js";
import { VirtualList } from "../../ui/virtual.js";
import { BulkDialog } from "./bulk.js";
import { isEmptied, StateBadge, STATES } from "./states.js";

const PAGE = 100;
const EVERY_MS = 4000;
const PAUSE_MS = 300;

/**
 * @typedef {{id: string, state: import("./states.js").State, sent_at: number, priority: number, key: string | null, failures: number,
 *   deliveries: number, due_at: number | null, expires_at: number | null, began_at: number | null, by: string | null,
 *   lease_until: number | null, progress: unknown, result: unknown, ended_at: number | null, reason: string | null,
 *   cancelling: boolean, seen: string, message?: unknown, headers?: Record<string, string>,
 *   history?: {began_at: number, ended_at: number, by: string, reason: string, error: string}[]}} Message
 */

/**
 * @param {{room: string, queue: string, changes: number, counts?: Partial<Record<string, number>>}} props `changes` grows when the
 * list has to be read anew; `counts` says how many there are of the states that are counted
 */
export function Messages({ room, queue, changes, counts = {} }) {
  const { search } = useSignal(here);
  const filter = new URLSearchParams(search);
  const states = filter.getAll("state").flatMap((each) => each.split(",")).filter(Boolean);
  const text = filter.get("text") ?? "";
  const key = filter.get("key") ?? "";
  const path = at`/rooms/${room}/queues/${queue}/messages`;
  const wanted = { state: states, text, key };
  /** @type {ReturnType<typeof usePages<Message>>} */
  const { rows, next, error, isFirst, first, load, newest } = usePages(path, wanted, { member: "messages", limit: PAGE, every: EVERY_MS });
  useEffect(() => {
    if (changes) newest();
  }, [changes]);
  const [bulk, setBulk] = useState(/** @type {"replay" | "cancel" | null} */ (null));
  const isFiltered = states.length > 0 || text !== "" || key !== "";
  return html`<${Card} label="Messages" title="Messages" actions=${html`
      ${!isFirst && html`<button class="button quiet" onClick=${newest}><${Icon} name="retry" />Back to the newest</button>`}
      ${may("developer") && states.includes("dead") && html`<button class="button" disabled=${!rows.length} onClick=${() => setBulk("replay")}><${Icon} name="retry" />Replay all found</button>`}
      ${may("developer") && isFiltered && !states.includes("dead") && html`<button class="button" disabled=${!rows.length} onClick=${() => setBulk("cancel")}>Cancel all found</button>`}`}>
    <div class="card-body"><${Filters} states=${states} text=${text} textKey=${key} counts=${counts} /></div>
    ${first.data
      ? rows.length
        ? html`<${VirtualList} label="Messages, newest first" rows=${rows} rowKey=${(/** @type {Message} */ message) => message.id} onEnd=${load}
            total=${next ? null : rows.length} rowHeight=${52} row=${(/** @type {Message} */ message) => html`<${Row} room=${room} queue=${queue} message=${message} />`} />
            ${error && html`<p class="note" data-tone="bad" role="alert">Older messages could not be loaded: ${error.message} <button class="button" onClick=${load}>Try again</button></p>`}`
        : html`<${Empty} title=${isFiltered ? "Nothing found" : "No messages"}>${isFiltered ? "No message of this queue fits. Remove a filter." : "The queue is empty. What was done is kept for its result's time, what is dead until it is replayed or purged."}</${Empty}>`
      : first.error
        ? html`<${Failed} error=${first.error} retry=${first.refresh} />`
        : html`<${Loading} what="Loading messages" />`}
    ${bulk && html`<${BulkDialog} kind=${bulk} path=${path} filter=${wanted} room=${room} queue=${queue} onClose=${() => { setBulk(null); newest(); }} />`}
  </${Card}>`;
}

/** @param {{states: string[], text: string, textKey: string, counts: Partial<Record<string, number>>}} props */
function Filters({ states, text, textKey, counts }) {
  const [words, setWords] = useState(text);
  const [key, setKey] = useState(textKey);
  const [settledWords, settledKey] = [useSettled(words.trim(), PAUSE_MS), useSettled(key.trim(), PAUSE_MS)];
  useEffect(() => setQuery({ text: settledWords, key: settledKey }), [settledWords, settledKey]);
  const toggle = (/** @type {string} */ state) => {
    const chosen = states.includes(state) ? states.filter((each) => each !== state) : [...states, state];
    setQuery({ state: chosen.join(",") });
  };
  return html`<div class="form">
    <div class="chips" role="group" aria-label="States">
      ${Object.entries(STATES).map(
        ([state, { title }]) => html`<button class="chip" aria-pressed=${states.includes(state)} onClick=${() => toggle(state)}>${title}${counts[state] !== undefined && html` <span class="count">${counts[state]?.toLocaleString()}</span>`}</button>`,
      )}
    </div>
    <div class="filters">
      ${may("developer") &&
      html`<${Field} label="Contains the text" grow=${true}>
        ${(/** @type {object} */ attributes) => html`<input type="search" ...${attributes} value=${words} onInput=${(/** @type {any} */ event) => setWords(event.target.value)} />`}
      </${Field}>`}
      <${Field} label="Has the key">
        ${(/** @type {object} */ attributes) => html`<input type="search" ...${attributes} value=${key} onInput=${(/** @type {any} */ event) => setKey(event.target.value)} />`}
      </${Field}>
    </div>
  </div>`;
}

/** @param {{room: string, queue: string, message: Message}} props */
function Row({ room, queue, message }) {
  const when = message.ended_at ?? message.began_at ?? message.sent_at;
  return html`<a class="message-row" href=${to`/rooms/${room}/queues/${queue}/${message.id}`}>
    <span class="mono id">${message.id}</span>
    <${StateBadge} state=${message.state} />
    <span class="clip what">${message.reason && message.state !== "done" ? html`<span class="bad-text">${oneLine(lastLine(message.reason))}</span>` : message.message === undefined ? html`<span class="muted">contents are for developers</span>` : isEmptied(message) ? html`<span class="muted">${message.result === null ? "contents are not kept" : `result: ${oneLine(message.result)}`}</span>` : oneLine(message.message)}</span>
    <span class="muted small attempt">${message.failures ? `${message.failures} failed` : message.ended_at && message.began_at ? duration(message.ended_at - message.began_at) : ""}</span>
    <span class="muted small when"><${Time} at=${when} /></span>
  </a>`;
}
