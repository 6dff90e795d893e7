/**
 * The start of Studio: who is signed in decides between the sign-in page and the shell, and the address decides the page.
 *
 * Pages are modules with a default export, a component that gets the named parts of the address; each is loaded when it is first
 * shown. An error inside a page stays inside it: the shell goes on, and the next page is tried anew.
 */
import { Failed, Loading } from "../ui/parts.js";
import { Component, html, render, useEffect, useSignal, useState } from "../ui/preact.js";
import { notify, Toasts } from "../ui/toast.js";
import { here, startRouter } from "./router.js";
import { pageFor } from "./routes.js";
import { readSession, signIn, takeCode } from "./session.js";
import { Shell } from "./shell.js";
import { startShortcuts } from "./shortcuts.js";
import { session } from "./store.js";

class Boundary extends Component {
  state = { error: /** @type {Error | null} */ (null) };

  /** @param {Error} error */
  componentDidCatch(error) {
    console.error(error);
    this.setState({ error });
  }

  render() {
    const { error } = this.state;
    if (error) return html`<${Failed} error=${error} retry=${() => this.setState({ error: null })} />`;
    return this.props.children;
  }
}

function Studio() {
  const current = useSignal(session);
  if (current === null) return html`<${Starting} />`;
  if (current.role === null) return html`<${Lazy} load=${() => import("../pages/sign-in.js")} />`;
  return html`<${Shell}><${CurrentPage} /></${Shell}>`;
}

function CurrentPage() {
  const { path } = useSignal(here);
  const current = useSignal(session);
  const { load, parts, name } = pageFor(path, current);
  return html`<${Boundary} key=${name}><${Lazy} load=${load} parts=${parts} /></${Boundary}>`;
}

/** @param {{load: () => Promise<{default: any}>, parts?: Record<string, string>}} props */
function Lazy({ load, parts }) {
  const [page, setPage] = useState(/** @type {{show: any} | {error: Error} | null} */ (null));
  useEffect(() => {
    let isHere = true;
    load().then(
      (module) => isHere && setPage({ show: module.default }),
      (error) => isHere && setPage({ error }),
    );
    return () => {
      isHere = false;
    };
  }, []);
  if (page === null) return html`<${Loading} />`;
  if ("error" in page) return html`<${Failed} error=${page.error} retry=${() => location.reload()} />`;
  return html`<${page.show} ...${parts ?? {}} />`;
}

/** Before it is known who is signed in: the server may be away. */
function Starting() {
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  const [tries, setTries] = useState(0);
  useEffect(() => {
    let timer = 0;
    readSession().catch((reason) => {
      setError(reason);
      timer = setTimeout(() => setTries((before) => before + 1), Math.min(1000 * 1.5 ** tries, 10_000));
    });
    return () => clearTimeout(timer);
  }, [tries]);
  return error ? html`<${Failed} error=${error} />` : html`<${Loading} />`;
}

async function start() {
  const code = takeCode();
  startRouter();
  startShortcuts();
  if (code) {
    try {
      await signIn({ code });
    } catch (error) {
      notify(/** @type {Error} */ (error).message, "bad");
    }
  }
  const root = document.getElementById("app");
  if (root) render(html`<${Studio} /><${Toasts} />`, root);
}

void start();
