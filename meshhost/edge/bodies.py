"""Bodies of requests that a route reads whole: all those of a port share a bounded number of bytes.

Such a body is in memory from its first byte on, and its sender may never send its last one. So `HeldBodies` counts what has
come of the bodies that are being read. When that is more than there is room for, the read of one is ended that is not complete:
of the sender that holds the most, the one that began first. What would be a flood of half-sent bodies displaces itself, and a
body that comes at once is read all the same. A sender is who a route found the request to be of (`know_sender`), and its
address before that.

Messages, files and archives are not read here: they have a budget of their own, in which they wait for room
(`quotas/in_flight.py`). Nobody waits here: these bodies are small, and a caller of a host cannot be told apart before its body
has come.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from meshhost.edge.watched import connection_of
from meshhost.errors import MeshhostError, TooLargeError

__all__ = ["MAX_BODY_BYTES", "RETRY_SECONDS", "BodyDisplacedError", "HeldBodies", "read_body"]

MAX_BODY_BYTES = 1024 * 1024
RETRY_SECONDS: Final = 1.0


class BodyDisplacedError(MeshhostError):
    """The rest of a body is not read: others need the memory. A body that is sent without pauses gets through."""

    def __init__(self) -> None:
        super().__init__("body: too many unfinished ones are open; send it again, without pauses")


@dataclass(slots=True, eq=False)
class _Reading:
    sender: str
    cut: asyncio.Timeout
    size: int = 0


class HeldBodies:
    """The bodies that are read at one port: at most `max_bytes`, and one body more."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._readings: dict[_Reading, None] = {}  # those that began first come first
        self._by_sender: Counter[str] = Counter()
        self.total = 0
        """The bytes that are held now."""

    async def read(self, request: web.BaseRequest, *, sender: str, most_bytes: int) -> bytes:
        """The body. Raises BodyDisplacedError, TooLargeError, and what aiohttp raises for one that broke off."""
        if (request.content_length or 0) > most_bytes:
            raise _too_large(most_bytes)
        found = bytearray()
        reading = _Reading(sender, asyncio.timeout(None))
        self._readings[reading] = None
        try:
            async with reading.cut:
                async for piece in request.content.iter_any():
                    found += piece
                    if len(found) > most_bytes:
                        raise _too_large(most_bytes)
                    self._hold(reading, len(piece))
        except TimeoutError:
            if not reading.cut.expired():
                raise
            raise BodyDisplacedError from None
        finally:
            self._let_go(reading)
        return bytes(found)

    def _hold(self, reading: _Reading, size: int) -> None:
        if reading not in self._readings:  # displaced just now
            return
        reading.size += size
        self._by_sender[reading.sender] += size
        self.total += size
        while self.total > self._max_bytes:
            (sender, _), *_ = self._by_sender.most_common(1)
            oldest = next(each for each in self._readings if each.sender == sender and each.size)
            self._let_go(oldest)
            oldest.cut.reschedule(asyncio.get_running_loop().time())

    def _let_go(self, reading: _Reading) -> None:
        """Count it no more. Idempotent."""
        if reading not in self._readings:
            return
        del self._readings[reading]
        self.total -= reading.size
        self._by_sender[reading.sender] -= reading.size
        if not self._by_sender[reading.sender]:
            del self._by_sender[reading.sender]


async def read_body(request: web.Request, *, most_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The whole body of a request, which its connection's port holds; the same again when it is asked for again.

    Raises BodyDisplacedError, TooLargeError, and what aiohttp raises for a body that broke off.
    """
    connection = connection_of(request)
    if connection is not None:
        return await connection.read_body(most_bytes=most_bytes)
    try:
        body = await request.read()  # no port of ours
    except web.HTTPRequestEntityTooLarge:
        raise _too_large(most_bytes) from None
    if len(body) > most_bytes:
        raise _too_large(most_bytes)
    return body


def _too_large(most_bytes: int) -> TooLargeError:
    return TooLargeError(f"the body is too large: at most {most_bytes} bytes are taken")
