/** Which page an address shows. The first pattern that fits, and that the session may see, decides. */
import { matched } from "./router.js";
import { may } from "./store.js";

/** @typedef {"viewer" | "developer" | "admin" | "operator" | null} Needed null: everybody who is signed in */

/** @type {[pattern: string, needed: Needed, load: () => Promise<{default: any}>][]} */
const ROUTES = [
  ["/", null, () => import("../pages/home.js")],
  ["/rooms/:room", "viewer", () => import("../pages/room.js")],
  ["/rooms/:room/queues", "viewer", () => import("../pages/work/queues.js")],
  ["/rooms/:room/queues/:queue", "viewer", () => import("../pages/work/queue.js")],
  ["/rooms/:room/queues/:queue/:id", "viewer", () => import("../pages/work/message.js")],
  ["/rooms/:room/files/*", "developer", () => import("../pages/files/files.js")],
  ["/rooms/:room/talk/*", "developer", () => import("../pages/talk/talk.js")],
  ["/rooms/:room/documents/*", "developer", () => import("../pages/documents.js")],
  ["/rooms/:room/schedules", "viewer", () => import("../pages/triggers/schedules.js")],
  ["/rooms/:room/hooks", "developer", () => import("../pages/triggers/hooks.js")],
  ["/rooms/:room/traces", "developer", () => import("../pages/traces/traces.js")],
  ["/rooms/:room/traces/:trace", "developer", () => import("../pages/traces/trace.js")],
  ["/rooms/:room/logs", "developer", () => import("../pages/logs.js")],
  ["/usage", "operator", () => import("../pages/admin/usage.js")],
  ["/usage", "viewer", () => import("../pages/admin/usage.js")],
  ["/keys", "viewer", () => import("../pages/admin/keys.js")],
  ["/hosts", "operator", () => import("../pages/hosts/hosts.js")],
  ["/hosts/:host", "operator", () => import("../pages/hosts/host.js")],
  ["/tenants", "operator", () => import("../pages/admin/tenants.js")],
  ["/tenants/:tenant", "operator", () => import("../pages/admin/tenant.js")],
];

/**
 * @param {string} path
 * @param {import("./store.js").Session | null} session
 * @returns {{name: string, load: () => Promise<{default: any}>, parts: Record<string, string>}}
 */
export function pageFor(path, session) {
  for (const [pattern, needed, load] of ROUTES) {
    const parts = matched(pattern, path);
    if (parts && (needed === null || may(needed, session))) return { name: pattern, load, parts };
  }
  return { name: "missing", load: () => import("../pages/missing.js"), parts: { path } };
}
