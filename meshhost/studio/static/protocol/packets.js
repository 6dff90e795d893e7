/**
 * Packets: the wire unit of the room protocol (docs/reference/room-protocol.md, 2). One packet is one binary WebSocket message.
 *
 * The same rules as `meshhost/protocol/frames.py`, checked against the same vectors: a message is a header packet (id, number of
 * data packets, type) and numbered data packets; packets of two messages are never mixed. Sizes are bounded. Ids are bigint,
 * because they have 64 bits. Pure: no I/O.
 */

const MAX_MESSAGE_BYTES = 256 * 1024 * 1024;
const MAX_TYPE_BYTES = 256;
const MAX_PACKETS = 1024 * 1024;
const HEADER_BYTES = 16;
const DATA_BYTES = 12;
// A packet fits into 64 KiB, of which browsers make one frame: what is longer by a few bytes would be two.
const SLICE_BYTES = 64 * 1024 - DATA_BYTES;

/** @typedef {{id: bigint, type: string, data: Uint8Array}} Message */

/** The other side does not follow the protocol: the connection can't be trusted any more. */
export class ProtocolError extends Error {}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Cut a message into packets.
 * @param {Message} message
 * @param {number} [sliceBytes]
 * @returns {Uint8Array<ArrayBuffer>[]}
 */
export function packets({ id, type, data }, sliceBytes = SLICE_BYTES) {
  const name = encoder.encode(type);
  const count = Math.ceil(data.length / sliceBytes);
  const head = new Uint8Array(HEADER_BYTES + name.length);
  const view = new DataView(head.buffer);
  view.setBigUint64(0, id);
  view.setUint32(8, 0);
  view.setUint32(12, count);
  head.set(name, HEADER_BYTES);
  const cut = [head];
  for (let number = 1; number <= count; number += 1) {
    const slice = data.subarray((number - 1) * sliceBytes, number * sliceBytes);
    const packet = new Uint8Array(DATA_BYTES + slice.length);
    const fields = new DataView(packet.buffer);
    fields.setBigUint64(0, id);
    fields.setUint32(8, number);
    packet.set(slice, DATA_BYTES);
    cut.push(packet);
  }
  return cut;
}

/** Joins the packets of one direction of a connection into messages. */
export class PacketAssembler {
  constructor() {
    this.#clear();
  }

  #id = 0n;
  #type = "";
  #awaited = 0;
  #next = 1;
  #size = 0;
  /** @type {Uint8Array[]} */
  #slices = [];

  /**
   * Take the next packet; return the message that it completes, or null. Raises ProtocolError, and is empty then.
   * @param {Uint8Array} packet
   * @returns {Message | null}
   */
  receive(packet) {
    try {
      return this.#awaited ? this.#takeData(packet) : this.#takeHeader(packet);
    } catch (error) {
      this.#clear();
      throw error;
    }
  }

  /** @param {Uint8Array} packet */
  #takeHeader(packet) {
    if (packet.length < HEADER_BYTES) throw new ProtocolError(`header packet of ${packet.length} bytes`);
    const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
    if (view.getUint32(8) !== 0) throw new ProtocolError("data packet of a message that has not begun");
    const count = view.getUint32(12);
    if (count > MAX_PACKETS) throw new ProtocolError(`message of ${count} packets`);
    const name = packet.subarray(HEADER_BYTES);
    if (name.length > MAX_TYPE_BYTES) throw new ProtocolError(`message type of ${name.length} bytes`);
    try {
      this.#type = decoder.decode(name);
    } catch {
      throw new ProtocolError("the message type is not UTF-8");
    }
    this.#id = view.getBigUint64(0);
    this.#awaited = count;
    this.#next = 1;
    return count ? null : this.#complete();
  }

  /** @param {Uint8Array} packet */
  #takeData(packet) {
    if (packet.length < DATA_BYTES) throw new ProtocolError(`data packet of ${packet.length} bytes`);
    const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
    const number = view.getUint32(8);
    if (view.getBigUint64(0) !== this.#id || number !== this.#next) {
      throw new ProtocolError(`packet ${number}, expected packet ${this.#next} of message ${this.#id}`);
    }
    const slice = packet.subarray(DATA_BYTES);
    this.#size += slice.length;
    if (this.#size > MAX_MESSAGE_BYTES) throw new ProtocolError(`message over ${MAX_MESSAGE_BYTES} bytes`);
    this.#slices.push(slice);
    this.#next += 1;
    return number === this.#awaited ? this.#complete() : null;
  }

  #complete() {
    const data = new Uint8Array(this.#size);
    let offset = 0;
    for (const slice of this.#slices) {
      data.set(slice, offset);
      offset += slice.length;
    }
    const message = { id: this.#id, type: this.#type, data };
    this.#clear();
    return message;
  }

  #clear() {
    this.#id = 0n;
    this.#type = "";
    this.#awaited = 0;
    this.#next = 1;
    this.#size = 0;
    this.#slices = [];
  }
}
