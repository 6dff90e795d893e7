/**
 * The microphone and the loudspeaker of this machine, as PCM16.
 *
 * The two worklets do the work in the audio thread; here they are loaded, connected and ended. The browser takes the
 * loudspeaker's echo out of what the microphone hears, so that an agent is not interrupted by itself.
 */

const MOST_RATE = 48_000;

/**
 * Ask for the microphone, and open both. Raises what the browser says when one may not or has none.
 * @param {(pcm: Uint8Array) => void} onSound called with what the microphone hears
 * @returns {Promise<{rate: number, play: (pcm: Uint8Array) => void, clear: () => void, mute: (isMuted: boolean) => void, close: () => void}>}
 */
export async function openSound(onSound) {
  if (!navigator.mediaDevices) throw new Error("This browser gives the microphone to pages of https only, or of this machine.");
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true } });
  const [track] = stream.getAudioTracks();
  let context = new AudioContext();
  if (context.sampleRate > MOST_RATE || context.sampleRate % 50) {
    await context.close();
    context = new AudioContext({ sampleRate: MOST_RATE });
  }
  const close = () => {
    track.stop();
    void context.close();
  };
  try {
    for (const name of ["microphone", "speaker"]) await context.audioWorklet.addModule(new URL(`./${name}-worklet.js`, import.meta.url));
    const microphone = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0 });
    const speaker = new AudioWorkletNode(context, "speaker", { numberOfInputs: 0, outputChannelCount: [1] });
    context.createMediaStreamSource(stream).connect(microphone);
    speaker.connect(context.destination);
    microphone.port.onmessage = ({ data }) => onSound(new Uint8Array(data));
    await context.resume();
    return {
      rate: context.sampleRate,
      play: (pcm) => {
        const copy = pcm.slice().buffer;
        speaker.port.postMessage(copy, [copy]);
      },
      clear: () => speaker.port.postMessage(null),
      mute: (isMuted) => {
        track.enabled = !isMuted;
      },
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}
