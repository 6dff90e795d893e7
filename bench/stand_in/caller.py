"""Calls agents of a host by prepared HTTP requests, and measures the time until each has started.

Like the stand-in room it does next to nothing while the time runs: requests are made beforehand, and it reads no more of HTTP
than a host made with aiohttp sends.
"""

import asyncio
import functools
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bench.stand_in.room import StandInRoom
from meshhost.identity.tokens import ParticipantToken

__all__ = ["Call", "StandInCaller"]

KEY = "bench-secret-of-more-than-32-bytes!"
STALL_SECONDS = 120.0
RETRY_SECONDS = 0.1
BUSY = (429, 503)

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an agent: its identity, and the bytes of the HTTP request."""

    identity: str
    request: bytes


class StandInCaller:
    """Calls agents of the host at `url` into a room, over connections that it keeps open.

    A call that is refused for load is made again; `refusals` counts those.
    """

    def __init__(self, url: str, room: StandInRoom) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), parts.port or 80
        self._room = room
        self._idle: list[_Line] = []
        self.refusals = 0

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().abort()

    def prepare(self, identity: str, *, tenant: str | None = None) -> Call:
        """Prepare a call before the time that is measured."""
        token = ParticipantToken(name=identity, project_id=tenant)
        token.add_room_grant("bench")
        token.add_role_grant("agent")
        data = {
            "room_name": "bench",
            "room_url": f"{self._room.url}/rooms/bench",
            "token": token.to_jwt(token=KEY),
            "arguments": {},
        }
        body = json.dumps({"event": "room.call", "data": data}).encode()
        head = (
            f"POST /idle HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return Call(identity, head.encode() + body)

    async def connect(self, count: int) -> None:
        """Open connections until this many are idle."""
        self._idle = [line for line in self._idle if line.is_open]
        loop = asyncio.get_running_loop()
        while len(self._idle) < count:
            _, line = await loop.create_connection(_Line, self._host, self._port)
            self._idle.append(line)

    async def start(self, calls: Sequence[Call], *, parallel: int) -> tuple[list[float], float]:
        """Make these calls, `parallel` at a time; returns the milliseconds until each agent started, and the seconds of all.

        Raises ConnectionError when one is not accepted, and TimeoutError when no agent starts for STALL_SECONDS.
        """
        count = min(parallel, len(calls))
        await self.connect(count)
        lines = [self._idle.pop() for _ in range(count)]
        run = _Run(calls, self._room)
        begun = time.perf_counter()
        try:
            await run.finish(lines)
        except BaseException:
            for line in lines:
                line.abort()
            raise
        finally:
            self.refusals += run.refusals
        elapsed = time.perf_counter() - begun
        self._idle += lines
        return run.milliseconds, elapsed


class _Line(asyncio.Protocol):
    """A connection to the host, which carries one request at a time."""

    __slots__ = ("_answered", "_buffer", "_transport")

    def __init__(self) -> None:
        self._transport: Any = None
        self._buffer = b""
        self._answered: Callable[[int], None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return not self._transport.is_closing()

    def ask(self, request: bytes, answered: Callable[[int], None]) -> None:
        """Send a request; `answered` gets the status, or 0 when the connection is lost."""
        if not self.is_open:
            answered(0)
            return
        self._answered = answered
        self._transport.write(request)

    def abort(self) -> None:
        """Abort the connection without calling `answered`."""
        self._answered = None
        self._transport.abort()

    # Called by the event loop

    def connection_made(self, transport: Any) -> None:
        """The connection is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes were received."""
        self._buffer += data
        end = self._buffer.find(_END)
        if end < 0:
            return
        if _CHUNKED.search(self._buffer, 0, end):
            self._transport.abort()  # none of the hosts does it, and it would have to be read otherwise
            return
        length = _LENGTH.search(self._buffer, 0, end)
        if len(self._buffer) >= end + len(_END) + (int(length[1]) if length else 0):
            status, self._buffer = int(self._buffer[9:12]), b""
            self._end(status)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._end(0)

    def _end(self, status: int) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status)


class _Run:
    """Makes calls over several lines: each line makes its next call when the agent of its last one has started."""

    def __init__(self, calls: Sequence[Call], room: StandInRoom) -> None:
        self.milliseconds = [0.0] * len(calls)
        self.refusals = 0
        self._calls = calls
        self._room = room
        self._begun = [0.0] * len(calls)
        self._made = 0
        self._left = len(calls)
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()

    async def finish(self, lines: Sequence[_Line]) -> None:
        """Make all calls. Raises as `StandInCaller.start` does."""
        for line in lines:
            self._next(line)
        try:
            while self._left and not self._done.done():
                before = self._left
                await asyncio.wait({self._done}, timeout=STALL_SECONDS)
                if self._left == before and not self._done.done():
                    raise TimeoutError(f"no agent started within {STALL_SECONDS:g} s, {before} are missing")
            if self._done.done():
                self._done.result()
        finally:
            # Answers that still arrive find it done.
            self._done.cancel()

    def _next(self, line: _Line) -> None:
        if self._made < len(self._calls) and not self._done.done():
            number, self._made = self._made, self._made + 1
            self._begun[number] = time.perf_counter()
            self._ask(line, number)

    def _ask(self, line: _Line, number: int) -> None:
        line.ask(self._calls[number].request, functools.partial(self._answered, line, number))

    def _answered(self, line: _Line, number: int, status: int) -> None:
        if status in BUSY:
            self.refusals += 1
            self._loop.call_later(RETRY_SECONDS, self._ask, line, number)
        elif 200 <= status < 300:
            self._room.when_started(self._calls[number].identity, functools.partial(self._started, line, number))
        elif not self._done.done():
            what = f"it answered {status}" if status else "the connection was lost"
            self._done.set_exception(ConnectionError(f"the host did not accept a call: {what}"))

    def _started(self, line: _Line, number: int, moment: float) -> None:
        self.milliseconds[number] = (moment - self._begun[number]) * 1000
        self._left -= 1
        if not self._left and not self._done.done():
            self._done.set_result(None)
        self._next(line)
