"""The contract of a transport: what moves packets between the two sides of a room connection.

`RoomClient` sessions and the room server's connections are written against these Protocols, so tests can put a transport in
memory below them. Invariant: the packets of one `send` are contiguous on the wire, or the other side could not join them.
"""

from collections.abc import Iterable
from typing import Protocol

__all__ = ["ClientProtocol", "Transport", "close_reason"]

_MAX_REASON_BYTES = 123


class Transport(Protocol):
    """An open connection. One reader, any number of senders."""

    async def receive(self) -> bytes:
        """Return the next packet.

        Raises ConnectionLostError at the end of the connection, RemoteProtocolError for a text frame.
        """
        ...

    async def send(self, packets: Iterable[bytes]) -> None:
        """Send the packets in this order, contiguously: packets of two calls are never interleaved.

        Returns when they are handed to the operating system's buffers (back-pressure: a slow reader slows the caller),
        at the latest after the transport's send timeout. Raises ConnectionLostError.
        """
        ...

    def send_at_once(self, packets: Iterable[bytes]) -> bool:
        """Send packets, together at most 64 KiB, without waiting; False when that is impossible, and then nothing was sent.

        They may leave only at the end of this turn of the event loop, or with `flush`. Raises ConnectionLostError.
        """
        ...

    def flush(self) -> None:
        """Hand what `send_at_once` took to the operating system now."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close in order, within a bounded time. Idempotent; never raises."""
        ...

    def abort(self) -> None:
        """Cut the connection: the other side gets no close frame. Idempotent; never raises."""
        ...


class ClientProtocol(Protocol):
    """How a RoomClient reaches its room: where, as whom, and how to dial (again).

    MeshAgent programs build a `WebSocketClientProtocol(url=, token=)` and hand it to `RoomClient(protocol=)`.
    """

    @property
    def url(self) -> str:
        """The room's WebSocket URL."""
        ...

    @property
    def token(self) -> str:
        """The participant token as JWT text."""
        ...

    async def connect(self, *, resume: str | None = None) -> Transport:
        """Dial. `resume` is the resume token of the session that was lost.

        Raises RoomRefusedError with the HTTP status when the server refuses, ConnectionLostError when it cannot be reached.
        """
        ...


def close_reason(text: str) -> str:
    """Return as much of the text as fits into a WebSocket close frame."""
    return text.encode(errors="replace")[:_MAX_REASON_BYTES].decode(errors="ignore")
