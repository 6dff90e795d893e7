/**
 * What the whole page shares, as signals: who is signed in, whether the server answers, what to say.
 *
 * A leaf: modules of `app` write these, components read them with `useSignal`. State of one page stays in that page.
 */
import { signal } from "../ui/preact.js";

/**
 * @typedef {{id: string, name: string}} Tenant
 * @typedef {"viewer" | "developer" | "admin" | "operator"} Role
 * @typedef {{role: Role | null, name?: string, tenant?: Tenant | null, expires?: number, csrf?: string, may_link?: boolean, sign_in: string[],
 *   oidc?: {name: string} | null, version: string, ended?: string}} Session
 */

/** Null until the server was asked. @type {import("../vendor/signals.js").Signal<Session | null>} */
export const session = signal(/** @type {Session | null} */ (null));

/** Null while the server answers, else since when it does not (ms) and when it is asked again. */
export const outage = signal(/** @type {{since: number, retryAt: number} | null} */ (null));

/** Grows when everything that is shown has to be read again: the server came back, or somebody else is signed in. */
export const epoch = signal(0);

const ORDER = ["viewer", "developer", "admin"];

/**
 * Whether the session's role includes another. What this hides, the server refuses as well.
 * @param {"viewer" | "developer" | "admin" | "operator"} needed
 * @param {Session | null} [of]
 */
export function may(needed, of = session.peek()) {
  const role = of?.role ?? null;
  if (role === null) return false;
  if (role === "operator" || needed === "operator") return role === needed;
  return ORDER.indexOf(role) >= ORDER.indexOf(needed);
}
