/** Calling an agent into a room, and sending one away. Both go over the room protocol, with the rights of the session's token. */
import { borrow } from "../app/room-client.js";
import { tell } from "../app/participants.js";
import { Confirm, Dialog } from "../ui/dialog.js";
import { TextField } from "../ui/field.js";
import { JsonEditor, parseJson } from "../ui/json-editor.js";
import { html, useState } from "../ui/preact.js";
import { attempt, notify } from "../ui/toast.js";

const READY_MS = 10_000;

/**
 * Do one thing in a room, joined for it. Raises what the room answers.
 * @template T
 * @param {string} room @param {(client: import("../protocol/client.js").RoomClient) => Promise<T>} action
 */
async function inRoom(room, action) {
  const { client, giveBack } = borrow(room);
  try {
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("The room did not let us in in time.")), READY_MS);
      /** @type {() => void} */
      let stop = () => {};
      stop = client.watch((state, error) => {
        if (state === "ready") resolve(undefined);
        else if (state === "ended") reject(error);
        else return;
        clearTimeout(timer);
        queueMicrotask(() => stop());
      });
    });
    return await action(client);
  } finally {
    giveBack();
  }
}

/** @param {{room: string, participant: {id: string, name: string}, onClose: () => void}} props */
export function Dismiss({ room, participant, onClose }) {
  const dismiss = () => attempt(() => inRoom(room, (client) => tell(client, participant.id, "dismiss", {})), `${participant.name} is told to leave.`);
  return html`<${Confirm} title=${`Dismiss ${participant.name}`} action="Dismiss" onClose=${onClose} onConfirm=${dismiss}>
    It finishes what it has, hands the rest back and leaves the room. An agent of a configured service is called again.
  </${Confirm}>`;
}

/** @param {{room: string, onClose: () => void}} props */
export function CallDialog({ room, onClose }) {
  const [name, setName] = useState("");
  const [url, setUrl] = useState("");
  const [text, setText] = useState("{}");
  const [fault, setFault] = useState("");
  const [isBusy, setBusy] = useState(false);
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    const parsed = parseJson(text);
    if ("fault" in parsed) return setFault(parsed.fault);
    setBusy(true);
    setFault("");
    try {
      await inRoom(room, (client) => client.request("agent.call", { name: name.trim(), url: url.trim(), arguments: parsed.value, api: null }));
      notify(`${name} was called: it joins in a moment.`);
      onClose();
    } catch (error) {
      setFault(/** @type {Error} */ (error).message);
      setBusy(false);
    }
    return undefined;
  };
  return html`<${Dialog} title="Call an agent" onClose=${onClose}>
    <form class="form" onSubmit=${submit}>
      <${TextField} label="Name that it has in the room" value=${name} onInput=${setName} required=${true} autofocus=${true} />
      <${TextField} label="Address of its path" value=${url} onInput=${setUrl} required=${true} placeholder="http://127.0.0.1:8081/worker" hint="Only addresses that the server's file permits are called." />
      <${JsonEditor} label="Arguments" value=${text} onInput=${setText} rows=${4} />
      ${fault && html`<p class="note" data-tone="bad" role="alert">${fault}</p>`}
      <div class="dialog-foot"><button class="button" type="button" onClick=${onClose}>Cancel</button><button class="button primary" disabled=${isBusy}>${isBusy ? "Calling…" : "Call"}</button></div>
    </form>
  </${Dialog}>`;
}
