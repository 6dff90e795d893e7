/**
 * A thread of a chat as Studio reads and writes it: a document of the room, by the schema of threads.
 *
 * `read` turns the document into plain entries for the page; `say` adds a message as `meshhost chat` does. Names of elements and
 * attributes are those of meshhost/documents/thread_schema.py, and the kinds of messages those of meshhost/agents/chat/log.py.
 */

const ANSWERING = "meshhost:answering:";
const ERROR = "meshhost:error";

/**
 * @typedef {import("../../protocol/document.js").RoomDocument} RoomDocument
 * @typedef {{id: string, kind: "message" | "tool" | "reasoning" | "other", text: string, author: string, at: number | null,
 *   isWriting: boolean, isError: boolean, result: string, files: string[]}} Entry
 */

/** The content of a new thread. @param {string[]} members */
export const newThread = (members) => ({
  thread: { properties: [{ members: { items: members.map((name) => ({ member: { name } })) } }, { messages: { items: [] } }] },
});

/** The path of a new thread, which begins with what was said first. @param {string} text */
export function newPath(text) {
  const words = text.toLowerCase().normalize("NFKD").replace(/[\u0300-\u036f]/g, "").replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 40).replace(/-+$/, "");
  return `chats/${words || "chat"}-${crypto.randomUUID().slice(0, 6)}.thread`;
}

/** What a thread is called in lists. @param {string} path */
export const titleOf = (path) => (path.split("/").pop() ?? path).replace(/\.thread$/, "").replace(/-[0-9a-f]{6}$/, "").replace(/-/g, " ");

/** @param {RoomDocument} document @param {string} name @returns {any} */
const child = (document, name) => document.root.toArray().find((each) => /** @type {any} */ (each).nodeName === name);

/** @param {RoomDocument} document @returns {string[]} */
export function membersOf(document) {
  const members = child(document, "members");
  return members ? members.toArray().map((/** @type {any} */ each) => String(each.getAttribute?.("name") ?? "")).filter(Boolean) : [];
}

/** @param {RoomDocument} document @returns {Entry[]} */
export function read(document) {
  const messages = child(document, "messages");
  return messages ? messages.toArray().filter((/** @type {any} */ each) => each.nodeName).map(entry) : [];
}

/** @param {any} element @returns {Entry} */
function entry(element) {
  const value = (/** @type {string} */ name) => {
    const found = element.getAttribute(name);
    return typeof found === "string" ? found : "";
  };
  const ref = value("author_ref");
  const time = Date.parse(value("created_at"));
  /** @type {Record<string, [Entry["kind"], string]>} */
  const kinds = { message: ["message", "text"], exec: ["tool", "command"], reasoning: ["reasoning", "summary"], ui: ["other", "data"] };
  const [kind, text] = kinds[element.nodeName] ?? ["other", "text"];
  return {
    id: value("$id") || value("id"),
    kind,
    text: value(text),
    author: value("author_name"),
    at: Number.isNaN(time) ? null : time / 1000,
    isWriting: ref.startsWith(ANSWERING),
    isError: ref === ERROR,
    result: value("result"),
    files: element.toArray().map((/** @type {any} */ each) => each.getAttribute?.("path")).filter((/** @type {unknown} */ path) => typeof path === "string"),
  };
}

/**
 * Add a message; returns its id.
 * @param {RoomDocument} document @param {{text: string, author: string, files: string[]}} message
 */
export function say(document, { text, author, files }) {
  const { XmlElement } = document.yjs;
  const id = crypto.randomUUID();
  const made = (/** @type {string} */ name, /** @type {Record<string, string>} */ attributes) => {
    const element = new XmlElement(name);
    for (const [key, value] of Object.entries({ $id: crypto.randomUUID(), ...attributes })) element.setAttribute(key, value);
    return element;
  };
  document.edit(() => {
    let messages = child(document, "messages");
    if (!messages) {
      messages = made("messages", {});
      document.root.push([messages]);
    }
    const message = made("message", { id, text, created_at: new Date().toISOString(), author_name: author });
    messages.push([message]);
    files.forEach((path) => message.push([made("file", { path })]));
  });
  return id;
}

/** Add a member, unless it is one. @param {RoomDocument} document @param {string} name */
export function join(document, name) {
  if (membersOf(document).includes(name)) return;
  const { XmlElement } = document.yjs;
  document.edit(() => {
    const members = child(document, "members");
    if (!members) return;
    const member = new XmlElement("member");
    member.setAttribute("$id", crypto.randomUUID());
    member.setAttribute("name", name);
    members.push([member]);
  });
}
