/**
 * Header and payload of a message, and the bodies of replies (docs/reference/room-protocol.md, 3 and 5).
 *
 * The same rules as `meshhost/protocol/messages.py`, checked against the same vectors. A reply becomes the value that pages
 * want: JSON and text as they are, a file as bytes with its name, nothing as null, an error as a raised `RoomError`. Pure.
 */
import { ProtocolError } from "./packets.js";

const LENGTH_BYTES = 8;
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** @typedef {Record<string, any>} Header */

/** The room refused a request. `code` is the number of docs/reference/errors.md, where there is one. */
export class RoomError extends Error {
  /** @param {string} text @param {number | null} [code] */
  constructor(text, code = null) {
    super(text);
    this.name = "RoomError";
    this.code = code;
  }
}

/** The file of a reply. */
export class FileReply {
  /** @param {string} name @param {string} mimeType @param {Uint8Array<ArrayBuffer>} data */
  constructor(name, mimeType, data) {
    this.name = name;
    this.mimeType = mimeType;
    this.data = data;
  }
}

/**
 * 8 bytes of header length, the header as JSON, the payload.
 * @param {Header} header @param {Uint8Array} [payload]
 */
export function packMessage(header, payload = new Uint8Array()) {
  const text = encoder.encode(JSON.stringify(header));
  const packed = new Uint8Array(LENGTH_BYTES + text.length + payload.length);
  new DataView(packed.buffer).setBigUint64(0, BigInt(text.length));
  packed.set(text, LENGTH_BYTES);
  packed.set(payload, LENGTH_BYTES + text.length);
  return packed;
}

/**
 * Header and payload of a message's bytes. Raises ProtocolError when the header is no JSON object of the stated length.
 * @param {Uint8Array} data
 * @returns {{header: Header, payload: Uint8Array<ArrayBuffer>}}
 */
export function unpackMessage(data) {
  if (data.length < LENGTH_BYTES) throw new ProtocolError("a message of less than 8 bytes");
  const length = new DataView(data.buffer, data.byteOffset, data.length).getBigUint64(0);
  if (length > BigInt(data.length - LENGTH_BYTES)) throw new ProtocolError("the header is longer than the message");
  const end = LENGTH_BYTES + Number(length);
  let header;
  try {
    header = JSON.parse(decoder.decode(data.subarray(LENGTH_BYTES, end)));
  } catch {
    throw new ProtocolError("the header is not JSON");
  }
  if (header === null || typeof header !== "object" || Array.isArray(header)) {
    throw new ProtocolError("the header is not a JSON object");
  }
  delete header.__meshagent__;
  return { header, payload: /** @type {Uint8Array<ArrayBuffer>} */ (data.slice(end)) };
}

/**
 * The value of a reply. Raises RoomError for an error, ProtocolError for what is no body.
 * @param {Header} header @param {Uint8Array<ArrayBuffer>} payload
 * @returns {unknown}
 */
export function readReply(header, payload) {
  const text = (/** @type {string} */ name) => {
    if (typeof header[name] !== "string") throw new ProtocolError(`a ${header.type} body needs the text ${name}`);
    return header[name];
  };
  switch (header.type) {
    case "json":
      if (!("json" in header)) throw new ProtocolError("a json body needs the member json");
      return header.json;
    case "text":
      return text("text");
    case "file":
      return new FileReply(text("name"), text("mime_type"), payload);
    case "link":
      return { name: text("name"), url: text("url") };
    case "empty":
      return null;
    case "error":
      throw new RoomError(text("text"), Number.isInteger(header.code) ? header.code : null);
    case "raw":
      if (!Array.isArray(header.outputs)) throw new ProtocolError("a raw body needs the list outputs");
      return { outputs: header.outputs };
    default:
      throw new ProtocolError("a body of unknown type");
  }
}
