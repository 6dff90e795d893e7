"""How sound travels: the Protocol `Carrier`, one end of one voice call, and `Connector`, which makes carriers.

A carrier brings the caller's frames and plays ours. Three kinds exist: messages of the room (`carriers/messages.py`), which
browsers reach through the room server as well, and LiveKit (`carriers/livekit.py`). A thinker (`thinker.py`) knows carriers
only by this Protocol, so that each kind of thinking works over each way of carrying.

The rules that every carrier keeps, and which `tests/contract/test_carriers.py` checks of each:

- `frames` ends, and does not raise, when the call is over: the caller hung up, left the room, or the carrier was closed.
- What comes in is bounded. Frames that a slow thinker does not take are dropped, the oldest first.
- `play` takes about as long as the sound it is given: a carrier is never more than some hundred milliseconds ahead of the
  caller's ear, so that `clear` has little to drop, and a voice that is made faster than it is heard waits.
- After `clear`, the caller hears nothing of what was played before.
- `close` is idempotent, and `play`, `clear`, `show` and `caption` after the end of the call return and do nothing: a thinker
  that speaks while the caller hangs up must not fail.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from meshhost.room.participants import RemoteParticipant
from meshhost.voice.audio import Sound
from meshhost.voice.transcript import Line

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["Carrier", "Connector", "VoiceCall", "VoiceState"]


class VoiceState(StrEnum):
    """What the agent does in a voice call, for the caller to see."""

    LISTENING = "listening"
    THINKING = "thinking"
    SPEAKING = "speaking"


@dataclass(frozen=True, slots=True)
class VoiceCall:
    """What a participant asked for with the message `voice_call`.

    `breakout_room` names the place in the room where the call happens; it is "" for the room itself. `transcript_path` is the
    thread document that the caller wants the transcript in, or None. `transport` is the connector that the caller chose
    ("messages" or "livekit"), or None for the bot's default. `options` is the whole message, for fields of one carrier only.
    """

    id: str
    room: "RoomClient"
    caller: RemoteParticipant
    breakout_room: str
    transcript_path: str | None
    transport: str | None
    options: dict[str, Any]


class Carrier(Protocol):
    """One end of one voice call: the agent's."""

    @property
    def rate(self) -> int:
        """The rate of the frames that `frames` yields and of those that `play` takes."""
        ...

    def frames(self) -> AsyncIterator[Sound]:
        """Yield the caller's sound in frames of 20 ms, until the call is over. May be iterated once.

        A caller who is silent or muted may send nothing at all; no silence is made up.
        """
        ...

    async def play(self, frame: Sound) -> None:
        """Play a frame of 20 ms at `rate`, behind those played before. Returns when there is room for the next."""
        ...

    @property
    def unheard_ms(self) -> float:
        """How much of what was played the caller has not heard yet, as far as the carrier can tell."""
        ...

    async def clear(self) -> float:
        """Stop the voice: drop what was played and not heard. Returns how many milliseconds that were.

        A `play` that waits for room meanwhile returns, and its frame is among what was dropped.
        """
        ...

    async def played(self) -> None:
        """Return when everything played has been heard, or the call is over."""
        ...

    async def show(self, state: VoiceState) -> None:
        """Let the caller see what the agent does, where the carrier has a way for it."""
        ...

    async def caption(self, line: Line) -> None:
        """Let the caller read a line of the transcript, where the carrier has a way for it."""
        ...

    async def close(self, reason: str | None = None) -> None:
        """End the call; `reason` says why the agent ends it, None that all is well. Idempotent."""
        ...


class Connector(Protocol):
    """Makes the carrier of a voice call: one object for each way in which sound travels."""

    @property
    def transport(self) -> str:
        """The name by which callers choose it."""
        ...

    async def connect(self, call: VoiceCall) -> Carrier:
        """Join the call. Raises RoomError or SettingsError that says why it cannot."""
        ...
