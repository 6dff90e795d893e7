/**
 * The command palette: type to find a page, a room, a queue or anything that the server's search knows, and go there.
 *
 * It is a combobox: the focus stays in the text field, arrows move the choice, Enter goes. What is here at once are sections;
 * rooms, queues, agents, messages and files come from `GET /search` a moment after one stopped typing.
 */
import { Icon } from "../ui/icons.js";
import { html, signal, useEffect, useId, useRef, useSignal, useState } from "../ui/preact.js";
import { get, query } from "./api.js";
import { useResource, useSettled } from "./live.js";
import { go, here, matched, to } from "./router.js";
import { ROOM_SECTIONS, SITE_SECTIONS } from "./sections.js";
import { may, session } from "./store.js";

const isOpen = signal(false);
const PAUSE_MS = 160;

export const openPalette = () => {
  isOpen.value = true;
};

/** @typedef {{title: string, kind: string, address: string}} Target */

export function Palette() {
  return useSignal(isOpen) ? html`<${OpenPalette} onClose=${() => (isOpen.value = false)} />` : null;
}

/** @param {{onClose: () => void}} props */
function OpenPalette({ onClose }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const [text, setText] = useState("");
  const [chosen, setChosen] = useState(0);
  const list = useId();
  useEffect(() => dialog.current?.showModal(), []);
  const wanted = text.trim();
  const asked = useSettled(wanted, PAUSE_MS);
  const answer = useResource(async (signal) => (asked ? (await get(`/search${query({ q: asked, limit: 20 })}`, signal)).found.map(target).filter(Boolean) : []), [asked]);
  const isAnswered = asked === wanted && !answer.isLoading;
  const found = /** @type {Target[]} */ ((isAnswered && answer.data) || []);
  const state = !wanted ? "" : !isAnswered ? "Searching…" : answer.error ? `The search failed: ${answer.error.message}` : "";
  const targets = [...sections(text), ...found];
  const index = Math.min(chosen, targets.length - 1);
  const leave = (/** @type {Target | undefined} */ where) => {
    if (!where) return;
    onClose();
    go(where.address);
  };
  /** @param {KeyboardEvent} event */
  const onKeyDown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && targets.length) setChosen((index + step + targets.length) % targets.length);
    else if (event.key === "Enter") leave(targets[index]);
    else return;
    event.preventDefault();
  };
  useEffect(() => {
    document.getElementById(`${list}-${index}`)?.scrollIntoView({ block: "nearest" });
  }, [index]);
  return html`<dialog ref=${dialog} class="palette" aria-label="Search and go to" onClose=${onClose}
    onMouseDown=${(/** @type {Event} */ event) => event.target === dialog.current && onClose()}>
    <input role="combobox" aria-expanded="true" aria-controls=${list} aria-autocomplete="list" autofocus spellcheck=${false}
      aria-activedescendant=${targets.length ? `${list}-${index}` : undefined} aria-label="Search rooms, queues, agents, messages, files"
      placeholder="Search rooms, queues, agents, messages, files" autocomplete="off" value=${text} onKeyDown=${onKeyDown}
      onInput=${(/** @type {any} */ event) => {
        setText(event.target.value);
        setChosen(0);
      }} />
    <ul id=${list} role="listbox" aria-label="Found">
      ${targets.map(
        (each, place) => html`<li id=${`${list}-${place}`} role="option" aria-selected=${place === index ? "true" : "false"}
          onClick=${() => leave(each)} onMouseMove=${() => place !== index && setChosen(place)}>
          <span class="clip">${each.title}</span><span class="kind">${each.kind}</span></li>`,
      )}
    </ul>
    ${(state || !targets.length) && html`<p class="loading" role="status">${state || "Nothing of that name. Try the beginning of a name, or a message's id."}</p>`}
  </dialog>`;
}

/** @param {string} text @returns {Target[]} */
function sections(text) {
  const wanted = text.trim().toLowerCase();
  const room = matched("/rooms/:room/*", here.peek().path)?.room;
  const all = [
    ...(room
      ? ROOM_SECTIONS.filter(({ needs }) => may(needs)).map(({ name, title }) => ({
          title: `${title} of ${room}`,
          kind: "page",
          address: name ? to`/rooms/${room}/${name}` : to`/rooms/${room}`,
        }))
      : []),
    ...SITE_SECTIONS.filter(({ shown }) => shown(session.peek())).map(({ path, title }) => ({ title, kind: "page", address: `/studio${path}` })),
  ];
  return all.filter(({ title }) => title.toLowerCase().includes(wanted));
}

/**
 * Where something that was found is shown, or null.
 * @param {{kind: string, tenant?: string, room?: string, name: string, queue?: string, id?: string}} each
 * @returns {Target | null}
 */
function target({ kind, room, name, queue, id }) {
  const isThere = (/** @type {string} */ section) => ROOM_SECTIONS.some((known) => known.name === section && may(known.needs));
  const title = room && kind !== "room" ? `${name} · ${room}` : name;
  if (kind === "tenant") return { title, kind, address: to`/tenants/${name}` };
  if (!room) return null;
  if (kind === "queue" && isThere("queues")) return { title, kind, address: to`/rooms/${room}/queues/${name}` };
  if (kind === "message" && isThere("queues") && queue && id) return { title, kind, address: to`/rooms/${room}/queues/${queue}/${id}` };
  if (kind === "file" && isThere("files")) return { title, kind, address: `${to`/rooms/${room}/files`}/${name.split("/").map(encodeURIComponent).join("/")}` };
  if (kind === "schedule" && isThere("schedules")) return { title, kind, address: to`/rooms/${room}/schedules` };
  return { title, kind, address: to`/rooms/${room}` };
}
