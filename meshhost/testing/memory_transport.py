"""Two connected transports without a network, which a test can slow down and cut."""

import asyncio
from collections import deque
from collections.abc import Iterable

from meshhost.errors import ConnectionLostError, RemoteProtocolError

__all__ = ["MemoryTransport"]


class MemoryTransport:
    """Keeps the contract of `Transport`. Make two with `pair()`; what one sends the other receives.

    `sent` are the packets that this side has sent. A side that is held takes nothing off its sender's hands until it is
    released, as a reader that stopped reading; its sender gives up after `send_timeout` seconds.
    """

    def __init__(self, *, send_timeout: float = 60.0) -> None:
        self.sent: list[bytes] = []
        self._send_timeout = send_timeout
        self._inbox: deque[bytes | str] = deque()
        self._arrived = asyncio.Event()
        self._takes = asyncio.Event()
        self._takes.set()
        self._sending = asyncio.Lock()
        self._end: ConnectionLostError | None = None
        self._peer = self

    def __repr__(self) -> str:
        return f"<MemoryTransport unread={len(self._inbox)} end={self._end!r}>"

    @classmethod
    def pair(cls, *, send_timeout: float = 60.0) -> "tuple[MemoryTransport, MemoryTransport]":
        """Two transports, connected to each other."""
        left, right = cls(send_timeout=send_timeout), cls(send_timeout=send_timeout)
        left._peer, right._peer = right, left
        return left, right

    @property
    def end(self) -> ConnectionLostError | None:
        """How the connection ended for this side: what a receive raises once all was read. None while it lasts."""
        return self._end

    async def receive(self) -> bytes:
        """The next packet. Raises ConnectionLostError, or RemoteProtocolError for a text frame."""
        while not self._inbox:
            if self._end is not None:
                raise self._end
            self._arrived.clear()
            await self._arrived.wait()
        packet = self._inbox.popleft()
        if isinstance(packet, str):
            raise RemoteProtocolError("a text frame: only binary frames are legal", close_code=1003)
        return packet

    async def send(self, packets: Iterable[bytes]) -> None:
        """Send these packets contiguously. Raises ConnectionLostError, also when the other side takes nothing."""
        try:
            async with asyncio.timeout(self._send_timeout), self._sending:
                for packet in packets:
                    await self._peer._take(packet)
                    self.sent.append(packet)
        except TimeoutError:
            raise ConnectionLostError(f"the other side took no data for {self._send_timeout:g} s") from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close in order; the other side hears the code after it has read everything."""
        self._finish(ConnectionLostError(reason or "the connection ended", clean=True, close_code=code))

    def send_text(self, text: str) -> None:
        """Send a text frame, which no honest participant does."""
        self._peer._put(text)

    def break_connection(self) -> None:
        """End the connection without a word, for both sides; what was not read is lost."""
        self._inbox.clear()
        self._peer._inbox.clear()
        self._finish(ConnectionLostError())

    def hold(self) -> None:
        """Take nothing more from the other side, until `release`."""
        self._takes.clear()

    def release(self) -> None:
        """Undo `hold`."""
        self._takes.set()

    async def _take(self, packet: bytes) -> None:
        await self._takes.wait()
        if self._end is not None:
            raise ConnectionLostError(str(self._end), clean=self._end.clean, close_code=self._end.close_code)
        self._put(packet)
        await asyncio.sleep(0)  # as a real transport may: other tasks get a turn between two packets

    def _put(self, packet: bytes | str) -> None:
        self._inbox.append(packet)
        self._arrived.set()

    def _finish(self, end: ConnectionLostError) -> None:
        for side in (self, self._peer):
            if side._end is None:
                side._end = end
            side._arrived.set()
            side._takes.set()
