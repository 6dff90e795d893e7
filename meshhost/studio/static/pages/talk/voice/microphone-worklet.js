/**
 * Runs beside the page, in the audio thread: takes what the microphone hears and hands it over as PCM16, in pieces of 60 ms.
 *
 * The browser calls `process` with 128 samples at a time, which is too little for a message each.
 */
const { AudioWorkletProcessor: Processor, registerProcessor: register, sampleRate: rate } = /** @type {any} */ (globalThis);

const PIECE = Math.round(rate * 0.06);

export class Microphone extends Processor {
  #piece = new Int16Array(PIECE);
  #filled = 0;

  /** @param {Float32Array[][]} inputs */
  process([channels]) {
    for (const sample of channels?.[0] ?? []) {
      this.#piece[this.#filled] = Math.max(-1, Math.min(1, sample)) * 32767;
      this.#filled += 1;
      if (this.#filled < PIECE) continue;
      this.port.postMessage(this.#piece.buffer, [this.#piece.buffer]);
      this.#piece = new Int16Array(PIECE);
      this.#filled = 0;
    }
    return true;
  }
}

register("microphone", Microphone);
