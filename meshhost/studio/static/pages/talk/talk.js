/** Talking with what is in a room: chat with bots, voice calls, tasks for task runners, tools. One address for each, so that all can be linked. */
import { useRoomClient } from "../../app/room-client.js";
import { to } from "../../app/router.js";
import { Empty, Failed, Loading, PageHead } from "../../ui/parts.js";
import { html } from "../../ui/preact.js";
import { Chat } from "./chat.js";
import { Tasks, Tools } from "./tasks.js";
import { Voice } from "./voice/page.js";

/** @type {[name: string, title: string][]} */
const PARTS = [
  ["chat", "Chat"],
  ["voice", "Voice"],
  ["tasks", "Tasks"],
  ["tools", "Tools"],
];

/** @param {{room: string, rest?: string}} props */
export default function Talk({ room, rest = "" }) {
  const connection = useRoomClient(room);
  const [part = "chat", ...more] = rest.split("/");
  const place = part || "chat";
  return html`<${PageHead} title=${`Talk in ${room}`} />
    <nav class="tabs" aria-label="Ways to talk">
      ${PARTS.map(([name, title]) => html`<a href=${to`/rooms/${room}/talk/${name}`} aria-current=${place === name ? "page" : undefined}>${title}</a>`)}
    </nav>
    ${connection.state === "ended" && connection.error
      ? html`<div class="card"><${Failed} error=${connection.error} /></div>`
      : !connection.client || (connection.state === "connecting" && !connection.client.participantId)
        ? html`<${Loading} what="Joining the room" />`
        : place === "voice"
          ? html`<${Voice} room=${room} connection=${connection} chosen=${more[0]} />`
          : place === "tasks"
            ? html`<${Tasks} room=${room} connection=${connection} chosen=${more[0]} />`
            : place === "tools"
              ? html`<${Tools} room=${room} connection=${connection} chosen=${more.join("/")} />`
              : place === "chat"
                ? html`<${Chat} room=${room} connection=${connection} thread=${more.join("/")} />`
                : html`<${Empty} title="Nothing is at this address" />`}`;
}
