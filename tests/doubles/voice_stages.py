"""Stages of a voice that compute nothing: speech is a tone, and what is said is looked up.

Callers of tests speak with `spoken`: a tone whose level names a text. `LoudActivity` hears any tone as speech, `ToneText` says
which text it was, and `ToneVoice` speaks a text as a tone of a length that follows from its number of words.
"""

import array
from collections.abc import AsyncIterator, Sequence

from meshhost.voice.audio import FRAME_MS, Sound, silence
from meshhost.voice.stages import SpeechBegan, SpeechEnded

# Level of the first text; each further one is this much louder.
_STEP = 0.05
MS_PER_WORD = 200


def tone(level: float, ms: float, rate: int) -> Sound:
    """A square wave."""
    top = int(level * 32767)
    count = round(rate * ms / 1000)
    return Sound(array.array("h", ((top if i % 20 < 10 else -top) for i in range(count))).tobytes(), rate)


class LoudActivity:
    """Speech is what is loud. Begins after two loud frames, ends after `silence_ms` of quiet ones."""

    def __init__(self, silence_ms: float = 100.0) -> None:
        self.silence_ms = silence_ms

    def listen(self, call_id: str, rate: int) -> "LoudDetector":
        return LoudDetector(self.silence_ms, rate)


class LoudDetector:
    def __init__(self, silence_ms: float, rate: int) -> None:
        self._silence_ms, self._rate = silence_ms, rate
        self._at, self._loud, self._quiet = 0.0, 0, 0.0
        self._speech: list[bytes] | None = None

    async def feed(self, frame: Sound) -> list[SpeechBegan | SpeechEnded]:
        self._at += frame.ms
        is_loud = frame.level > _STEP / 2
        self._loud = self._loud + 1 if is_loud else 0
        if self._speech is None:
            if self._loud < 2:
                return []
            self._speech, self._quiet = [frame.pcm], 0.0
            return [SpeechBegan(self._at - 2 * frame.ms)]
        self._speech.append(frame.pcm)
        self._quiet = 0.0 if is_loud else self._quiet + frame.ms
        if self._quiet < self._silence_ms:
            return []
        speech, self._speech = Sound(b"".join(self._speech), self._rate), None
        return [SpeechEnded(self._at - self._quiet, speech)]


class ToneText:
    """Speech to text for `spoken`: `texts` in the order of their levels; "" is a noise. `heard` is what it was given."""

    def __init__(self, texts: Sequence[str], error: Exception | None = None) -> None:
        self.texts = list(texts)
        self.error = error
        self.heard: list[str] = []

    async def prepare(self) -> None:
        return

    async def transcribe(self, speech: Sound, *, call_id: str) -> str:
        if self.error is not None:
            raise self.error
        text = self.texts[round(speech.level / _STEP) - 1]
        self.heard.append(text)
        return text

    def spoken(self, text: str, rate: int, ms: float = 300.0) -> Sound:
        """A caller's speech."""
        return tone(_STEP * (self.texts.index(text) + 1), ms, rate)


class ToneVoice:
    """Text to speech: MS_PER_WORD for each word. `said` is what it was given, with the voice."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.said: list[tuple[str, str | None]] = []

    async def speak(self, text: str, *, rate: int, voice: str | None, call_id: str) -> AsyncIterator[Sound]:
        self.said.append((text, voice))
        if self.error is not None:
            raise self.error
        for _ in text.split():
            yield tone(0.5, MS_PER_WORD, rate)


def quiet(ms: float, rate: int) -> Sound:
    """Nobody speaks."""
    return silence(ms, rate)


FRAMES_PER_WORD = MS_PER_WORD // FRAME_MS
