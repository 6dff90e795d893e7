/**
 * The frame around every page: navigation, where one is, search, theme, sign out, and the bar that says that the server is gone.
 */
import { Dialog } from "../ui/dialog.js";
import { duration } from "../ui/format.js";
import { Icon } from "../ui/icons.js";
import { html, useEffect, useSignal, useState } from "../ui/preact.js";
import { Secret } from "../ui/secret.js";
import { attempt, notify } from "../ui/toast.js";
import { post } from "./api.js";
import { openPalette, Palette } from "./palette.js";
import { here, matched, to } from "./router.js";
import { ROOM_SECTIONS, SITE_SECTIONS } from "./sections.js";
import { signOut } from "./session.js";
import { openShortcuts, Shortcuts } from "./shortcuts.js";
import { may, outage, session } from "./store.js";
import { setTheme, theme } from "./theme.js";

const ICON = new URL("../icon.svg", import.meta.url).href;

/** @param {{children: any}} props */
export function Shell({ children }) {
  const { path } = useSignal(here);
  const [isOpen, setOpen] = useState(false);
  useEffect(() => setOpen(false), [path]);
  useEffect(() => {
    if (!isOpen) return undefined;
    const close = (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && setOpen(false);
    addEventListener("keydown", close);
    return () => removeEventListener("keydown", close);
  }, [isOpen]);
  return html`<a class="skip" href="#main" onClick=${skip}>Skip to the page</a>
    <div class="frame" data-menu=${isOpen ? "open" : "closed"}>
      <${Sidebar} path=${path} />
      <div onClick=${() => isOpen && setOpen(false)}>
        <${Outage} />
        <header class="topbar">
          <button class="button quiet icon-only menu-button" aria-label="Menu" aria-expanded=${isOpen}
            onClick=${(/** @type {Event} */ event) => {
              event.stopPropagation();
              setOpen(!isOpen);
            }}><${Icon} name="menu" /></button>
          <${Crumbs} path=${path} />
          <button class="button search-button" onClick=${openPalette}>
            <${Icon} name="search" /><span class="words">Search or go to…</span><span class="key" aria-hidden="true">/</span>
          </button>
          <${ThemeButton} />
        </header>
        <main id="main" class="page" tabindex="-1">${children}</main>
      </div>
    </div>
    <${Palette} /><${Shortcuts} />`;
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

/** @param {{path: string}} props */
function Sidebar({ path }) {
  const current = useSignal(session);
  const room = matched("/rooms/:room/*", path)?.room;
  const inRoom = room && ROOM_SECTIONS.filter((section) => may(section.needs, current));
  const site = SITE_SECTIONS.filter((section) => section.shown(current));
  return html`<aside class="sidebar" aria-label="Navigation">
    <a class="brand" href="/studio/"><img src=${ICON} alt="" />meshhost</a>
    <nav class="nav" aria-label="Studio">
      ${site.map(
        ({ path: target, title, icon }) => html`<a href=${`/studio${target}`} aria-current=${path === target ? "page" : undefined}>
          <${Icon} name=${icon} />${title}</a>`,
      )}
    </nav>
    ${inRoom &&
    html`<nav class="nav" aria-label=${`Room ${room}`}>
      <h2 title=${room}>Room ${room}</h2>
      ${inRoom.map(({ name, title, icon }) => {
        const target = name ? to`/rooms/${room}/${name}` : to`/rooms/${room}`;
        const isHere = (matched("/rooms/:room/:section/*", path)?.section ?? "") === name;
        return html`<a href=${target} aria-current=${isHere ? "page" : undefined}><${Icon} name=${icon} />${title}</a>`;
      })}
    </nav>`}
    <div class="sidebar-end">
      <p class="muted wrap">${current?.tenant ? current.tenant.name : "Operator"}${current?.tenant && html` · ${current.role}`}</p>
      ${current?.may_link === false ? html`<p class="muted wrap">${current.name}</p>` : html`<${OtherDevice} />`}
      <div class="buttons">
        <button class="button quiet" onClick=${leave}><${Icon} name="out" />Sign out</button>
        <button class="button quiet icon-only" aria-label="Keyboard shortcuts" onClick=${openShortcuts}><span class="key" aria-hidden="true">?</span></button>
      </div>
      <p class="muted">meshhost ${current?.version}</p>
    </div>
  </aside>`;
}

/** A link that signs another browser in once, with the rights that one has here. */
function OtherDevice() {
  const [link, setLink] = useState(/** @type {{url: string, expires_in: number} | null} */ (null));
  const make = async () => setLink((await attempt(() => post("/studio/api/link", {}))) ?? null);
  return html`<div><button class="button quiet" onClick=${make}><${Icon} name="copy" />Another device</button></div>
    ${link &&
    html`<${Dialog} title="Open on another device" onClose=${() => setLink(null)}>
      <p>This link signs one browser in, once, with the rights that you have here. It works for ${duration(link.expires_in)}.</p>
      <${Secret} value=${link.url} what="link" />
      <div class="dialog-foot"><button class="button primary" onClick=${() => setLink(null)}>Done</button></div>
    </${Dialog}>`}`;
}

async function leave() {
  try {
    await signOut();
  } catch {
    notify("Signed out here; the server could not be told.", "bad");
  }
}

/** @param {{path: string}} props */
function Crumbs({ path }) {
  const parts = path.split("/").filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  const named = [...SITE_SECTIONS.map(({ path: target, title }) => [target.slice(1), title]), ["rooms", "Rooms"]];
  const sections = new Map(ROOM_SECTIONS.map(({ name, title }) => [name, title]));
  let target = "/studio";
  const crumbs = parts.map((part, index) => {
    target += `/${encodeURIComponent(part)}`;
    const isSection = index === 2 && parts[0] === "rooms";
    const title = index === 0 ? (named.find(([name]) => name === part)?.[1] ?? part) : isSection ? (sections.get(part) ?? part) : part;
    // Below Talk only whole addresses are pages.
    const isPage = index < 3 || parts[2] === "queues" || parts[2] === "files";
    return { title, target: index === 0 && part === "rooms" ? "/studio/" : isPage ? target : null };
  });
  return html`<nav class="crumbs" aria-label="Where you are">
    <ol>
      ${crumbs.length === 0 && html`<li aria-current="page">Home</li>`}
      ${crumbs.map(({ title, target: address }, index) =>
        index === crumbs.length - 1 || address === null
          ? html`<li aria-current=${index === crumbs.length - 1 ? "page" : undefined}>${title}</li>`
          : html`<li><a href=${address}>${title}</a></li>`,
      )}
    </ol>
  </nav>`;
}

function ThemeButton() {
  const current = useSignal(theme);
  /** @type {Record<string, ["light" | "dark" | "system", "sun" | "moon" | "auto", string]>} */
  const next = {
    system: ["light", "auto", "Theme: as the system. Change to light"],
    light: ["dark", "sun", "Theme: light. Change to dark"],
    dark: ["system", "moon", "Theme: dark. Change to the system's"],
  };
  const [target, icon, label] = next[current] ?? next.system;
  return html`<button class="button quiet icon-only" aria-label=${label} title=${label} onClick=${() => setTheme(target)}>
    <${Icon} name=${icon} /></button>`;
}

/** Says that the server is gone, and when it is asked again. */
function Outage() {
  const gone = useSignal(outage);
  const [, tick] = useState(0);
  useEffect(() => {
    if (!gone) return undefined;
    const timer = setInterval(() => tick((before) => before + 1), 1000);
    return () => clearInterval(timer);
  }, [gone]);
  const seconds = gone ? Math.max(0, Math.ceil((gone.retryAt - Date.now()) / 1000)) : 0;
  return html`<div role="alert">
    ${gone &&
    html`<div class="outage"><span>The server can't be reached. What you see may be out of date.</span>
      <span aria-hidden="true">${seconds ? `Trying again in ${seconds} s` : "Trying again…"}</span></div>`}
  </div>`;
}
