/** Keys, and the sheet that lists them. They are off while one types, and with a modifier pressed. */
import { Dialog } from "../ui/dialog.js";
import { html, signal, useSignal } from "../ui/preact.js";
import { openPalette } from "./palette.js";
import { go, here, matched, to } from "./router.js";
import { maySeeSection } from "./sections.js";

const isOpen = signal(false);

export const openShortcuts = () => {
  isOpen.value = true;
};

/** What follows `g`: the section of a room, or an address. @type {Record<string, [string, string]>} */
const PLACES = {
  h: ["/", "Home"],
  o: ["", "Overview of the room"],
  q: ["queues", "Queues of the room"],
  f: ["files", "Files of the room"],
  t: ["talk", "Talk in the room"],
  s: ["schedules", "Schedules of the room"],
  k: ["hooks", "Hooks of the room"],
  d: ["documents", "Documents of the room"],
  r: ["traces", "Traces of the room"],
  l: ["logs", "Log of the room"],
};
const SEQUENCE_MS = 1200;
let startedAt = 0;

/** Listen for keys. Call it once. */
export function startShortcuts() {
  addEventListener("keydown", (event) => {
    if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      openPalette();
      return;
    }
    if (event.metaKey || event.ctrlKey || event.altKey || isTyping(event) || document.querySelector("dialog[open]")) return;
    if (Date.now() - startedAt < SEQUENCE_MS && PLACES[event.key]) {
      startedAt = 0;
      visit(PLACES[event.key][0]);
    } else if (event.key === "g") startedAt = Date.now();
    else if (event.key === "/") openPalette();
    else if (event.key === "?") openShortcuts();
    else return;
    event.preventDefault();
  });
}

/** @param {string} place */
function visit(place) {
  if (place === "/") return go("/studio/");
  const room = matched("/rooms/:room/*", here.peek().path)?.room;
  if (!room || !maySeeSection(place)) return undefined;
  return go(place ? to`/rooms/${room}/${place}` : to`/rooms/${room}`);
}

/** @param {KeyboardEvent} event */
function isTyping(event) {
  return event.target instanceof HTMLElement && event.target.closest("input, textarea, select, [contenteditable]") !== null;
}

export function Shortcuts() {
  if (!useSignal(isOpen)) return null;
  const keys = [
    [["/"], "Search, or go to a page"],
    [["Ctrl", "K"], "The same, also while typing"],
    [["?"], "This sheet"],
    [["Esc"], "Close a dialog or the menu"],
    ...Object.entries(PLACES)
      .filter(([, [place]]) => place === "/" || maySeeSection(place))
      .map(([key, [, title]]) => [["g", key], title]),
  ];
  return html`<${Dialog} title="Keyboard" onClose=${() => (isOpen.value = false)}>
    <dl class="facts">
      ${keys.map(
        ([combination, title]) => html`<dt>${/** @type {string[]} */ (combination).map((key) => html`<kbd class="key">${key}</kbd> `)}</dt><dd>${title}</dd>`,
      )}
    </dl>
  </${Dialog}>`;
}
