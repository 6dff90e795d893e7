// Tells what a room client in JavaScript offers: the methods of it and of each client that it has.
"use strict";
const { RoomClient, WebSocketClientProtocol } = require("@meshagent/meshagent");

const OWN = new Set(["constructor", "on", "off", "emit", "start", "stop", "dispose"]);
const methodsOf = (thing) =>
  Object.entries(Object.getOwnPropertyDescriptors(Object.getPrototypeOf(thing)))
    .filter(([name, { value }]) => typeof value === "function" && !name.startsWith("_") && !OWN.has(name))
    .map(([name]) => name)
    .sort();

const room = new RoomClient({ protocolFactory: () => new WebSocketClientProtocol({ url: "ws://localhost", token: "x" }) });
const clients = {};
for (const [name, value] of Object.entries(room)) {
  if (!name.startsWith("_") && value && /Client$/.test(value.constructor?.name ?? "")) clients[name] = methodsOf(value);
}
process.stdout.write(JSON.stringify({ clients, room: methodsOf(room) }) + "\n", () => process.exit(0));
