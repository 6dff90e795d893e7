/** A labelled field with its hint and its fault, tied together for screen readers. */
import { html, useId } from "./preact.js";

/**
 * @param {{label: string, hint?: string, fault?: string | null, grow?: boolean,
 *   children: (attributes: {id: string, "aria-describedby"?: string, "aria-invalid"?: string}) => any}} props
 */
export function Field({ label, hint, fault, grow, children }) {
  const id = useId();
  const about = `${id}-about`;
  const attributes = {
    id,
    "aria-describedby": hint || fault ? about : undefined,
    "aria-invalid": fault ? "true" : undefined,
  };
  return html`<div class=${grow ? "field grow" : "field"}>
    <label for=${id}>${label}</label>
    ${children(attributes)}
    ${(hint || fault) && html`<div id=${about} class=${fault ? "fault" : "hint"} role=${fault ? "alert" : undefined}>${fault || hint}</div>`}
  </div>`;
}

/** A text field. @param {{label: string, value: string, onInput: (text: string) => void, hint?: string, fault?: string | null,
 *   grow?: boolean, [attribute: string]: any}} props */
export function TextField({ label, value, onInput, hint, fault, grow, ...more }) {
  return html`<${Field} label=${label} hint=${hint} fault=${fault} grow=${grow}>
    ${(/** @type {object} */ attributes) => html`<input ...${attributes} value=${value} autocomplete="off" spellcheck=${false} ...${more}
      onInput=${(/** @type {any} */ event) => onInput(event.target.value)} />`}
  </${Field}>`;
}

/** A choice. @param {{label: string, value: string, onChange: (text: string) => void, options: ([string, string] | string)[],
 *   hint?: string, grow?: boolean}} props `options` are values, or values with what is shown */
export function SelectField({ label, value, onChange, options, hint, grow }) {
  return html`<${Field} label=${label} hint=${hint} grow=${grow}>
    ${(/** @type {object} */ attributes) => html`<select ...${attributes} value=${value}
      onChange=${(/** @type {any} */ event) => onChange(event.target.value)}>
      ${options.map((option) => {
        const [text, shown] = Array.isArray(option) ? option : [option, option];
        return html`<option value=${text} selected=${text === value}>${shown}</option>`;
      })}
    </select>`}
  </${Field}>`;
}
