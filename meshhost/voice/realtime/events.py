"""What happens in a session with a realtime model, as its driver needs to know it; made by `session.py`.

These are fewer than the events of the API: what follows from the API's own order (which answer a piece of sound belongs to,
when the model may be asked) is decided in the session, and only what the driver has to act on comes out of it.
"""

from dataclasses import dataclass

__all__ = [
    "AnswerEnded",
    "CallerSaid",
    "Event",
    "Expired",
    "Failed",
    "Ready",
    "SessionFull",
    "SoundArrived",
    "SoundEnded",
    "SpeechBegan",
    "SpeechEnded",
    "ToolCalled",
]


@dataclass(frozen=True, slots=True)
class Ready:
    """The provider has taken the settings; sound and items may be sent."""


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """The caller speaks: the voice stops."""

    item_id: str


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """The caller has stopped; an answer comes."""

    item_id: str


@dataclass(frozen=True, slots=True)
class CallerSaid:
    """The words of a turn of the caller; None when they could not be recognised."""

    item_id: str
    text: str | None


@dataclass(frozen=True, slots=True)
class SoundArrived:
    """A piece of the answer's sound: PCM16 at 24 kHz."""

    item_id: str
    pcm: bytes


@dataclass(frozen=True, slots=True)
class SoundEnded:
    """An item's sound is whole."""

    item_id: str


@dataclass(frozen=True, slots=True)
class AnswerEnded:
    """An answer has ended. `has_sound` tells whether any of it is to be heard."""

    has_sound: bool


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The model calls a tool, with arguments as JSON text."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The provider could not answer. What `is_final` fails again however often it is tried."""

    text: str
    is_final: bool


@dataclass(frozen=True, slots=True)
class SessionFull:
    """What was sent to fill the session with the conversation has arrived."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The provider ends the session because of its age."""


Event = (
    Ready
    | SpeechBegan
    | SpeechEnded
    | CallerSaid
    | SoundArrived
    | SoundEnded
    | AnswerEnded
    | ToolCalled
    | Failed
    | SessionFull
    | Expired
)
