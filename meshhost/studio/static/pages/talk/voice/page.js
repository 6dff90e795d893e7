/**
 * Talking with the agents of a room that have a voice. The left side lists them; the right side calls one, and shows what both
 * say as it is understood. Leaving the page hangs up.
 */
import { useParticipants } from "../../../app/participants.js";
import { to } from "../../../app/router.js";
import { Icon } from "../../../ui/icons.js";
import { Badge, Card, Empty, Failed, Loading, Time } from "../../../ui/parts.js";
import { html, useEffect, useRef, useState } from "../../../ui/preact.js";
import { Choice } from "../tasks.js";
import { Call } from "./call.js";
import { openSound } from "./sound.js";

/**
 * @typedef {import("../../../app/participants.js").Participant} Participant
 * @typedef {ReturnType<typeof import("../../../app/room-client.js").useRoomClient>} Connection
 * @typedef {Awaited<ReturnType<typeof openSound>>} Sound
 */

/** @param {Participant} participant */
const nameOf = ({ attributes, id }) => String(attributes.name ?? id);

/** @type {Record<string, ["ok" | "warn" | undefined, string]>} */
const STATES = {
  calling: ["warn", "calling"],
  listening: ["ok", "listening"],
  thinking: ["warn", "thinking"],
  speaking: ["ok", "speaking"],
};

/** @param {{room: string, connection: Connection, chosen?: string}} props */
export function Voice({ room, connection, chosen }) {
  const { present, error } = useParticipants(connection);
  if (present === null) return error ? html`<div class="card"><${Failed} error=${error} /></div>` : html`<${Loading} what="Asking who is here" />`;
  const agents = present.filter(({ attributes }) => attributes.supports_voice);
  const agent = agents.find((each) => nameOf(each) === chosen) ?? (chosen ? undefined : agents[0]);
  if (!agents.length) return html`<div class="card"><${Empty} title="Nobody here has a voice">A <code>VoiceBot</code> that joins this room appears here by itself.</${Empty}></div>`;
  return html`<div class="two-panes">
    <${Choice} label="Agents with a voice" entries=${agents.map((each) => ({ address: to`/rooms/${room}/talk/voice/${nameOf(each)}`, title: nameOf(each), note: "", isChosen: each === agent }))} />
    ${agent
      ? html`<${Talking} key=${agent.id} connection=${connection} agent=${agent} />`
      : html`<div class="card"><${Empty} title="This agent is not here">It may have left the room. Choose another.</${Empty}></div>`}
  </div>`;
}

/** @param {{connection: Connection, agent: Participant}} props */
function Talking({ connection, agent }) {
  const [, setVersion] = useState(0);
  const [isMuted, setMuted] = useState(false);
  const [isOpening, setOpening] = useState(false);
  const [failure, setFailure] = useState("");
  const call = useRef(/** @type {Call | null} */ (null));
  const sound = useRef(/** @type {Sound | null} */ (null));
  const isGone = useRef(false);
  const close = () => {
    sound.current?.close();
    sound.current = null;
  };
  const onChange = () => {
    if (call.current?.state === "ended") close();
    setVersion((before) => before + 1);
  };
  const begin = async () => {
    setOpening(true);
    setFailure("");
    setMuted(false);
    try {
      const opened = await openSound((pcm) => call.current?.hear(pcm));
      if (isGone.current || !connection.client) return opened.close();
      sound.current = opened;
      call.current = new Call({ client: connection.client, agent: agent.id, rate: opened.rate, player: opened, onChange });
    } catch (error) {
      setFailure(/** @type {Error} */ (error).message);
    } finally {
      setOpening(false);
    }
    return undefined;
  };
  const mute = () => {
    sound.current?.mute(!isMuted);
    setMuted(!isMuted);
  };
  useEffect(
    () => () => {
      isGone.current = true;
      call.current?.hangUp();
      close();
    },
    [],
  );
  const held = call.current;
  const isHeld = held !== null && held.state !== "ended";
  const [tone, text] = STATES[held?.state ?? ""] ?? [undefined, ""];
  const reason = failure || (held && !isHeld ? held.reason || "You hung up." : "");
  return html`<${Card} title=${nameOf(agent)} padded=${true}
    actions=${html`<span role="status">${isHeld && html`<${Badge} tone=${tone}>${text}</${Badge}>`}</span>`}>
    <div class="form">
      <div class="row-actions">
        ${isHeld
          ? html`<button class="button danger" onClick=${() => held.hangUp()}>Hang up</button>
              <button class="button" aria-pressed=${isMuted} onClick=${mute}>${isMuted ? "Unmute" : "Mute"}</button>`
          : html`<button class="button primary" disabled=${isOpening} onClick=${begin}><${Icon} name="microphone" />Talk with ${nameOf(agent)}</button>`}
      </div>
      ${reason && html`<p class="note" role="status" data-tone=${failure ? "bad" : undefined}>${reason}</p>`}
      <div class="entries" role="log" aria-label="Transcript" tabindex="0">
        ${!held?.lines.length && html`<p class="muted">What both of you say is written here.</p>`}
        ${held?.lines.map((line) => html`<p class="wrap"><strong>${line.speaker === "caller" ? "You" : nameOf(agent)}</strong> <span class="muted small"><${Time} at=${line.began} /></span><br />${line.text}${line.is_cut && " …"}</p>`)}
      </div>
    </div>
  </${Card}>`;
}
