/**
 * Addresses: which page a path means, and how one gets there.
 *
 * Links are ordinary `<a href="/studio/…">`: one listener takes clicks on them, so that opening in a new tab, copying and the
 * back button work as everywhere. A route is a pattern with named parts; `*` at the end takes the rest. Pages are loaded when
 * they are first shown.
 */
import { signal } from "../ui/preact.js";

const BASE = "/studio";

/** The path below /studio, beginning with a slash, and the query. */
export const here = signal(read());

function read() {
  const path = location.pathname.startsWith(BASE) ? location.pathname.slice(BASE.length) : "";
  return { path: path || "/", search: location.search };
}

/** Follow links and the back button. Call it once. */
export function startRouter() {
  addEventListener("popstate", () => {
    here.value = read();
  });
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = /** @type {HTMLAnchorElement | null} */ (
      event.target instanceof Element ? event.target.closest("a[href]") : null
    );
    if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    if (link.pathname !== BASE && !link.pathname.startsWith(`${BASE}/`)) return;
    if (link.pathname.startsWith(`${BASE}/api/`)) return; // answered by the server: the sign-in at a provider begins there
    event.preventDefault();
    go(link.pathname + link.search);
  });
}

/** @param {string} address beginning with /studio @param {{replace?: boolean}} [options] */
export function go(address, { replace = false } = {}) {
  if (address === location.pathname + location.search) return;
  const samePage = address.split("?")[0] === location.pathname;
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  here.value = read();
  if (!samePage) scrollTo(0, 0);
}

/** Change members of the query of this page, without a new entry in the history. @param {Record<string, string | null>} members */
export function setQuery(members) {
  const search = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(members)) {
    if (value === null || value === "") search.delete(name);
    else search.set(name, value);
  }
  const text = search.toString();
  go(location.pathname + (text ? `?${text}` : ""), { replace: true });
}

/**
 * The named parts of a path, or null when the pattern does not fit.
 * @param {string} pattern such as `/rooms/:room/files/*`
 * @param {string} path
 * @returns {Record<string, string> | null}
 */
export function matched(pattern, path) {
  const wanted = pattern.split("/").filter(Boolean);
  const parts = path.split("/").filter(Boolean);
  /** @type {Record<string, string>} */
  const found = {};
  for (const [index, name] of wanted.entries()) {
    if (name === "*") {
      found.rest = parts.slice(index).map(decoded).join("/");
      return found;
    }
    if (index >= parts.length) return null;
    if (name.startsWith(":")) found[name.slice(1)] = decoded(parts[index]);
    else if (name !== parts[index]) return null;
  }
  return parts.length === wanted.length ? found : null;
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * An address below /studio with escaped names.
 * @param {TemplateStringsArray} strings @param {...(string | number)} names
 */
export function to(strings, ...names) {
  return BASE + String.raw({ raw: strings }, ...names.map((name) => encodeURIComponent(String(name))));
}
