/**
 * The files of a room: folders to go through, a preview, upload by drag or choice, download, delete. Changes by others are seen at
 * once, by the room's events, with who made them.
 */
import { useRoom } from "../../app/events.js";
import { keyOf, PAGE, useFolder } from "../../app/folder.js";
import { useSettled } from "../../app/live.js";
import { useRoomClient, useRoomResource } from "../../app/room-client.js";
import { to } from "../../app/router.js";
import { Confirm } from "../../ui/dialog.js";
import { bytes } from "../../ui/format.js";
import { Icon } from "../../ui/icons.js";
import { Card, Empty, Failed, Loaded, Loading, PageHead, Time } from "../../ui/parts.js";
import { html, useEffect, useMemo, useRef, useState } from "../../ui/preact.js";
import { attempt, notify } from "../../ui/toast.js";
import { VirtualList } from "../../ui/virtual.js";
import { Preview } from "./preview.js";
import { Uploads, useUploads } from "./uploads.js";

/** @typedef {import("../../app/folder.js").Entry} Entry */

const PAUSE_MS = 150;

/** The address of a file's page. @param {string} room @param {string} path */
export const fileAddress = (room, path) => [to`/rooms/${room}/files`, ...path.split("/").filter(Boolean).map(encodeURIComponent)].join("/");

/** @param {{room: string, rest?: string}} props */
export default function Files({ room, rest = "" }) {
  const connection = useRoomClient(room);
  const found = useRoomResource(connection, async (client) => (rest ? await client.request("storage.stat", { path: rest }) : { exists: true, is_folder: true }), [room, rest]);
  const title = rest.split("/").pop() || `Files of ${room}`;
  if (found.data === undefined) {
    return html`<${PageHead} title=${title} /><div class="card">${found.error ? html`<${Failed} error=${found.error} retry=${found.refresh} />` : html`<${Loading} what="Joining the room" />`}</div>`;
  }
  if (found.data.exists && !found.data.is_folder) {
    return html`<${OneFile} key=${rest} room=${room} path=${rest} entry=${found.data} connection=${connection} changed=${found.refresh} />`;
  }
  return html`<${Folder} key=${rest} room=${room} path=${rest} connection=${connection} title=${title} />`;
}

/** @typedef {{path: string, by: string, what: string, at: number}} Change */

/**
 * Call `changed` when something at or below a path changed, with the paths of what did; returns the last change.
 * @param {any} client @param {string} path @param {(paths: string[]) => void} changed
 */
function useFileEvents(client, path, changed) {
  const [last, setLast] = useState(/** @type {Change | null} */ (null));
  const call = useRef(changed);
  call.current = changed;
  useEffect(() => {
    if (!client) return undefined;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    /** @type {string[]} */
    let paths = [];
    const on = (/** @type {string} */ what) => (/** @type {any} */ { path: where, participant_id: by }) => {
      if (path && where !== path && !String(where).startsWith(`${path}/`)) return;
      setLast({ path: where, by, what, at: Date.now() / 1000 });
      paths.push(where);
      // Not put off by each change: in a busy folder nothing would be shown.
      timer ??= setTimeout(() => {
        timer = undefined;
        call.current(paths);
        paths = [];
      }, PAUSE_MS);
    };
    const stops = [client.on("storage.file.updated", on("written")), client.on("storage.file.deleted", on("deleted"))];
    return () => {
      clearTimeout(timer);
      stops.forEach((stop) => stop());
    };
  }, [client, path]);
  return last;
}

/** Who changed what just now. @param {{room: string, change: Change | null, own: string | undefined}} props */
function LastChange({ room, change, own }) {
  const live = useRoom(room);
  const name = change && (change.by === own ? "you" : live.data?.participants.find(({ id }) => id === change.by)?.name);
  return html`<p class="muted small" role="status">${change && html`<span class="wrap">${change.path}</span> was ${change.what}${name && ` by ${name}`}, <${Time} at=${change.at} />`}</p>`;
}

/** @param {{room: string, path: string, title: string, connection: ReturnType<typeof useRoomClient>}} props */
function Folder({ room, path, title, connection }) {
  const { client } = connection;
  const [filter, setFilter] = useState("");
  const prefix = useSettled(filter.trim(), PAUSE_MS);
  const list = useFolder(connection, path, prefix);
  const change = useFileEvents(client, path, list.changed);
  const [isOver, setOver] = useState(false);
  const uploads = useUploads(client);
  const chooser = useRef(/** @type {HTMLInputElement | null} */ (null));
  const add = async (/** @type {FileList | null | undefined} */ chosen) => {
    const files = [...(chosen ?? [])];
    uploads.add(path, files, await list.taken(files.map(({ name }) => name)));
  };
  /** @param {DragEvent} event */
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    void add(event.dataTransfer?.files);
  };
  const isWhole = list.data?.next === null;
  const entries = useMemo(() => sorted(list.data?.entries ?? []), [list.data]);
  return html`<${PageHead} title=${title}>
      <input ref=${chooser} type="file" multiple hidden onChange=${(/** @type {any} */ event) => {
        void add(event.target.files);
        event.target.value = "";
      }} />
      <button class="button primary" onClick=${() => chooser.current?.click()}><${Icon} name="upload" />Upload</button>
    </${PageHead}>
    ${change && html`<${LastChange} room=${room} change=${change} own=${client?.participantId} />`}
    <${Uploads} list=${uploads.list} remove=${uploads.remove} />
    <section class="card drop" data-over=${isOver} aria-label="Files"
      onDragOver=${(/** @type {Event} */ event) => { event.preventDefault(); setOver(true); }}
      onDragLeave=${() => setOver(false)} onDrop=${drop}>
      <div class="card-head"><h2>${path || "/"}</h2><div class="actions">
        <input type="search" aria-label="Name begins with" placeholder="Name begins with" value=${filter} onInput=${(/** @type {any} */ event) => setFilter(event.target.value)} /></div></div>
      <${Loaded} of=${list} what="Loading the files">
        ${() =>
          entries.length || path
            ? html`<${VirtualList} label="Files and folders" rows=${path ? [PARENT, ...entries] : entries} rowKey=${keyOf} rowHeight=${44} onEnd=${list.load} total=${isWhole ? entries.length + (path ? 1 : 0) : null}
                row=${(/** @type {Entry} */ entry) => html`<${Row} room=${room} path=${path} entry=${entry} />`} />
                ${list.error && html`<p class="note" data-tone="bad" role="alert">More could not be loaded: ${list.error.message} <button class="button" onClick=${list.load}>Try again</button></p>`}`
            : html`<${Empty} title=${prefix ? "No name begins so" : "No files yet"}>${prefix ? "Names are looked for from their beginning." : "Drop files here, or let an agent write some."}</${Empty}>`}
      </${Loaded}>
    </section>`;
}

/** @type {Entry} */
const PARENT = { name: "..", is_folder: true, updated_at: null, size: null };

const NAMES = new Intl.Collator(undefined, { numeric: true });

/**
 * Folders first; file-2 before file-10. What is more than a page stays in the room's order: no row may jump when the next page comes.
 * @param {Entry[]} entries
 */
function sorted(entries) {
  if (entries.length >= PAGE) return entries;
  const parts = [entries.filter((entry) => entry.is_folder), entries.filter((entry) => !entry.is_folder)];
  parts.forEach((part) => part.sort((one, other) => NAMES.compare(one.name, other.name)));
  return parts.flat();
}

/** @param {{room: string, path: string, entry: Entry}} props */
function Row({ room, path, entry }) {
  const isParent = entry === PARENT;
  const target = isParent ? path.split("/").slice(0, -1).join("/") : [path, entry.name].filter(Boolean).join("/");
  const kind = entry.is_folder ? "folder" : entry.size === null ? "document" : "file";
  return html`<a class="file-row" href=${fileAddress(room, target)}>
    <${Icon} name=${kind} /><span class="clip">${isParent ? "Parent folder" : entry.name}</span>
    <span class="muted small">${entry.is_folder ? "" : entry.size === null ? "document" : bytes(entry.size)}</span>
    <span class="muted small when">${entry.updated_at && html`<${Time} at=${Date.parse(entry.updated_at) / 1000} />`}</span>
  </a>`;
}

/** @param {{room: string, path: string, entry: Entry, connection: ReturnType<typeof useRoomClient>, changed: () => void}} props */
function OneFile({ room, path, entry, connection, changed }) {
  const { client } = connection;
  const [isDeleting, setDeleting] = useState(false);
  const [version, setVersion] = useState(0);
  const change = useFileEvents(client, path, () => {
    setVersion((before) => before + 1);
    changed();
  });
  const name = path.split("/").pop() ?? path;
  const isDocument = entry.size === null;
  const download = () =>
    attempt(async () => {
      const link = document.createElement("a");
      link.href = await addressOf(client, path);
      link.download = name;
      link.click();
    });
  return html`<${PageHead} title=${name}>
      ${!isDocument && html`<button class="button" onClick=${download} disabled=${!client}><${Icon} name="download" />Download</button>`}
      <button class="button danger" onClick=${() => setDeleting(true)} disabled=${!client}><${Icon} name="trash" />Delete</button>
    </${PageHead}>
    <p class="muted">${isDocument ? "A document: see Documents of the room." : bytes(entry.size)}${entry.updated_at && html` · written <${Time} at=${Date.parse(entry.updated_at) / 1000} />`}</p>
    ${change && html`<${LastChange} room=${room} change=${change} own=${client?.participantId} />`}
    ${!isDocument && html`<${Card} title="Preview"><${Preview} key=${version} name=${name} size=${entry.size ?? 0} load=${async () => await (await fetch(await addressOf(client, path))).blob()} /></${Card}>`}
    ${isDeleting &&
    html`<${Confirm} title=${`Delete ${name}`} action="Delete" onClose=${() => setDeleting(false)} onConfirm=${async () => {
      const done = await attempt(() => /** @type {any} */ (client).request("storage.delete", { path }));
      if (done !== undefined) notify(`${path} is deleted.`);
      changed();
    }}>The file is deleted for everybody in the room. This can't be undone.</${Confirm}>`}`;
}

/** The address under which a file can be fetched for a while. @param {any} client @param {string} path */
async function addressOf(client, path) {
  const { url } = await client.request("storage.download_url", { path });
  return new URL(url).pathname;
}
