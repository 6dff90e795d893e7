/** Where one writes: Enter sends, Shift and Enter makes a line; files are attached by being stored in the room first. */
import { storeFile } from "../../app/storing.js";
import { Icon } from "../../ui/icons.js";
import { html, useEffect, useRef, useState } from "../../ui/preact.js";
import { notify } from "../../ui/toast.js";

/**
 * @param {{client: any, to: string, bots: string[], choose: (name: string) => void, isAnswering: boolean, stop?: () => void,
 *   onSend: (text: string, files: string[]) => boolean}} props
 */
export function Composer({ client, to, bots, choose, isAnswering, stop, onSend }) {
  const [text, setText] = useState("");
  const [files, setFiles] = useState(/** @type {string[]} */ ([]));
  const [isStoring, setStoring] = useState(false);
  const chooser = useRef(/** @type {HTMLInputElement | null} */ (null));
  const leaving = useRef(new AbortController());
  useEffect(() => () => leaving.current.abort(), []);
  const send = () => {
    const said = text.trim();
    if ((!said && !files.length) || isStoring) return;
    if (!onSend(said || "(see the attachments)", files)) return;
    setText("");
    setFiles([]);
  };
  const attach = async (/** @type {FileList | null} */ list) => {
    setStoring(true);
    try {
      for (const file of list ?? []) {
        const path = `chats/files/${crypto.randomUUID().slice(0, 8)}-${file.name}`;
        await storeFile(() => client, path, file, { signal: leaving.current.signal });
        setFiles((before) => [...before, path]);
      }
    } catch (error) {
      if (!leaving.current.signal.aborted) notify(/** @type {Error} */ (error).message, "bad");
    }
    setStoring(false);
  };
  return html`<form class="composer" onSubmit=${(/** @type {Event} */ event) => {
    event.preventDefault();
    send();
  }}>
    ${files.length > 0 && html`<ul class="attached">${files.map((path) => html`<li>${path.split("/").pop()} <button class="button quiet icon-only" type="button" aria-label=${`Leave out ${path.split("/").pop()}`} onClick=${() => setFiles(files.filter((each) => each !== path))}><${Icon} name="close" /></button></li>`)}</ul>`}
    <textarea aria-label=${`Message to ${to}`} placeholder=${`Message to ${to}`} rows="2" value=${text} autofocus
      onInput=${(/** @type {any} */ event) => setText(event.target.value)}
      onKeyDown=${(/** @type {KeyboardEvent} */ event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        send();
      }}></textarea>
    <div class="buttons">
      ${bots.length > 1 && html`<select aria-label="Who answers" onChange=${(/** @type {any} */ event) => choose(event.target.value)}>${bots.map((name) => html`<option value=${name} selected=${name === to}>${name}</option>`)}</select>`}
      <input ref=${chooser} type="file" multiple hidden onChange=${(/** @type {any} */ event) => {
        void attach(event.target.files);
        event.target.value = "";
      }} />
      <button class="button quiet" type="button" disabled=${isStoring} onClick=${() => chooser.current?.click()}><${Icon} name="file" />${isStoring ? "Storing…" : "Attach"}</button>
      <span class="spring"></span>
      ${isAnswering && stop && html`<button class="button" type="button" onClick=${stop}>Stop</button>`}
      <button class="button primary" disabled=${isStoring || (!text.trim() && !files.length)}><${Icon} name="send" />Send</button>
    </div>
  </form>`;
}
