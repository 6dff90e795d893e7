"""A listening site that ends connections which do not finish their requests, and bounds how many there are.

aiohttp waits for ever for the rest of a request, so anybody could take all file descriptors with half-sent ones. `GuardedSite`
puts a `_Connection` between each socket and aiohttp's handler of it. It passes everything on unchanged and notes since when a
request's headers are incomplete (also: since when the connection waits for its first byte), when data came last, and how fast a
body comes. One timer per site looks at them every second. A middleware reports when a request is complete (`watched.py`).

A connection whose headers are incomplete costs its sender nothing, so they are bounded apart from all others: when there are
too many, of one address or in total, the oldest is dropped and the newest admitted. That way a flood of half-sent requests
displaces itself, and a complete request is answered all the same. All in the event loop.
"""

import asyncio
import logging
import os
import socket
import time
from collections import OrderedDict

from aiohttp import web
from aiohttp.web_protocol import RequestHandler  # for its type; only what asyncio.Protocol has is called

from meshhost.edge.descriptors import most_descriptors, quiet_accept, raise_limit
from meshhost.edge.limits import EdgeLimits
from meshhost.edge.watched import Watchers, watchers_of
from meshhost.loopback import is_loopback

__all__ = ["GuardedSite"]

logger = logging.getLogger(__name__)

_SWEEP_SECONDS = 1.0
_ACCEPTED_AT_ONCE = 16
_WAITING_CONNECTIONS = 1024
# Of the file descriptors, for all that the process has open: agents' connections to their rooms count too.
_HIGHEST_SHARE = 0.9
_LAST_SHARE = 0.95
# How long a refused connection may take to send what it has to.
_LINGER_SECONDS = 0.5
_ANSWER = b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: 0\r\n%s\r\n"
_TOO_SLOW = _ANSWER % (b"408 Request Timeout", b"")
_TOO_MANY = _ANSWER % (b"503 Service Unavailable", b"Retry-After: 1\r\n")


class GuardedSite(web.TCPSite):
    """A TCPSite with limits, for an application that was prepared with `watch_requests`.

    What was dropped and refused is logged at most every `log_seconds`.
    """

    def __init__(
        self,
        runner: web.AppRunner,
        host: str,
        port: int,
        *,
        limits: EdgeLimits | None = None,
        log_seconds: float = 10.0,
    ) -> None:
        super().__init__(runner, host, port, reuse_address=True)
        raise_limit()
        quiet_accept()
        self._address = (host, port)
        self._guard = _Guard(limits or EdgeLimits(), watchers_of(runner.app), log_seconds)

    async def start(self) -> None:
        """Listen. Raises OSError."""
        # `_runner` and `_server` are what subclasses of BaseSite have: it registers the site, so that the runner knows its
        # address and closes it. A test fails when that changes.
        await web.BaseSite.start(self)
        make = self._runner.server
        if make is None:
            raise RuntimeError("the runner is not set up")
        host, port = self._address
        loop = asyncio.get_running_loop()
        # asyncio accepts as many connections in one turn as it is told to keep waiting. A crowd must not hold the loop up for
        # all others, so it is told few, and the system many.
        self._server = await loop.create_server(
            lambda: _Connection(make(), self._guard), host, port, backlog=_ACCEPTED_AT_ONCE, reuse_address=True
        )
        for listening in self._server.sockets:
            with socket.socket(fileno=os.dup(listening.fileno())) as same:
                same.listen(_WAITING_CONNECTIONS)
        self._guard.start(loop)

    async def stop(self) -> None:
        """See BaseSite: listen no more. Connections that are open stay, and are no longer watched."""
        self._guard.stop()
        await super().stop()


class _Guard:
    """The connections of one site. `incomplete` has those whose headers are incomplete, the oldest first."""

    def __init__(self, limits: EdgeLimits, watchers: Watchers, log_seconds: float) -> None:
        self.limits = limits
        self._log_seconds = log_seconds
        self.watchers = watchers
        self.max_connections = limits.connections()
        self._highest = most_descriptors(_HIGHEST_SHARE)
        self._last = most_descriptors(_LAST_SHARE)
        self.open: set[_Connection] = set()
        self._incomplete: OrderedDict[_Connection, float] = OrderedDict()
        self._by_address: dict[str, OrderedDict[_Connection, None]] = {}
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

    def begin_headers(self, connection: "_Connection") -> None:
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

    def end_headers(self, connection: "_Connection") -> None:
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

    def refuse(self, connection: "_Connection", descriptor: int) -> None:
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
            if connection.is_writing():  # the next request came before the answer to the last one was taken
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

    def _drop(self, connection: "_Connection", answer: bytes | None) -> None:
        self._dropped += 1
        self.end_headers(connection)
        connection.end(answer)


class _Connection(asyncio.Protocol):
    """Passes a socket's events on to aiohttp's handler."""

    def __init__(self, handler: RequestHandler, guard: _Guard) -> None:
        self._handler = handler
        self._guard = guard
        self._transport: asyncio.Transport | None = None
        self._is_admitted = False
        self._in_headers = False
        self._request: web.BaseRequest | None = None
        self._has_answer = False
        # Of the body of the request: since when it comes, when data came last, and how much of it.
        self._body_since = 0.0
        self._last_data = 0.0
        self._body_bytes = 0
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
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
        if not self._is_admitted:
            self.end(None)
            return
        if self._request is not None:
            self._last_data = time.monotonic()
            self._body_bytes += len(data)
        elif not self._in_headers:  # between requests: these bytes begin the next one
            self._begin_headers()
        self._handler.data_received(data)

    def begin_request(self, request: web.BaseRequest) -> None:
        """See Watched."""
        self._in_headers = False
        self._guard.end_headers(self)
        self._request, self._has_answer, self._body_bytes = request, False, 0
        self._body_since = self._last_data = time.monotonic()

    def begin_answer(self) -> None:
        """See Watched."""
        self._has_answer = True

    def end_request(self) -> None:
        """See Watched."""
        self._request = None

    def eof_received(self) -> None:
        if self._is_admitted:
            self._handler.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._guard.end_headers(self)
        self._guard.open.discard(self)
        self._guard.watchers.pop(self._transport, None)
        if self._is_admitted:
            self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
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

    def end(self, answer: bytes | None) -> None:
        """Close the connection, after this answer; without it where an answer of aiohttp's has begun."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            has_begun = self.is_writing() or (self._request is not None and self._has_answer)
            if answer is not None and not has_begun:
                transport.write(answer)
            transport.close()

    def refuse(self, answer: bytes, *, linger: bool) -> None:
        """Answer and close; with `linger` after the request has come, since closing with unread data discards the answer."""
        if not linger or self._transport is None:
            self.end(answer)
            return
        self._transport.write(answer)
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.end, None)

    def _begin_headers(self) -> None:
        self._in_headers = True
        self._guard.begin_headers(self)
