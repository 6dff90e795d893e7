/**
 * Chat with the bots of a room. A thread is a document that outlives page, bot and server: after a reload it is all there, and an
 * answer in progress goes on growing. The left side lists threads; the right side shows one, with its tool calls as they run.
 */
import { tell, useParticipants } from "../../app/participants.js";
import { useRoomResource } from "../../app/room-client.js";
import { useDocument } from "../../app/room-document.js";
import { go, to } from "../../app/router.js";
import { Empty, Failed, Loading } from "../../ui/parts.js";
import { html, useEffect, useMemo, useRef, useState } from "../../ui/preact.js";
import { notify } from "../../ui/toast.js";
import { Composer } from "./composer.js";
import { Entries } from "./entries.js";
import { Choice } from "./tasks.js";
import { join, membersOf, newPath, newThread, read, say, titleOf } from "./thread.js";

/** @typedef {import("../../app/participants.js").Participant} Participant */

/** @param {Participant} participant */
const nameOf = ({ attributes, id }) => String(attributes.name ?? id);

/** @param {{room: string, connection: any, thread: string}} props */
export function Chat({ room, connection, thread }) {
  const heard = useRef(/** @type {(message: any) => void} */ (() => {}));
  const { present, error } = useParticipants(connection, (message) => heard.current(message));
  const bots = useMemo(() => (present ?? []).filter(({ role }) => role === "agent"), [present]);
  const threads = useRoomResource(connection, async (client) => (await client.request("storage.list", { path: "chats" })).files, [room]);
  useEffect(() => {
    if (thread) threads.refresh();
  }, [thread]);
  const entries = [...(threads.data ?? [])]
    .filter(({ name, is_folder: isFolder }) => !isFolder && name.endsWith(".thread"))
    .sort((one, other) => String(other.updated_at ?? "").localeCompare(String(one.updated_at ?? "")))
    .map(({ name }) => ({ address: to`/rooms/${room}/talk/chat` + `/chats/${encodeURIComponent(name)}`, title: titleOf(name), note: "", isChosen: thread === `chats/${name}` }));
  if (present === null) return error ? html`<div class="card"><${Failed} error=${error} /></div>` : html`<${Loading} what="Asking who is here" />`;
  return html`<div class="two-panes">
    <div class="form">
      <a class="button" href=${to`/rooms/${room}/talk/chat`}>New thread</a>
      ${entries.length > 0 && html`<${Choice} label="Threads" entries=${entries} />`}
    </div>
    ${thread
      ? html`<${Thread} key=${thread} room=${room} connection=${connection} path=${thread} bots=${bots} heard=${heard} />`
      : html`<${NewThread} room=${room} connection=${connection} bots=${bots} />`}
  </div>`;
}

/** What was said first, to be sent once its thread is open. @type {Map<string, {text: string, files: string[], bot: string}>} */
const firstWords = new Map();

/** @param {{room: string, connection: any, bots: Participant[]}} props */
function NewThread({ room, connection, bots }) {
  const [chosen, setChosen] = useState("");
  if (!bots.length) {
    return html`<div class="card"><${Empty} title="No chat bot is here">A <code>ChatBot</code> that joins this room appears here by itself. Threads of before can be read on the left.</${Empty}></div>`;
  }
  const bot = bots.find((each) => nameOf(each) === chosen) ?? bots[0];
  const start = (/** @type {string} */ text, /** @type {string[]} */ files) => {
    const path = newPath(text);
    firstWords.set(path, { text, files, bot: nameOf(bot) });
    go(`${to`/rooms/${room}/talk/chat`}/${path.split("/").map(encodeURIComponent).join("/")}`);
    return true;
  };
  return html`<section class="card chat" aria-label="New thread">
    <${Empty} title=${bot.attributes.empty_state_title || `Talk with ${nameOf(bot)}`}>What is said is kept in the room as a thread.</${Empty}>
    <${Composer} client=${connection.client} onSend=${start} to=${nameOf(bot)} bots=${bots.map(nameOf)} choose=${setChosen} isAnswering=${false} />
  </section>`;
}

/** @param {{room: string, connection: any, path: string, bots: Participant[], heard: {current: (message: any) => void}}} props */
function Thread({ room, connection, path, bots, heard }) {
  const { client } = connection;
  const first = firstWords.get(path);
  const { document, error, version } = useDocument(client, path, first ? newThread([client?.attributes.name, first.bot]) : null);
  const [chosen, setChosen] = useState(first?.bot ?? "");
  const [isThinking, setThinking] = useState(false);
  const isOpen = document?.isLoaded ?? false;
  const entries = useMemo(() => (document && isOpen ? read(document) : []), [document, isOpen, version]);
  const members = document && isOpen ? membersOf(document) : [];
  const bot = bots.find((each) => nameOf(each) === chosen) ?? bots.find((each) => members.includes(nameOf(each))) ?? bots[0];
  const isAnswering = isThinking || entries.some(({ isWriting }) => isWriting);
  heard.current = ({ from, type, message }) => {
    if (message?.path !== path) return;
    if (type === "thinking") setThinking(Boolean(message.thinking));
    if (type === "chat" && message.error) {
      setThinking(false);
      notify(`${bots.filter(({ id }) => id === from).map(nameOf)[0] ?? "The bot"}: ${message.text}`, "bad");
    }
  };
  const send = (/** @type {string} */ text, /** @type {string[]} */ files) => {
    if (!document || !bot || !client) return false;
    join(document, nameOf(bot));
    const id = say(document, { text, author: client.attributes.name ?? "studio", files });
    setThinking(true);
    tell(client, bot.id, "chat", { path, text, id, attachments: files.map((each) => ({ path: each })) }).catch((error) => {
      setThinking(false);
      notify(error.message, "bad");
    });
    return true;
  };
  useEffect(() => {
    if (!first || !isOpen || !bot) return;
    firstWords.delete(path);
    send(first.text, first.files);
  }, [isOpen, bot]);
  if (error) return html`<div class="card"><${Failed} error=${error} /></div>`;
  if (!isOpen) return html`<div class="card"><${Loading} what="Opening the thread" /></div>`;
  return html`<section class="card chat" aria-label=${titleOf(path)}>
    <${Entries} room=${room} entries=${entries} own=${client.attributes.name} isThinking=${isThinking && !entries.some(({ isWriting }) => isWriting)} />
    ${bot
      ? html`<${Composer} client=${client} onSend=${send} to=${nameOf(bot)} bots=${bots.map(nameOf)} choose=${setChosen} isAnswering=${isAnswering}
          stop=${() => tell(client, bot.id, "cancel", { path }).catch((error) => notify(error.message, "bad"))} />`
      : html`<p class="note" data-tone="warn">No chat bot is in the room now: the thread can be read. One that joins can answer.</p>`}
  </section>`;
}
