/** Signing in: with a key, with the link that the server printed, or at the team's provider where that is set up. */
import { ApiError } from "../app/api.js";
import { signIn } from "../app/session.js";
import { session } from "../app/store.js";
import { html, useEffect, useId, useRef, useSignal, useState } from "../ui/preact.js";

const ICON = new URL("../icon.svg", import.meta.url).href;

export default function SignIn() {
  const current = useSignal(session);
  const [key, setKey] = useState("");
  const [fault, setFault] = useState(takeProviderFault);
  const [isBusy, setBusy] = useState(false);
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const field = useId();
  useEffect(() => {
    document.title = "Sign in · meshhost Studio";
    input.current?.focus();
  }, []);
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    const shown = key.trim();
    if (!shown) return setFault("Enter a key.");
    setBusy(true);
    setFault("");
    try {
      await signIn({ key: shown });
    } catch (error) {
      setFault(explained(/** @type {Error} */ (error)));
      setBusy(false);
      input.current?.select();
    }
    return undefined;
  };
  const provider = current?.oidc;
  return html`<main class="sign-in" id="main">
    <div class="card">
      <p class="brand"><img src=${ICON} alt="" />meshhost Studio</p>
      <h1>Sign in</h1>
      ${current?.ended && html`<p class="note" data-tone="warn">Your session ended: ${current.ended}</p>`}
      ${provider &&
      html`<a class="button primary" href=${`/studio/api/oidc/start?return=${encodeURIComponent(location.pathname)}`}>Sign in with ${provider.name}</a>
        <p class="muted">or with a key</p>`}
      <form class="form" onSubmit=${submit}>
        <div class="field">
          <label for=${field}>API key, or the operator's key</label>
          <input id=${field} ref=${input} type="password" autocomplete="current-password" spellcheck=${false} value=${key}
            aria-describedby=${`${field}-about`} aria-invalid=${fault ? "true" : undefined}
            onInput=${(/** @type {any} */ event) => setKey(event.target.value)} />
          <div id=${`${field}-about`} class=${fault ? "fault" : "hint"} role=${fault ? "alert" : undefined}>
            ${fault || html`<code>meshhost setup --json</code> shows the key of this machine's project.`}
          </div>
        </div>
        <button class=${provider ? "button" : "button primary"} disabled=${isBusy}>${isBusy ? "Signing in…" : "Sign in"}</button>
      </form>
      <p class="muted small">Or open the link that <code>meshhost room serve</code> prints when it starts: it works once.</p>
    </div>
  </main>`;
}

/** @param {Error} error */
function explained(error) {
  if (!(error instanceof ApiError)) return error.message;
  if (error.status === 429) return `Too many wrong tries. Try again in ${error.retryAfter ?? 60} seconds.`;
  return error.message;
}

/** What the provider's sign-in page reported, taken out of the address. */
function takeProviderFault() {
  const fault = new URLSearchParams(location.search).get("sign_in_error") ?? "";
  if (fault) history.replaceState(null, "", location.pathname);
  return fault;
}
