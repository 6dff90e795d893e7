"""The connections of a listening site: ends those that do not finish their requests, and bounds how many there are.

aiohttp waits for ever for the rest of a request, so anybody could take all file descriptors with half-sent ones. The listener
puts a `Connection` between each socket and aiohttp's handler of it. It passes everything on unchanged and notes since when a
request's headers are incomplete (also: since when the connection waits for its first byte), when data came last, and how fast a
body comes. One timer per `Guard` looks at them every second. A middleware reports when a request is complete (`watched.py`).

A connection whose headers are incomplete costs its sender nothing, so they are bounded apart from all others: when there are
too many, of one address or in total, the oldest is dropped and the newest admitted. That way a flood of half-sent requests
displaces itself, and a complete request is answered all the same. Until its first request is answered a connection is a
newcomer, whose cost is measured for the pace at which more are accepted (`pace.py`). All in the event loop.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from socket import SHUT_WR
from typing import TypeVar

from aiohttp import web
from aiohttp.web_protocol import RequestHandler  # for its type; only what asyncio.Protocol has is called

from meshhost.edge.bodies import HeldBodies
from meshhost.edge.descriptors import most_descriptors
from meshhost.edge.limits import EdgeLimits
from meshhost.edge.pace import Newcomer, Pace
from meshhost.edge.watched import Watchers
from meshhost.loopback import is_loopback

__all__ = ["Connection", "Guard"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SWEEP_SECONDS = 1.0
# Of the file descriptors, for all that the process has open: agents' connections to their rooms count too.
_HIGHEST_SHARE = 0.9
_LAST_SHARE = 0.95
# How long a connection may still send after its answer: closing while data comes resets it, and the answer may be lost.
_LINGER_SECONDS = 0.5
_ANSWER = b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: 0\r\n%s\r\n"
_END_OF_HEADERS = b"\r\n\r\n"
_TOO_SLOW = _ANSWER % (b"408 Request Timeout", b"")
_TOO_MANY = _ANSWER % (b"503 Service Unavailable", b"Retry-After: 1\r\n")


class Guard:
    """The connections of one site. `incomplete` has those whose headers are incomplete, the oldest first."""

    def __init__(self, limits: EdgeLimits, watchers: Watchers, log_seconds: float) -> None:
        self.limits = limits
        self._log_seconds = log_seconds
        self.watchers = watchers
        self.max_connections = limits.connections()
        self.bodies = HeldBodies(limits.max_body_bytes)
        self._highest = most_descriptors(_HIGHEST_SHARE)
        self._last = most_descriptors(_LAST_SHARE)
        self.open: set[Connection] = set()
        self._incomplete: OrderedDict[Connection, float] = OrderedDict()
        self._by_address: dict[str, OrderedDict[Connection, None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._dropped = 0
        self._refused = 0
        self._logged_at = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(_SWEEP_SECONDS, self._sweep, loop)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def begin_headers(self, connection: "Connection") -> None:
        """The connection waits for the rest of a request's headers from now on."""
        limits, address = self.limits, connection.address
        mine = self._by_address.setdefault(address, OrderedDict())
        self._incomplete[connection] = time.monotonic()
        mine[connection] = None
        most = limits.max_incomplete if is_loopback(address) else limits.max_incomplete_per_address
        if len(mine) > most:
            self._drop(next(iter(mine)), _TOO_MANY)
        elif len(self._incomplete) > limits.max_incomplete:
            self._drop(next(iter(self._incomplete)), _TOO_MANY)

    def end_headers(self, connection: "Connection") -> None:
        """The headers are complete, or the connection is gone. Idempotent."""
        if self._incomplete.pop(connection, None) is None:
            return
        mine = self._by_address[connection.address]
        del mine[connection]
        if not mine:
            del self._by_address[connection.address]

    def is_full(self, descriptor: int) -> bool:
        """Whether a connection with this file descriptor is one too many.

        The system gives the lowest free number, so all below a connection's are in use.
        """
        return len(self.open) >= self.max_connections or descriptor >= self._highest

    def refuse(self, connection: "Connection", descriptor: int) -> None:
        """There are too many connections. The last descriptors are given back at once."""
        self._refused += 1
        connection.refuse(_TOO_MANY, linger=descriptor < self._last)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(_SWEEP_SECONDS, self._sweep, loop)
        now = time.monotonic()
        oldest = now - self.limits.header_seconds
        for connection, since in list(self._incomplete.items()):
            if since >= oldest:
                break
            # The next request came before the answer to the last one was taken. Between two pieces of an answer nothing may
            # wait to be written for a moment.
            if connection.is_writing() or connection.went_on_at >= oldest:
                self._incomplete[connection] = now
                self._incomplete.move_to_end(connection)
            else:
                self._drop(connection, _TOO_SLOW)
        for connection in [each for each in self.open if each.is_body_late(now, self.limits)]:
            self._drop(connection, _TOO_SLOW)
        if now - self._logged_at > self._log_seconds:
            self._log(now)

    def _log(self, now: float) -> None:
        # One line for many: an attacker must not be able to fill the log.
        if self._dropped:
            logger.warning("connections with unfinished requests were dropped", extra={"dropped": self._dropped})
        if self._refused:
            fields = {"refused": self._refused, "open": len(self.open)}
            logger.warning("connections were refused: too many file descriptors are in use", extra=fields)
        if self._dropped or self._refused:
            self._dropped, self._refused, self._logged_at = 0, 0, now

    def _drop(self, connection: "Connection", answer: bytes | None) -> None:
        self._dropped += 1
        self.end_headers(connection)
        # One that is too slow may be sending; one of too many has to leave at once.
        connection.end(answer, linger=answer is _TOO_SLOW)


class Connection(asyncio.Protocol):
    """Passes a socket's events on to aiohttp's handler, and measures for `pace` what it costs as a newcomer."""

    def __init__(self, handler: RequestHandler, guard: Guard, pace: Pace) -> None:
        self._handler = handler
        self._guard = guard
        self._pace = pace
        self._newcomer: Newcomer | None = Newcomer(pace)
        self._transport: asyncio.Transport | None = None
        self._is_admitted = False
        self._is_lingering = False
        self._in_headers = False
        self._is_known = False
        self._request: web.BaseRequest | None = None
        # Of the request: who sends it, if known by name, and its body, if it was read whole.
        self._sender: str | None = None
        self._body: bytes | None = None
        self._has_answer = False
        # Of the headers that come: their last bytes, until they are complete; and whether something came after them.
        self._tail = b""
        self._has_headers = False
        self._has_more = False
        # Of the body of the request: since when it comes, when data came last, and how much of it.
        self._body_since = 0.0
        self._last_data = 0.0
        self._body_bytes = 0
        self._feed: Callable[[bytes], bool] | None = None
        self._is_held_back = self._has_paused = False
        self.address = ""
        self.went_on_at = 0.0
        """When the other side took enough of an answer for more of it to be written."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        assert self._newcomer is not None
        with self._newcomer:
            self._admit(transport)

    def _admit(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        socket = transport.get_extra_info("socket")
        descriptor = -1 if socket is None else socket.fileno()
        if self._guard.is_full(descriptor):
            self._guard.refuse(self, descriptor)
            return
        self._is_admitted = True
        self._guard.open.add(self)
        self._guard.watchers[transport] = self
        self._handler.connection_made(transport)
        self._begin_headers()

    def data_received(self, data: bytes) -> None:
        if self._is_lingering:
            return
        if not self._is_admitted:
            self.end(None)
        elif self._newcomer is None:
            self._pace.has_known_work = True
            self._receive(data)
        else:
            with self._newcomer:
                self._receive(data)

    def _receive(self, data: bytes) -> None:
        if self._feed is not None:
            if not self._feed(data):
                return
        elif self._request is not None:
            self._last_data = time.monotonic()
            self._body_bytes += len(data)
        else:
            if not self._in_headers:  # between requests: these bytes begin the next one
                self._begin_headers()
            self._look_for_end_of_headers(data)
        self._handler.data_received(data)
        # Only now: the handler may have stopped reading itself, and then it is the one that reads on.
        if self._is_held_back and self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()
            self._has_paused = True

    def _look_for_end_of_headers(self, data: bytes) -> None:
        if self._has_headers:
            self._has_more = True
            return
        found = self._tail + data
        end = found.find(_END_OF_HEADERS)
        self._has_headers, self._has_more = end >= 0, 0 <= end < len(found) - len(_END_OF_HEADERS)
        self._tail = found[1 - len(_END_OF_HEADERS) :]

    def begin_request(self, request: web.BaseRequest) -> None:
        """See Watched."""
        self._in_headers = False
        self._guard.end_headers(self)
        self._request, self._has_answer, self._body_bytes = request, False, 0
        self._body_since = self._last_data = time.monotonic()
        self._is_known = False
        self._sender = self._body = None

    def measured(self, handling: Awaitable[T]) -> Awaitable[T]:
        """See Watched."""
        return handling if self._newcomer is None else self._newcomer.measured(handling)

    def begin_answer(self) -> None:
        """See Watched."""
        self._has_answer = True
        self._end_newcomer()

    def end_request(self) -> None:
        """See Watched."""
        self._request = self._body = None

    @property
    def is_known(self) -> bool:
        """See Watched."""
        return self._is_known

    def know(self, name: str | None = None) -> None:
        """See Watched."""
        self._is_known = True
        self._sender = name or self._sender
        self._end_newcomer()  # what follows is work of somebody known

    def watch_data(self, feed: Callable[[bytes], bool]) -> bool:
        """See Watched."""
        if not self._has_headers or self._has_more or self._body_bytes:
            return False
        self._feed = feed
        return True

    def hold_back(self, is_held_back: bool) -> None:
        """See Watched."""
        self._is_held_back = is_held_back
        if not is_held_back and self._has_paused and self._transport is not None:
            self._has_paused = False
            self._transport.resume_reading()

    def is_reading(self) -> bool:
        """See Watched."""
        return self._transport is not None and self._transport.is_reading()

    async def read_body(self, *, most_bytes: int) -> bytes:
        """See Watched."""
        if self._request is None:
            raise RuntimeError("no request is in progress")
        if self._body is None:
            sender = self._sender or f"address {self.address}"
            self._body = await self._guard.bodies.read(self._request, sender=sender, most_bytes=most_bytes)
        return self._body

    def _end_newcomer(self) -> None:
        if self._newcomer is not None:
            newcomer, self._newcomer = self._newcomer, None
            newcomer.end()

    def eof_received(self) -> None:
        if self._is_admitted:
            self._handler.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end_newcomer()
        self._guard.end_headers(self)
        self._guard.open.discard(self)
        self._guard.watchers.pop(self._transport, None)
        if self._is_admitted:
            self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self.went_on_at = time.monotonic()
        self._handler.resume_writing()

    def is_writing(self) -> bool:
        """Whether the other side has not taken all of an answer yet."""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def is_body_late(self, now: float, limits: EdgeLimits) -> bool:
        """Whether a body is incomplete that should have come by now. Called once in each _SWEEP_SECONDS."""
        if self._request is None or self._transport is None or self._request.content.is_eof():
            return False
        if not self._transport.is_reading():  # it is not taken at the moment
            self._body_since += _SWEEP_SECONDS
            self._last_data = now
            return False
        idle = limits.body_idle_seconds
        return (
            now - self._last_data > idle or now - self._body_since > idle + self._body_bytes / limits.bytes_per_second
        )

    def end(self, answer: bytes | None, *, linger: bool = False) -> None:
        """Close the connection, after this answer; without it where an answer of aiohttp's has begun.

        With `linger` the other side may read the answer before what it still sends meets a closed socket.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        has_begun = self.is_writing() or (self._request is not None and self._has_answer)
        if answer is None or has_begun or self._is_lingering:
            transport.close()
            return
        transport.write(answer)
        if not linger or not transport.can_write_eof() or self.is_writing():  # TLS ends a connection as a whole
            transport.close()
            return
        self._is_lingering = True
        with contextlib.suppress(OSError):  # it has gone
            # Not `write_eof`: the handler may still answer, and that must not become a bug that is logged.
            transport.get_extra_info("socket").shutdown(SHUT_WR)
        transport.resume_reading()
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.close)

    def refuse(self, answer: bytes, *, linger: bool) -> None:
        """Answer and close; with `linger` after the request has come, since closing with unread data discards the answer."""
        if not linger or self._transport is None:
            self.end(answer)
            return
        self._transport.write(answer)
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.end, None)

    def _begin_headers(self) -> None:
        self._in_headers, self._tail, self._has_headers, self._has_more = True, b"", False, False
        self._guard.begin_headers(self)
