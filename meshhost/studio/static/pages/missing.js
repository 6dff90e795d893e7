/** An address that shows nothing, or nothing to this session. */
import { Empty, PageHead } from "../ui/parts.js";
import { html } from "../ui/preact.js";

/** @param {{path: string}} props */
export default function Missing({ path }) {
  return html`<${PageHead} title="Not here" />
    <div class="card">
      <${Empty} title="Nothing is at this address" actions=${html`<a class="button primary" href="/studio/">Go home</a>`}>
        <code class="wrap">${path}</code> is no page, or your key's role may not see it.
      </${Empty}>
    </div>`;
}
