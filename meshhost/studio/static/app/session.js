/**
 * Signing in and out.
 *
 * A session is a cookie that scripts can't read; what Studio knows of it is what `GET /studio/api/session` answers. One may sign in
 * with an API key or the operator's key, or by a link with a one-time code in its fragment (`#code=…`), which servers and
 * proxies never see. The fragment is removed from the address before anything else happens, so that it stays in no history.
 */
import { ask, get } from "./api.js";
import { epoch, session } from "./store.js";

const PATH = "/studio/api/session";

/** Take the one-time code out of the address. Call it once, first. @returns {string | null} */
export function takeCode() {
  const match = /^#code=([^&]+)/.exec(location.hash);
  if (!match) return null;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    return decodeURIComponent(match[1]);
  } catch {
    return match[1];
  }
}

/** Ask who is signed in. The first time the page has asked already, while it loaded (`early.js`). */
export async function readSession() {
  const early = /** @type {any} */ (window).meshhostSession;
  /** @type {any} */ (window).meshhostSession = undefined;
  const response = await early;
  session.value = response?.ok ? await response.json() : await get(PATH);
}

/** @param {{key: string} | {code: string}} proof */
export async function signIn(proof) {
  session.value = await ask(PATH, { method: "POST", body: proof });
  epoch.value += 1;
}

/** Sign out. What can't be told to the server ends here all the same. */
export async function signOut() {
  try {
    await ask(PATH, { method: "DELETE" });
  } finally {
    const current = session.peek();
    if (current) session.value = { role: null, sign_in: current.sign_in, oidc: current.oidc, version: current.version };
    epoch.value += 1;
  }
}
