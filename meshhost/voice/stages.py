"""The stages of the cascade, each a small Protocol that a program may implement itself.

`VoiceActivity` tells when the caller begins and stops speaking, `SpeechToText` what was said, `TextToSpeech` says a sentence.
(What lies between, the model, is any LLMAdapter.) Each object serves all voice calls of a process at once; what belongs to one
call is in the object that `listen` returns or in the arguments. Work that needs the CPU runs outside the event loop:
`meshhost.voice.cpu` has threads for it, in which calls take turns.

The offline stages of the extra `voice` are in `meshhost.voice.offline`.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from meshhost.voice.audio import Sound

__all__ = ["ActivityDetector", "SpeechBegan", "SpeechEnded", "SpeechToText", "TextToSpeech", "VoiceActivity"]


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """The caller speaks. `at_ms` is when it began, on the time line of the frames that were fed."""

    at_ms: float


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """The caller has stopped for long enough. `speech` is what was said, with a little of the silence around it."""

    at_ms: float
    speech: Sound


class ActivityDetector(Protocol):
    """Listens to one call."""

    async def feed(self, frame: Sound) -> list[SpeechBegan | SpeechEnded]:
        """Listen to the next frame; return what it shows. Began and ended take turns, and began comes first."""
        ...


class VoiceActivity(Protocol):
    """Tells speech from silence and noise."""

    def listen(self, call_id: str, rate: int) -> ActivityDetector:
        """Return a detector for the frames of one call."""
        ...


class SpeechToText(Protocol):
    """Understands speech."""

    async def prepare(self) -> None:
        """Load what is needed, when a call begins. Raises SettingsError, LLMError."""
        ...

    async def transcribe(self, speech: Sound, *, call_id: str) -> str:
        """Return what is said; "" when there are no words in it. Raises LLMError."""
        ...


class TextToSpeech(Protocol):
    """Speaks."""

    def speak(self, text: str, *, rate: int, voice: str | None, call_id: str) -> AsyncIterator[Sound]:
        """Yield a sentence as sound of this rate, in pieces of any length. Raises LLMError."""
        ...
