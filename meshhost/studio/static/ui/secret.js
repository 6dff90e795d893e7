/** A text that is to be copied: an address, a key, a secret. */
import { Icon } from "./icons.js";
import { html } from "./preact.js";
import { notify } from "./toast.js";

/** @param {{value: string, what: string}} props */
export function Secret({ value, what }) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(value);
      notify(`The ${what} is copied.`);
    } catch {
      notify(`The browser does not let this page copy: select the ${what} and copy it.`, "bad");
    }
  };
  return html`<span class="secret"><code class="wrap">${value}</code>
    <button class="button quiet icon-only" type="button" aria-label=${`Copy the ${what}`} onClick=${copy}><${Icon} name="copy" /></button></span>`;
}
