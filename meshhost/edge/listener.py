"""A listening site that ends connections which do not finish their requests, and bounds how many there are.

aiohttp waits for ever for the rest of a request, so anybody could take all file descriptors with half-sent ones. `GuardedSite`
puts a `_Connection` between each socket and aiohttp's handler of it. It passes everything on unchanged and notes two times:
since when a request's headers are incomplete (also: since when the connection waits for its first byte), and when data came
last. One timer per site looks at them every second.

A connection whose headers are incomplete costs its sender nothing, so they are bounded apart from all others: when there are
too many, of one address or in total, the oldest is dropped and the newest admitted. That way a flood of half-sent requests
displaces itself, and a complete request is answered all the same. All in the event loop.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from meshhost.edge.descriptors import most_descriptors, quiet_accept, raise_limit
from meshhost.loopback import is_loopback

__all__ = ["EdgeLimits", "GuardedSite"]

logger = logging.getLogger(__name__)

_SWEEP_SECONDS = 1.0
_LOG_SECONDS = 10.0
# What is left of the file descriptors for stores, calls and logs. The second is for all that the process has open: agents'
# connections to their rooms count there too.
_DESCRIPTOR_SHARE = 0.8
_HIGHEST_SHARE = 0.9
_LAST_SHARE = 0.95
# How long a refused connection may take to send what it has to.
_LINGER_SECONDS = 0.5
_ANSWER = b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: 0\r\n%s\r\n"
_TOO_SLOW = _ANSWER % (b"408 Request Timeout", b"")
_TOO_MANY = _ANSWER % (b"503 Service Unavailable", b"Retry-After: 1\r\n")


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """What a site admits.

    The headers of a request have `header_seconds` to arrive, and its body may pause for `body_idle_seconds`. At most
    `max_connections` are open (None: 80 % of the file descriptors that the process may have). Of those whose headers are
    incomplete there are at most `max_incomplete`, and `max_incomplete_per_address` from one address; from this machine, which
    a reverse proxy makes the address of everybody, as many as in total.
    """

    header_seconds: float = 10.0
    body_idle_seconds: float = 30.0
    max_connections: int | None = None
    max_incomplete: int = 1024
    max_incomplete_per_address: int = 128
    bytes_per_second: float = 1024.0

    def connections(self) -> int:
        """The most connections that may be open at once."""
        if self.max_connections is not None:
            return self.max_connections
        return most_descriptors(_DESCRIPTOR_SHARE)


class GuardedSite(web.TCPSite):
    """A TCPSite with limits."""

    def __init__(self, runner: web.AppRunner, host: str, port: int, *, limits: EdgeLimits | None = None) -> None:
        super().__init__(runner, host, port, reuse_address=True)
        raise_limit()
        quiet_accept()
        self._address = (host, port)
        self._guard = _Guard(limits or EdgeLimits())

    async def start(self) -> None:
        """Listen. Raises OSError."""
        await web.BaseSite.start(self)
        make = self._runner.server
        if make is None:
            raise RuntimeError("the runner is not set up")
        host, port = self._address
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(make(), self._guard), host, port, backlog=1024, reuse_address=True
        )
        self._guard.start(loop)

    async def stop(self) -> None:
        """See BaseSite: listen no more. Connections that are open stay, and are no longer watched."""
        self._guard.stop()
        await super().stop()


class _Guard:
    """The connections of one site. `incomplete` has those whose headers are incomplete, the oldest first."""

    def __init__(self, limits: EdgeLimits) -> None:
        self.limits = limits
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
        while self._incomplete and next(iter(self._incomplete.values())) < oldest:
            self._drop(next(iter(self._incomplete)), _TOO_SLOW)
        for connection in [each for each in self.open if each.body_stalled(now - self.limits.body_idle_seconds)]:
            self._drop(connection, None)
        if now - self._logged_at > _LOG_SECONDS:
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
        self._last_data = 0.0
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
        self._handler.connection_made(transport)
        self._begin_headers()

    def data_received(self, data: bytes) -> None:
        if not self._is_admitted:
            self.end(None)
            return
        handler = self._handler
        self._last_data = time.monotonic()
        # Between requests the handler has none in progress and none waiting: these bytes begin the next one.
        if not self._in_headers and not _has_request(handler):
            self._begin_headers()
        handler.data_received(data)
        if self._in_headers and _has_request(handler):
            self._in_headers = False
            self._guard.end_headers(self)

    def eof_received(self) -> None:
        if self._is_admitted:
            self._handler.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._guard.end_headers(self)
        self._guard.open.discard(self)
        if self._is_admitted:
            self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    def body_stalled(self, since: float) -> bool:
        """Whether a body is incomplete and nothing of it came since then, though it could have."""
        handler = self._handler
        request = handler._current_request  # noqa: SLF001
        if request is None or self._last_data >= since or handler._reading_paused:  # noqa: SLF001
            return False
        return not request.content.is_eof()

    def end(self, answer: bytes | None) -> None:
        """Close the connection, after this answer."""
        if self._transport is not None and not self._transport.is_closing():
            if answer is not None:
                self._transport.write(answer)
            self._transport.close()

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


def _has_request(handler: RequestHandler) -> bool:
    # aiohttp has no public name for this; tests with half-sent requests fail if it changes.
    return bool(handler._messages) or handler._current_request is not None or handler._upgraded  # noqa: SLF001
