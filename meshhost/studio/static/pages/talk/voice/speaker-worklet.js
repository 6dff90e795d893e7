/**
 * Runs beside the page, in the audio thread: plays PCM16 that it is given, and silence when there is none.
 *
 * A message is a piece of sound, or null: then what was not played is dropped, at once. After it ran dry it waits for some
 * sound before it goes on, so that a network that stutters makes one gap and not many.
 */
const { AudioWorkletProcessor: Processor, registerProcessor: register, sampleRate: rate } = /** @type {any} */ (globalThis);

const START = rate * 0.06;
// More than an agent sends ahead of the ear; what is beyond it is not from one of ours, and is dropped.
const MOST = rate * 10;

export class Speaker extends Processor {
  /** @type {Int16Array[]} */
  #pieces = [];
  #at = 0;
  #waiting = 0;
  #isPlaying = false;
  #quiet = 0;

  constructor() {
    super();
    this.port.onmessage = (/** @type {{data: ArrayBuffer | null}} */ { data }) => {
      if (data === null) {
        this.#pieces = [];
        this.#at = this.#waiting = 0;
        this.#isPlaying = false;
      } else if (this.#waiting < MOST) {
        this.#pieces.push(new Int16Array(data));
        this.#waiting += data.byteLength / 2;
      }
    };
  }

  /** @param {Float32Array[][]} _ @param {Float32Array[][]} outputs */
  process(_, [[output]]) {
    // A short answer may be less than is waited for: it begins when nothing more comes.
    this.#quiet = this.#waiting > 0 && !this.#isPlaying ? this.#quiet + output.length : 0;
    if (this.#waiting >= START || this.#quiet > 2 * START) this.#isPlaying = true;
    for (let index = 0; index < output.length && this.#isPlaying; index += 1) {
      const piece = this.#pieces[0];
      if (!piece) {
        this.#isPlaying = false;
        break;
      }
      output[index] = piece[this.#at] / 32768;
      this.#at += 1;
      this.#waiting -= 1;
      if (this.#at >= piece.length) {
        this.#pieces.shift();
        this.#at = 0;
      }
    }
    return true;
  }
}

register("speaker", Speaker);
