/**
 * The documents of a room as live trees: every edit by anybody is seen as it happens, what has just changed is marked, and who
 * changed it is named.
 * They are only read here, so that nobody breaks an agent's document by a slip.
 */
import { useRoom } from "../app/events.js";
import { useRoomClient, useRoomResource } from "../app/room-client.js";
import { useDocument } from "../app/room-document.js";
import { to } from "../app/router.js";
import { Card, Empty, Failed, Loaded, Loading, PageHead, Time } from "../ui/parts.js";
import { html, useEffect, useRef, useState } from "../ui/preact.js";
import { Choice } from "./talk/tasks.js";

const MOST_FOLDERS = 200;
const MARKED_MS = 2500;

/** Paths of documents, folder by folder. @param {import("../protocol/client.js").RoomClient} client */
async function find(client) {
  /** @type {string[]} */
  const found = [];
  const waiting = [""];
  for (let count = 0; waiting.length && count < MOST_FOLDERS; count += 1) {
    const folder = waiting.shift() ?? "";
    for (const { name, is_folder: isFolder, size } of (await client.request("storage.list", { path: folder })).files) {
      const path = folder ? `${folder}/${name}` : name;
      if (isFolder) waiting.push(path);
      else if (size === null) found.push(path);
    }
  }
  return found.sort();
}

/** @param {{room: string, rest?: string}} props */
export default function Documents({ room, rest = "" }) {
  const connection = useRoomClient(room);
  const list = useRoomResource(connection, find, [room]);
  return html`<${PageHead} title=${rest.split("/").pop() || `Documents of ${room}`} />
    <${Loaded} of=${list} what="Looking for documents">
      ${(/** @type {string[]} */ paths) =>
        paths.length
          ? html`<div class="two-panes">
              <${Choice} label="Documents" entries=${paths.map((path) => ({ address: [to`/rooms/${room}/documents`, ...path.split("/").map(encodeURIComponent)].join("/"), title: path, note: "", isChosen: path === rest }))} />
              ${rest ? html`<${Tree} key=${rest} room=${room} client=${connection.client} path=${rest} />` : html`<div class="card"><${Empty} title="Choose a document">It is shown as it is now, and as it changes.</${Empty}></div>`}
            </div>`
          : html`<div class="card"><${Empty} title="No documents">Documents are made by agents and programs: threads of chats are some.</${Empty}></div>`}
    </${Loaded}>`;
}

/** @param {{room: string, client: any, path: string}} props */
function Tree({ room, client, path }) {
  const { document, error, version } = useDocument(client, path);
  if (error) return html`<div class="card"><${Failed} error=${error} /></div>`;
  if (!document?.isLoaded) return html`<div class="card"><${Loading} what="Opening the document" /></div>`;
  const nodes = document.root.toArray();
  return html`<${Card} title=${path}>
    <${LastEdit} room=${room} own=${client?.participantId} edit=${document.lastEdit} />
    <div class="tree" tabindex="0" role="region" aria-label=${`Content of ${path}`}>
    ${nodes.length ? html`<ul>${nodes.map((node, index) => html`<${Node} key=${keyOf(node, index)} node=${node} version=${version} />`)}</ul>` : html`<p class="muted">The document is empty.</p>`}
  </div></${Card}>`;
}

/** Who changed it last, by name also when it has left since. @param {{room: string, own: string, edit: {by: string, at: number} | null}} props */
function LastEdit({ room, own, edit }) {
  const live = useRoom(room);
  const names = useRef(/** @type {Map<string, string>} */ (new Map()));
  for (const { id, name } of live.data?.participants ?? []) if (id) names.current.set(id, name);
  const name = edit && (edit.by === own ? "you" : names.current.get(edit.by) ?? "somebody who left");
  return html`<p class="muted small last-edit" role="status">${edit ? html`Changed by <strong>${name}</strong>, <${Time} at=${edit.at} />` : "Changes by others are shown as they happen."}</p>`;
}

/** @param {any} node @param {number} index */
const keyOf = (node, index) => node.getAttribute?.("$id") ?? String(index);

/** @param {{node: any, version: number}} props */
function Node({ node, version }) {
  if (!node.nodeName) return html`<li class="node-text"><${Marked} text=${node.toString()} /></li>`;
  const attributes = Object.entries(node.getAttributes()).filter(([name]) => name !== "$id");
  const children = node.toArray();
  return html`<li>
    <span class="node"><strong>${node.nodeName}</strong></span>
    ${attributes.length > 0 && html`<dl class="node-attributes">${attributes.map(([name, value]) => html`<dt>${name}</dt><dd><${Marked} text=${typeof value === "string" ? value : JSON.stringify(value)} /></dd>`)}</dl>`}
    ${children.length > 0 && html`<ul>${children.map((/** @type {any} */ child, /** @type {number} */ index) => html`<${Node} key=${keyOf(child, index)} node=${child} version=${version} />`)}</ul>`}
  </li>`;
}

/** A text that is marked for a moment when it changed. @param {{text: string}} props */
function Marked({ text }) {
  const before = useRef(text);
  const [isNew, setNew] = useState(false);
  useEffect(() => {
    if (before.current === text) return undefined;
    before.current = text;
    setNew(true);
    const timer = setTimeout(() => setNew(false), MARKED_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<span class=${isNew ? "changed wrap" : "wrap"}>${text}</span>`;
}
