/**
 * What there is to see, for navigation and the command palette: one line for each section, with who may see it.
 * A section is added here when its page works, and not before.
 */
import { may } from "./store.js";

/** @typedef {import("./store.js").Session} Session */

/** @type {{path: string, title: string, icon: "home" | "tenant" | "key" | "usage" | "host", shown: (session: Session | null) => boolean}[]} */
export const SITE_SECTIONS = [
  { path: "/", title: "Home", icon: "home", shown: () => true },
  { path: "/tenants", title: "Tenants", icon: "tenant", shown: (session) => may("operator", session) },
  { path: "/hosts", title: "Service hosts", icon: "host", shown: (session) => may("operator", session) },
  { path: "/usage", title: "Use of models", icon: "usage", shown: (session) => may("viewer", session) || may("operator", session) },
  { path: "/keys", title: "Keys and quota", icon: "key", shown: (session) => may("viewer", session) },
];

/** @type {{name: string, title: string, icon: "room" | "queue" | "clock" | "hook" | "file" | "chat" | "document" | "trace" | "log",
 *   needs: "viewer" | "developer" | "admin"}[]} */
export const ROOM_SECTIONS = [
  { name: "", title: "Overview", icon: "room", needs: "viewer" },
  { name: "queues", title: "Queues", icon: "queue", needs: "viewer" },
  { name: "files", title: "Files", icon: "file", needs: "developer" },
  { name: "talk", title: "Talk", icon: "chat", needs: "developer" },
  { name: "schedules", title: "Schedules", icon: "clock", needs: "viewer" },
  { name: "hooks", title: "Hooks", icon: "hook", needs: "developer" },
  { name: "documents", title: "Documents", icon: "document", needs: "developer" },
  { name: "traces", title: "Traces", icon: "trace", needs: "developer" },
  { name: "logs", title: "Log", icon: "log", needs: "developer" },
];

/** Whether the section of a room may be seen. @param {string} name */
export const maySeeSection = (name) => ROOM_SECTIONS.some((section) => section.name === name && may(section.needs));
