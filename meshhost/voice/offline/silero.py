"""`SileroActivity`: tells when a caller speaks, by the Silero model, which is not taken in by noise.

The model gives a probability for each 32 ms of sound at 16 kHz. Speech has begun when two in a row are likely (64 ms: a click
is shorter, and the voice must stop within 300 ms), and has ended after `silence_ms` of unlikely ones. What is handed on begins
`pad_ms` before, since the first consonant is seldom likely.

The model's state is in the detector of each call, the model itself is shared. It runs in one thread for all calls, as one
window takes a fifth of a millisecond.
"""

import functools
from collections import deque
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from meshhost.errors import SettingsError
from meshhost.voice.audio import SAMPLE_BYTES, Sound
from meshhost.voice.cpu import FairPool
from meshhost.voice.resampling import Resampler, check_libraries
from meshhost.voice.stages import SpeechBegan, SpeechEnded

__all__ = ["SileroActivity"]

RATE = 16_000
_WINDOW = 512
_WINDOW_MS = _WINDOW * 1000 / RATE
_CONTEXT = 64
# Windows of speech in a row by which speech begins.
_ONSET = 2
_THREADS = FairPool("voice activity", threads=1)


class SileroActivity:
    """Finds speech. `threshold` is the probability from which sound is speech, from 0 to 1.

    `silence_ms` of silence end an utterance, and so does its length of `max_speech_ms`.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        silence_ms: float = 600.0,
        pad_ms: float = 300.0,
        max_speech_ms: float = 28_000.0,
    ) -> None:
        check_libraries("numpy", "onnxruntime", "faster_whisper", "soxr")
        self.threshold = threshold
        self.silence_ms = silence_ms
        self.pad_ms = pad_ms
        self.max_speech_ms = max_speech_ms

    def listen(self, call_id: str, rate: int) -> "SileroDetector":
        """Return a detector for the frames of one call."""
        return SileroDetector(self, call_id, rate)


class SileroDetector:
    """Listens to one call."""

    def __init__(self, settings: SileroActivity, call_id: str, rate: int) -> None:
        self._settings = settings
        self._call_id = call_id
        self._resampler = Resampler(rate, RATE)
        self._rest = bytearray()
        self._state: Any = None
        self._heard_ms = 0.0
        pad_windows = max(_ONSET, round(settings.pad_ms / _WINDOW_MS))
        self._before: deque[bytes] = deque(maxlen=pad_windows)  # what was heard last, while nobody speaks
        self._speech: list[bytes] | None = None  # while somebody speaks
        self._likely = 0
        self._silent_ms = 0.0

    def __repr__(self) -> str:
        return f"<SileroDetector heard_ms={self._heard_ms:.0f} speaking={self._speech is not None}>"

    async def feed(self, frame: Sound) -> list[SpeechBegan | SpeechEnded]:
        """Listen to the next frame; return what it shows."""
        self._rest += self._resampler.feed(frame).pcm
        size = _WINDOW * SAMPLE_BYTES
        windows = []
        while len(self._rest) >= size:
            windows.append(bytes(self._rest[:size]))
            del self._rest[:size]
        if not windows:
            return []
        likely, self._state = await _THREADS.run(self._call_id, _probabilities, windows, self._state)
        found = (self._step(window, probability) for window, probability in zip(windows, likely, strict=True))
        return [event for event in found if event is not None]

    def _step(self, window: bytes, probability: float) -> SpeechBegan | SpeechEnded | None:
        self._heard_ms += _WINDOW_MS
        if self._speech is None:
            return self._wait_for_speech(window, probability)
        self._speech.append(window)
        # Within speech, less is enough: it must not end in the middle of a quiet word.
        if probability >= self._settings.threshold - 0.15:
            self._silent_ms = 0.0
        else:
            self._silent_ms += _WINDOW_MS
        is_too_long = len(self._speech) * _WINDOW_MS >= self._settings.max_speech_ms
        if self._silent_ms < self._settings.silence_ms and not is_too_long:
            return None
        speech = Sound(b"".join(self._speech), RATE)
        self._speech, self._likely = None, 0
        return SpeechEnded(at_ms=self._heard_ms - self._silent_ms, speech=speech)

    def _wait_for_speech(self, window: bytes, probability: float) -> SpeechBegan | None:
        self._before.append(window)
        self._likely = self._likely + 1 if probability >= self._settings.threshold else 0
        if self._likely < _ONSET:
            return None
        self._speech, self._silent_ms = list(self._before), 0.0
        self._before.clear()
        return SpeechBegan(at_ms=self._heard_ms - _ONSET * _WINDOW_MS)


def _probabilities(windows: list[bytes], state: Any) -> tuple[list[float], Any]:
    """Run the model over windows that follow each other; return the probability of each, and the model's next state."""
    import numpy as np

    if state is None:
        nothing = np.zeros((1, 1, 128), dtype=np.float32)
        state = (nothing, nothing, np.zeros(_CONTEXT, dtype=np.float32))
    h, c, context = state
    likely = []
    for window in windows:
        samples = np.frombuffer(window, dtype="<i2").astype(np.float32) / 32768
        given = np.concatenate([context, samples])[np.newaxis, :]
        output, h, c = _model().run(None, {"input": given, "h": h, "c": c})
        likely.append(float(output.reshape(-1)[0]))
        context = samples[-_CONTEXT:]
    return likely, (h, c, context)


@functools.cache
def _model() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(_model_path()), providers=["CPUExecutionProvider"], sess_options=options)


def _model_path() -> Path:
    spec = find_spec("faster_whisper")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        if found := sorted(Path(folder, "assets").glob("silero_vad*.onnx")):
            return found[-1]
    raise SettingsError("faster-whisper carries no Silero model: pip install 'meshhost[voice]'")
