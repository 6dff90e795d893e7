/** Tasks and tools of a room, each through a form made from its schema; the answer stands below, newest first. */
import { useRoomResource } from "../../app/room-client.js";
import { to } from "../../app/router.js";
import { FileReply } from "../../protocol/messages.js";
import { bytes, duration, pretty } from "../../ui/format.js";
import { Badge, Card, Empty, Loaded } from "../../ui/parts.js";
import { html, useState } from "../../ui/preact.js";
import { SchemaForm } from "../../ui/schema-form.js";

/**
 * @typedef {ReturnType<typeof import("../../app/room-client.js").useRoomClient>} Connection
 * @typedef {{name: string, title?: string, description?: string, input_schema?: any}} Agent
 * @typedef {{id: number, seconds: number, value?: unknown, error?: string}} Answer
 */

/** @param {{room: string, connection: Connection, chosen?: string}} props */
export function Tasks({ room, connection, chosen }) {
  const agents = useRoomResource(connection, async (client) => /** @type {Agent[]} */ ((await client.request("agent.list_agents")).agents), [room]);
  return html`<${Loaded} of=${agents} what="Asking which agents take tasks">
    ${(/** @type {Agent[]} */ list) => {
      const agent = list.find(({ name }) => name === chosen) ?? (chosen ? undefined : list[0]);
      if (!list.length) return html`<div class="card"><${Empty} title="No agent takes tasks here">A <code>TaskRunner</code> that is in the room is listed here.</${Empty}></div>`;
      return html`<div class="two-panes">
        <${Choice} label="Agents" entries=${list.map((each) => ({ address: to`/rooms/${room}/talk/tasks/${each.name}`, title: each.title || each.name, note: each.title ? each.name : "", isChosen: each === agent }))} />
        ${agent
          ? html`<${Asking} key=${agent.name} title=${agent.title || agent.name} description=${agent.description} schema=${agent.input_schema} action="Run the task"
              ask=${(/** @type {any} */ value) => connection.client?.request("agent.ask", { agent: agent.name, arguments: value }).then((answer) => answer?.answer)} />`
          : html`<div class="card"><${Empty} title="This agent is not here">It may have left the room. Choose another.</${Empty}></div>`}
      </div>`;
    }}
  </${Loaded}>`;
}

/** @param {{room: string, connection: Connection, chosen: string}} props */
export function Tools({ room, connection, chosen }) {
  const toolkits = useRoomResource(connection, async (client) => (await client.request("agent.list_toolkits", { participant_id: null })).tools, [room]);
  return html`<${Loaded} of=${toolkits} what="Asking which tools there are">
    ${(/** @type {Record<string, any>} */ all) => {
      const list = Object.entries(all).flatMap(([toolkit, { title, tools }]) =>
        Object.entries(tools).map(([name, tool]) => ({ toolkit, toolkitTitle: title || toolkit, name, .../** @type {any} */ (tool) })),
      );
      if (!list.length) return html`<div class="card"><${Empty} title="No tools here">Public toolkits of programs in the room are listed here.</${Empty}></div>`;
      const wanted = list.find(({ toolkit, name }) => `${toolkit}/${name}` === chosen) ?? (chosen ? undefined : list[0]);
      return html`<div class="two-panes">
        <${Choice} label="Tools" entries=${list.map((each) => ({ address: to`/rooms/${room}/talk/tools/${each.toolkit}/${each.name}`, title: each.title || each.name, note: each.toolkitTitle, isChosen: each === wanted }))} />
        ${wanted
          ? html`<${Asking} key=${`${wanted.toolkit}/${wanted.name}`} title=${wanted.title || wanted.name} description=${wanted.description} action="Use the tool"
              schema=${wanted.defs ? { ...wanted.input_schema, $defs: wanted.defs } : wanted.input_schema}
              ask=${(/** @type {any} */ value) => connection.client?.request("agent.invoke_tool", { toolkit: wanted.toolkit, tool: wanted.name, participant_id: null, on_behalf_of_id: null, arguments: value, caller_context: null })} />`
          : html`<div class="card"><${Empty} title="This tool is not here">Its provider may have left the room. Choose another.</${Empty}></div>`}
      </div>`;
    }}
  </${Loaded}>`;
}

/** @param {{label: string, entries: {address: string, title: string, note: string, isChosen: boolean}[]}} props */
export function Choice({ label, entries }) {
  return html`<nav class="card choices" aria-label=${label}>
    ${entries.map(({ address, title, note, isChosen }) => html`<a href=${address} aria-current=${isChosen ? "page" : undefined}><span class="wrap">${title}</span>${note && html`<span class="muted small wrap">${note}</span>`}</a>`)}
  </nav>`;
}

let last = 0;

/** @param {{title: string, description?: string, schema: any, action: string, ask: (value: any) => Promise<unknown> | undefined}} props */
function Asking({ title, description, schema, action, ask }) {
  const [answers, setAnswers] = useState(/** @type {Answer[]} */ ([]));
  const [isBusy, setBusy] = useState(false);
  const run = async (/** @type {any} */ value) => {
    setBusy(true);
    const began = performance.now();
    last += 1;
    /** @type {Answer} */
    let answer;
    try {
      const found = await ask(value);
      answer = { id: last, seconds: (performance.now() - began) / 1000, value: found };
    } catch (error) {
      answer = { id: last, seconds: (performance.now() - began) / 1000, error: /** @type {Error} */ (error).message };
    }
    setAnswers((before) => [answer, ...before].slice(0, 20));
    setBusy(false);
  };
  return html`<div class="form">
    <${Card} title=${title} padded=${true}>
      <div class="form">
        ${description && html`<p class="muted wrap">${description}</p>`}
        <${SchemaForm} schema=${schema} action=${action} isBusy=${isBusy} onSubmit=${run} />
      </div>
    </${Card}>
    <div class="form" role="log" aria-label="Answers">
      ${answers.map(
        ({ id, seconds, value, error }) => html`<section class="card" key=${id}>
          <div class="card-head"><h3>Answer</h3>${error ? html`<${Badge} tone="bad">failed</${Badge}>` : html`<${Badge} tone="ok">done</${Badge}>`}<span class="muted small">after ${duration(seconds)}</span></div>
          <div class="card-body">${error ? html`<p class="bad-text wrap">${error}</p>` : html`<${Shown} value=${value} />`}</div>
        </section>`,
      )}
    </div>
  </div>`;
}

/** @param {{value: any}} props */
function Shown({ value }) {
  if (value === null || value === undefined) return html`<p class="muted">It was done, and answered with nothing.</p>`;
  if (value instanceof FileReply) {
    const save = () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([value.data]));
      link.download = value.name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    };
    return html`<p>A file, ${bytes(value.data.length)}. <button class="button" onClick=${save}>Save ${value.name}</button></p>`;
  }
  return html`<pre class="code-block" tabindex="0">${pretty(value)}</pre>`;
}
