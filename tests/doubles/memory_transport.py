"""Two connected transports without a network, which a test can slow down and cut.

Keeps the contract of `meshhost.transport.base.Transport`, which `tests/contract` proves. Used where a test is about a room
session or a connection and not about sockets.
"""

import asyncio
from collections import deque
from collections.abc import Iterable

from meshhost.errors import ConnectionLostError, RemoteProtocolError

__all__ = ["MemoryTransport"]


class _Lane:
    """One direction: what was sent and not yet received, and whether the receiver takes anything."""

    def __init__(self) -> None:
        self.packets: deque[bytes | str] = deque()
        self.arrived = asyncio.Event()
        self.takes = asyncio.Event()
        self.takes.set()
        self.end: ConnectionLostError | None = None

    def put(self, packet: bytes | str) -> None:
        self.packets.append(packet)
        self.arrived.set()

    def finish(self, end: ConnectionLostError) -> None:
        self.end = self.end or end
        self.arrived.set()
        self.takes.set()


class MemoryTransport:
    """Keeps the contract of `Transport`. Make two with `pair()`; what one sends the other receives.

    `sent` are the packets that this side has sent. A side that is held reads nothing until it is released; the other
    side gives up sending after `send_timeout` seconds.
    """

    def __init__(self, incoming: _Lane, outgoing: _Lane, *, send_timeout: float) -> None:
        self.sent: list[bytes] = []
        self._incoming = incoming
        self._outgoing = outgoing
        self._send_timeout = send_timeout
        self._sending = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<MemoryTransport unread={len(self._incoming.packets)} end={self.end!r}>"

    @classmethod
    def pair(cls, *, send_timeout: float = 60.0) -> "tuple[MemoryTransport, MemoryTransport]":
        """Two transports, connected to each other."""
        one, other = _Lane(), _Lane()
        return cls(one, other, send_timeout=send_timeout), cls(other, one, send_timeout=send_timeout)

    @property
    def end(self) -> ConnectionLostError | None:
        """How the connection ended for this side: what a receive raises once all was read. None while it lasts."""
        return self._incoming.end

    async def receive(self) -> bytes:
        """The next packet. Raises ConnectionLostError, or RemoteProtocolError for a text frame."""
        lane = self._incoming
        while not lane.packets:
            if lane.end is not None:
                raise lane.end
            lane.arrived.clear()
            await lane.arrived.wait()
        packet = lane.packets.popleft()
        if isinstance(packet, str):
            raise RemoteProtocolError("a text frame: only binary frames are legal", close_code=1003)
        return packet

    async def send(self, packets: Iterable[bytes]) -> None:
        """Send these packets contiguously. Raises ConnectionLostError, also when the other side reads nothing."""
        try:
            async with asyncio.timeout(self._send_timeout), self._sending:
                for packet in packets:
                    await self._send_one(packet)
        except TimeoutError:
            raise ConnectionLostError(f"the other side took no data for {self._send_timeout:g} s") from None

    def flush(self) -> None:
        """Nothing is kept back."""

    def send_at_once(self, packets: Iterable[bytes]) -> bool:
        """Send without waiting; False when the other side is held, or another send waits."""
        if self._outgoing.end is not None:
            raise self._outgoing.end
        if self._sending.locked() or not self._outgoing.takes.is_set():
            return False
        for packet in packets:
            self.sent.append(packet)
            self._outgoing.put(packet)
        return True

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close in order; the other side gets the code after it has read everything."""
        self._finish(ConnectionLostError(reason or "the connection ended", clean=True, close_code=code))

    def abort(self) -> None:
        """Cut the connection; what was sent can still be read."""
        self._finish(ConnectionLostError())

    def send_text(self, text: str) -> None:
        """Send a text frame, which the protocol forbids."""
        self._outgoing.put(text)

    def break_connection(self) -> None:
        """End the connection without a close frame, for both sides; what was not read is lost."""
        self._incoming.packets.clear()
        self._outgoing.packets.clear()
        self._finish(ConnectionLostError())

    def hold(self) -> None:
        """Stop reading what the other side sends, until `release`."""
        self._incoming.takes.clear()

    def release(self) -> None:
        """Undo `hold`."""
        self._incoming.takes.set()

    async def _send_one(self, packet: bytes) -> None:
        lane = self._outgoing
        await lane.takes.wait()
        if lane.end is not None:
            raise ConnectionLostError(str(lane.end), clean=lane.end.clean, close_code=lane.end.close_code)
        lane.put(packet)
        self.sent.append(packet)
        await asyncio.sleep(0)  # as a real transport may: other tasks get a turn between two packets

    def _finish(self, end: ConnectionLostError) -> None:
        self._incoming.finish(end)
        self._outgoing.finish(end)
