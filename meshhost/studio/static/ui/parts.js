/**
 * Small parts that every page is made of: head, card, badge, time, and the three states in which there is nothing to show
 * (loading, empty, failed). An empty or failed state says what to do next.
 */
import { ApiError, UnreachableError } from "../app/api.js";
import { duration, fullTime, relativeTime } from "./format.js";
import { Icon } from "./icons.js";
import { html, signal, useEffect, useRef, useSignal, useState } from "./preact.js";

/** @typedef {import("../vendor/preact.js").ComponentChildren} Children */

/** Seconds since 1970, renewed while the page is visible: relative times read it. */
const now = signal(Date.now() / 1000);
setInterval(() => {
  if (!document.hidden) now.value = Date.now() / 1000;
}, 5000);

/**
 * The title of a page. It takes the focus after navigation, so that a screen reader says where one is.
 * @param {{title: string, children?: Children, badge?: Children}} props
 */
export function PageHead({ title, children, badge }) {
  const heading = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    document.title = `${title} · meshhost Studio`;
    const active = document.activeElement;
    if (!active || active === document.body || active.closest(".sidebar, .palette, .crumbs")) {
      heading.current?.focus({ preventScroll: true });
    }
  }, [title]);
  return html`<header class="page-head">
    <h1 ref=${heading} tabindex="-1">${title}</h1>
    ${badge}
    <div class="actions buttons">${children}</div>
  </header>`;
}

/** @param {{title?: Children, actions?: Children, children?: Children, padded?: boolean, label?: string}} props */
export function Card({ title, actions, children, padded = false, label }) {
  return html`<section class="card" aria-label=${label ?? (typeof title === "string" ? title : undefined)}>
    ${title && html`<div class="card-head"><h2>${title}</h2><div class="actions buttons">${actions}</div></div>`}
    ${padded ? html`<div class="card-body">${children}</div>` : children}
  </section>`;
}

/** @param {{tone?: "ok" | "warn" | "bad" | "info", children?: Children}} props */
export function Badge({ tone, children }) {
  return html`<span class="badge" data-tone=${tone}>${children}</span>`;
}

/** A time as a distance from now, with the whole time behind it. @param {{at: number | null | undefined}} props */
export function Time({ at }) {
  useSignal(now);
  if (at === null || at === undefined) return html`<span class="muted">–</span>`;
  return html`<time datetime=${new Date(at * 1000).toISOString()} title=${fullTime(at)}>${relativeTime(at)}</time>`;
}

/** How long until something happens, second by second. @param {{until: number}} props */
export function Countdown({ until }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => !document.hidden && tick((before) => before + 1), 1000);
    return () => clearInterval(timer);
  }, []);
  const left = until - Date.now() / 1000;
  return html`<time datetime=${new Date(until * 1000).toISOString()} title=${fullTime(until)}>${left > 0.5 ? `in ${duration(Math.max(1, Math.round(left)))}` : "any moment"}</time>`;
}

/** How long something lasts already, growing. @param {{since: number | null | undefined}} props */
export function Age({ since }) {
  useSignal(now);
  return since === null || since === undefined ? html`<span class="zero">–</span>` : duration(Math.max(0, Date.now() / 1000 - since));
}

/** @param {{entries: {label: string, value: Children, tone?: "bad" | "warn" | null}[]}} props */
export function Stats({ entries }) {
  return html`<dl class="stats">
    ${entries.map(
      ({ label, value, tone }) => html`<div class="stat" data-tone=${tone}><dt>${label}</dt><dd>${value}</dd></div>`,
    )}
  </dl>`;
}

/** Terms and what they are here; an entry of null is left out. @param {{entries: ([string, Children] | null | false)[]}} props */
export function Facts({ entries }) {
  return html`<dl class="facts">
    ${entries.map((entry) => entry && html`<dt>${entry[0]}</dt><dd>${entry[1]}</dd>`)}
  </dl>`;
}

/** @param {{what?: string}} props */
export function Loading({ what = "Loading" }) {
  return html`<p class="loading" role="status">${what}…</p>`;
}

/** @param {{title: string, children?: Children, actions?: Children}} props */
export function Empty({ title, children, actions }) {
  return html`<div class="empty">
    <h2>${title}</h2>
    ${children && html`<p>${children}</p>`}
    ${actions && html`<div class="buttons">${actions}</div>`}
  </div>`;
}

/** Why something can't be shown, and what to do. @param {{error: Error, retry?: () => void}} props */
export function Failed({ error, retry }) {
  const { title, advice } = explained(error);
  return html`<div class="empty" role="alert">
    <h2>${title}</h2>
    <p>${advice}</p>
    ${retry && html`<div class="buttons"><button class="button" onClick=${retry}><${Icon} name="retry" />Try again</button></div>`}
  </div>`;
}

/** @param {Error} error */
function explained(error) {
  if (error instanceof UnreachableError) {
    return { title: "The server can't be reached", advice: "Studio keeps trying, and shows this page when it is back." };
  }
  if (error instanceof ApiError) {
    if (error.status === 404) return { title: "Not found", advice: error.message };
    if (error.status === 403) return { title: "Not permitted", advice: `${error.message}. Ask an admin of your tenant for a key with a wider role.` };
    if (error.status === 429) return { title: "Too many requests", advice: error.message };
    return { title: "The server refused this", advice: error.message };
  }
  // By their names, as the protocol's modules come with the pages that join rooms.
  if (error.name === "RoomError") return { title: "The room refused this", advice: error.message };
  if (error.name === "ConnectionLostError") return { title: "The connection to the room was lost", advice: "Studio joins it again by itself." };
  if (/dynamically imported module|Importing a module|error loading/i.test(error.message)) {
    return { title: "Studio was updated", advice: "Reload this page to get the version that the server has now." };
  }
  return { title: "This page failed", advice: `${error.message}. Reload the page; if it stays, report it.` };
}

/**
 * The resource's state, or what `children` makes of its data. Old data stays in view when a later reading fails.
 * @template T
 * @param {{of: import("../app/live.js").Resource<T>, what?: string, children: (data: T) => Children}} props
 */
export function Loaded({ of, what, children }) {
  if (of.data !== undefined) return children(of.data);
  if (of.error) return html`<${Failed} error=${of.error} retry=${of.refresh} />`;
  return html`<${Loading} what=${what} />`;
}
