"""How the server reaches one participant, without knowing how that participant is connected.

A `Peer` is the server's side of one connection: something that takes events and answers and can be closed. Rooms, services and
the directory work with peers only. `wire/connection.py` implements the Protocol over a WebSocket; a test implements it with a
list; a relay from another server may implement it later. This module therefore imports nothing of the wire, of HTTP or of a
service, and names no close code and no message type: those belong to the dialect of the connection (`wire/dialect.py`).

A participant has at most one peer at a time. A participant that resumes gets a new peer, so what belongs to a connection (a
document that it opened, a lease without a token) must be kept per peer, and what belongs to the participant per participant.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from meshhost.protocol.messages import Header, Response
from meshhost.server.core.slots import HasSlots

__all__ = ["Capability", "CloseReason", "Event", "Peer"]


class Capability(Enum):
    """What a client can do beyond its dialect's minimum. The dialect reads it from the handshake."""

    RESUME = "the client can come back as the same participant after its connection was lost"
    CANCEL = "the client understands that a call it works on was cancelled"
    LOOK = "the client only looks: the room need not wake for it"
    PROGRESS = "the client takes reports of the progress of a call that it made"
    CONTENTS = "the client takes any content, and a stream of them, as the answer to its calls"
    FILE_MOVES = "the client takes the move of a file as one event"
    TOOL_STREAMS = "the tools of the client take any content, and a stream of them, as arguments"


class CloseReason(Enum):
    """Why the server ends a connection. A dialect maps each reason to a close code."""

    TOO_SLOW = "too many messages wait for this participant"
    SERVER_STOPPING = "the room server is stopping"
    RESUMED_ELSEWHERE = "the participant came back on another connection"
    ACCESS_REVOKED = "the token has expired, or its key was revoked"
    ROOM_ENDED = "the room has ended"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the server reports to a participant, under the server's own name for it.

    One object is shared by all receivers of a broadcast: nobody may change `body`. `trace` is a W3C trace-context carrier.
    `packed` is for those who send it: what it is on the wire is made once for all receivers that speak alike.
    """

    name: str
    body: Header
    payload: bytes = b""
    trace: dict[str, str] | None = None
    packed: dict[object, tuple[str, bytes, bytes]] = field(default_factory=dict, compare=False, repr=False)


class Peer(HasSlots, Protocol):
    """One connection of a participant. All methods must be called in the event loop that serves the connection."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the client at the other end can do."""
        ...

    @property
    def closing(self) -> CloseReason | None:
        """Why the server ends this connection; None while it does not."""
        ...

    @property
    def heard_at(self) -> float:
        """When anything came from the client last, on the clock of `probe`."""
        ...

    def probe(self, *, patience: float) -> float:
        """Ask the client for a sign of life, and do not take its silence for its end within `patience` seconds.

        Returns the present time: a client that answered has a later `heard_at`.
        """
        ...

    def tell(self, event: Event) -> int:
        """Send an event without waiting. Returns the id of the message that carries it, unique for this peer.

        Never raises for a peer that is gone or slow: a slow one is closed with `CloseReason.TOO_SLOW`.
        """
        ...

    async def send(self, event: Event) -> None:
        """Send an event, waiting while too much waits to be sent. The caller must set a timeout.

        For what its sender can hold back: a participant that takes it slowly is not closed for that. Raises
        ConnectionLostError, and LimitExceededError for an event that is larger than what may ever wait.
        """
        ...

    async def reply(
        self,
        message_id: int,
        operation: str,
        response: Response,
        extra: Header | None = None,
        *,
        reserved: int = 0,
    ) -> None:
        """Answer the request `message_id`, which asked for `operation`; `extra` is added to the header of the answer.

        Waits while too much waits to be sent. `reserved` bytes are held for the answer by `reserve`; the peer gives them back,
        whatever happens. Raises ConnectionLostError. Services call `Request.reply` instead.
        """
        ...

    async def reserve(self, size: int) -> None:
        """Wait until there is room for an answer of `size` bytes, and hold it. For what is loaded only to be sent.

        The caller passes it on to `reply`, or gives it back. Raises LimitExceededError when there can never be room.
        """
        ...

    def give_back(self, size: int) -> None:
        """Hold `size` bytes less than `reserve` did."""
        ...

    async def flush(self) -> None:
        """Wait until everything sent so far is handed to the operating system. Raises ConnectionLostError."""
        ...

    def close(self, reason: CloseReason, text: str) -> None:
        """End the connection soon; returns at once. Requests in progress are answered with an error that says `text`.

        Idempotent: the first reason counts.
        """
        ...
