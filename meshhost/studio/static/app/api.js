/**
 * REST of the room server, with the session's cookie.
 *
 * One function asks, and turns everything that can go wrong into one of two errors: `ApiError` for an answer that refuses,
 * `UnreachableError` when no answer came. A 401 ends the session here, so that no page has to know about it; that the server is
 * gone is told to `live.js`, which says so and finds out when it is back. Every request carries the session's CSRF token:
 * another site can make the browser send the cookie, but can't read the token.
 */
import { outage, session } from "./store.js";

/** The server refused. `status` is the HTTP status, the message is the server's text. */
export class ApiError extends Error {
  /** @param {number} status @param {string} text @param {number | null} [retryAfter] seconds */
  constructor(status, text, retryAfter = null) {
    super(text);
    this.name = "ApiError";
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** No answer came. */
export class UnreachableError extends Error {
  constructor() {
    super("The server can't be reached.");
    this.name = "UnreachableError";
  }
}

/** Whether asking again is in vain: it would be refused again. @param {unknown} error */
export const isFinal = (error) => error instanceof ApiError && error.status < 500 && ![408, 429].includes(error.status);

/** Called when a request got no answer; `live.js` sets it. @type {{lost: () => void}} */
export const onLoss = { lost: () => {} };

/**
 * Ask the server. Returns the answer, whatever its status but 401 with a session.
 * @param {string} path
 * @param {{method?: string, body?: unknown, raw?: BodyInit, headers?: Record<string, string>, signal?: AbortSignal}} [options]
 * @returns {Promise<Response>}
 */
export async function send(path, { method = "GET", body, raw, headers = {}, signal } = {}) {
  const all = new Headers(headers);
  const csrf = session.peek()?.csrf;
  if (csrf) all.set("X-Meshhost-Csrf", csrf);
  if (body !== undefined) all.set("Content-Type", "application/json");
  const content = body === undefined ? raw : JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, { method, headers: all, body: content, signal, credentials: "same-origin" });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    onLoss.lost();
    throw new UnreachableError();
  }
  if (outage.peek()) outage.value = null;
  return response;
}

/**
 * Ask the server, and read its JSON. Raises ApiError for every status over 399, UnreachableError.
 * @param {string} path
 * @param {Parameters<typeof send>[1]} [options]
 * @returns {Promise<any>}
 */
export async function ask(path, options) {
  const response = await send(path, options);
  if (!response.ok) throw await refusal(response);
  if (response.status === 204 || response.status === 304) return null;
  return await response.json();
}

/** @param {Response} response */
export async function refusal(response) {
  const text = await response.text().catch(() => "");
  let message = response.statusText || `status ${response.status}`;
  try {
    const { error } = JSON.parse(text);
    if (typeof error === "string") message = error;
    else if (error && typeof error.message === "string") message = error.message;
  } catch {
    // A proxy in between answers in its own words: the status says enough.
  }
  const current = session.peek();
  if (response.status === 401 && current?.role) session.value = { ...current, role: null, csrf: undefined, ended: message };
  const wait = Number(response.headers.get("Retry-After"));
  return new ApiError(response.status, message, Number.isFinite(wait) && wait > 0 ? wait : null);
}

/** @param {string} path @param {AbortSignal} [signal] @returns {Promise<any>} */
export const get = (path, signal) => ask(path, { signal });
/** @param {string} path @param {unknown} [body] @returns {Promise<any>} */
export const post = (path, body) => ask(path, { method: "POST", body });
/** @param {string} path @param {unknown} body @returns {Promise<any>} */
export const patch = (path, body) => ask(path, { method: "PATCH", body });
/** @param {string} path @returns {Promise<any>} */
export const remove = (path) => ask(path, { method: "DELETE" });

/**
 * A path whose parts are names: each is escaped.
 * @param {TemplateStringsArray} strings @param {...(string | number)} names
 */
export function at(strings, ...names) {
  return String.raw({ raw: strings }, ...names.map((name) => encodeURIComponent(String(name))));
}

/**
 * A query string with the members that have a value; lists repeat their name.
 * @param {Record<string, string | number | null | undefined | string[]>} members
 */
export function query(members) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(members)) {
    if (Array.isArray(value)) value.forEach((each) => search.append(name, each));
    else if (value !== null && value !== undefined && value !== "") search.set(name, String(value));
  }
  const text = search.toString();
  return text ? `?${text}` : "";
}

/**
 * All rows that the server gives by `limit` and `offset`, up to `most`.
 * @param {string} path @param {string} member what the rows are called in an answer
 * @param {{filter?: Parameters<typeof query>[0], most: number, signal?: AbortSignal}} options
 * @returns {Promise<any[]>}
 */
export async function all(path, member, { filter = {}, most, signal }) {
  const rows = [];
  for (let offset = 0; offset < most; offset += ROWS) {
    const page = (await get(path + query({ ...filter, limit: ROWS, offset }), signal))[member];
    rows.push(...page);
    if (page.length < ROWS) break;
  }
  return rows;
}

const ROWS = 1000;

/** The project path of the tenant that is signed in. */
export const project = () => at`/accounts/projects/${session.peek()?.tenant?.id ?? ""}`;
