/**
 * Dialogs on the browser's own `<dialog>`, which keeps the focus inside, closes on Escape and gives the focus back.
 *
 * `Dialog` is for forms. `Confirm` asks before something that can't be undone: with `typed` its button works only once that
 * text was typed, so that nobody purges the wrong queue by habit.
 */
import { Icon } from "./icons.js";
import { html, useEffect, useId, useRef, useState } from "./preact.js";

/** @typedef {import("../vendor/preact.js").ComponentChildren} Children */

/** @param {{title: string, wide?: boolean, onClose: () => void, children: Children}} props */
export function Dialog({ title, wide = false, onClose, children }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const heading = useId();
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  /** @param {MouseEvent} event */
  const closeOutside = (event) => {
    if (event.target === dialog.current) onClose();
  };
  return html`<dialog ref=${dialog} class=${wide ? "wide" : ""} aria-labelledby=${heading} onClose=${onClose} onMouseDown=${closeOutside}>
    <div class="dialog-head">
      <h2 id=${heading}>${title}</h2>
      <button class="button quiet icon-only" type="button" aria-label="Close" onClick=${onClose}><${Icon} name="close" /></button>
    </div>
    <div class="dialog-body">${children}</div>
  </dialog>`;
}

/**
 * @param {{title: string, children?: Children, action: string, typed?: string, danger?: boolean,
 *   onConfirm: () => Promise<unknown>, onClose: () => void}} props `onConfirm` reports its own failure, as `attempt` does
 */
export function Confirm({ title, children, action, typed, danger = true, onConfirm, onClose }) {
  const [text, setText] = useState("");
  const [isBusy, setBusy] = useState(false);
  const field = useId();
  const isReady = !typed || text === typed;
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    if (!isReady || isBusy) return;
    setBusy(true);
    await onConfirm();
    onClose();
  };
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <form class="form" onSubmit=${submit}>
      <div>${children}</div>
      ${typed &&
      html`<div class="field">
        <label for=${field}>Type <code>${typed}</code> to go on</label>
        <input id=${field} value=${text} autocomplete="off" spellcheck=${false} autofocus
          onInput=${(/** @type {any} */ event) => setText(event.target.value)} />
      </div>`}
      <div class="dialog-foot">
        <button class="button" type="button" onClick=${onClose}>Cancel</button>
        <button class=${danger ? "button primary danger" : "button primary"} disabled=${!isReady || isBusy}>${action}</button>
      </div>
    </form>
  </${Dialog}>`;
}
