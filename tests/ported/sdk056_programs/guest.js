// A guest in JavaScript: offers a toolkit, messages, and does what the test tells, by JSON lines in both directions.
"use strict";
const readline = require("node:readline");
const { RoomClient, WebSocketClientProtocol, Tool, Toolkit, JsonContent, startHostedToolkit } = require("@meshagent/meshagent");

const given = JSON.parse(process.argv[2]);
const say = (fields) => process.stdout.write(JSON.stringify(fields) + "\n");
const errorOf = async (doing) => {
  try {
    return await doing;
  } catch (error) {
    return { error: error.message, code: error.code ?? null };
  }
};
const valueOf = (content) => ("json" in content ? content.json : "text" in content ? content.text : content);

class Multiply extends Tool {
  constructor() {
    const number = { type: "integer" };
    const inputSchema = { type: "object", required: ["a", "b"], additionalProperties: false, properties: { a: number, b: number } };
    super({ name: "multiply", title: "Multiply", description: "multiplies", inputSchema });
  }
  async execute({ a, b }) {
    return new JsonContent({ json: { product: a * b } });
  }
}

const steps = {
  async everything(room) {
    await room.queues.send("jsjobs", { n: 1 }, { create: true });
    say({ received: await room.queues.receive("jsjobs", { create: true, wait: true }) });
    const data = new Uint8Array(500000).map((_, index) => index % 251);
    await room.storage.upload("js/data.bin", data, { overwrite: true });
    const file = await room.storage.download("js/data.bin");
    say({ same: Buffer.compare(Buffer.from(file.data), Buffer.from(data)) === 0 });
    say({ listed: (await room.storage.list("js")).map((entry) => [entry.name, entry.size]) });
    say({ missing: await errorOf(room.storage.download("nowhere")) });
  },
  async receive(room, told) {
    say({ received: await room.queues.receive(told.name, { create: true, wait: true }) });
  },
  async invoke(room, told) {
    const { toolkit, tool, input } = told;
    say({ result: await errorOf(room.agents.invokeTool({ toolkit, tool, arguments: input }).then(valueOf)) });
  },
  async stream_tool(room, told) {
    async function* inputs() {
      for (const each of told.inputs) yield new JsonContent({ json: each });
    }
    const call = { toolkit: told.toolkit, tool: told.tool, input: inputs() };
    const answer = await errorOf(told.once ? room.invokeWithStreamInput(call) : room.invokeStream(call));
    if (!(Symbol.asyncIterator in answer)) {
      say({ answer: valueOf(answer) });
      return;
    }
    const chunks = [];
    for await (const content of answer) if ("json" in content) chunks.push(content.json);
    say({ chunks });
  },
  async move(room, told) {
    say({ moved: (await errorOf(room.storage.move(told.source, told.destination))) ?? null });
  },
  async edit(room, told) {
    const document = await room.sync.open(told.path);
    await document.synchronized;
    document.root.createChildElement("note", { text: told.text });
    await new Promise((resolve) => setTimeout(resolve, 300));
    say({ edited: true });
  },
};

async function main() {
  const protocolFactory = () => new WebSocketClientProtocol({ url: given.url, token: given.token });
  const room = new RoomClient({ protocolFactory });
  const failed = new Promise((_, reject) => room.start({ onError: reject }).catch(reject));
  await Promise.race([room.ready, failed]);
  room.messaging.enable();
  await startHostedToolkit({ room, toolkit: new Toolkit({ name: "mathjs", tools: [new Multiply()] }), public_: true });
  room.waitForClose().then(() => say({ closed: true }));
  say({ ready: room.localParticipant.id });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const told = JSON.parse(line);
    await steps[told.do](room, told);
  }
  process.exit(0);
}

main().catch((error) => {
  say({ failed: String(error.message ?? error) });
  process.exit(1);
});
