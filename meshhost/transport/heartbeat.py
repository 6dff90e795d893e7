"""Whether the other side of an accepted WebSocket still lives, and how long its silence is borne.

The server pings a connection that was silent for a while, and ends it when nothing comes for half as long again. That is right
for a client that is gone without a close frame. It is wrong for a process that lives while its event loop is blocked: it
answers no ping, but ends its connection when it dies, because the system closes the socket. So a caller that knows more may ask
for a sign of life (`probe`) and for patience: until that is over, only the end of the connection itself counts. `watch_socket`
makes the system notice a peer whose machine is gone.

One timer of the event loop per connection, started by `start` and ended by `stop`; no task while nothing is due.
"""

import asyncio
import contextlib
import socket as sockets
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["Heartbeat", "watch_socket"]

# Linux: a connection is over when nobody acknowledges its data for this time. A slow reader may also block us for it.
_UNACKNOWLEDGED_SECONDS = 60
_KEEPALIVE = (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
_USER_TIMEOUT = ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED_SECONDS * 1000)


class Heartbeat:
    """Pings through `ping` after `seconds` of silence, and calls `end` when the silence lasts half as long again."""

    __slots__ = (
        "_borne_until",
        "_end",
        "_heard_at",
        "_is_listening",
        "_loop",
        "_ping",
        "_pinged_at",
        "_pinging",
        "_seconds",
        "_timer",
    )

    def __init__(
        self, *, seconds: float, ping: Callable[[], Coroutine[Any, Any, None]], end: Callable[[], None]
    ) -> None:
        self._seconds = seconds
        self._ping = ping
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._borne_until = 0.0
        self._pinged_at: float | None = None
        self._pinging: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = self._loop.time()
        self._is_listening = False

    @property
    def heard_at(self) -> float:
        """When anything came last, on the clock of the event loop; now, while nobody here reads what may have come."""
        return self._heard_at if self._is_listening else self._loop.time()

    def start(self) -> None:
        """Begin to watch."""
        self._set_timer(self._seconds)

    def stop(self) -> None:
        """Watch no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._pinging is not None:
            self._pinging.cancel()

    def listen(self) -> None:
        """What comes is read from now on: silence counts."""
        self.heard()

    def heard(self, *, listening: bool = True) -> None:
        """Something came, even if it was an answer to a ping; `listening`: more is read at once."""
        self._heard_at = self._loop.time()
        self._is_listening = listening

    def probe(self, *, patience: float) -> float:
        """Send a ping now, and do not end a silent connection within `patience` seconds. Returns the present time."""
        now = self._loop.time()
        self._borne_until = now + patience
        self._send_ping(now)
        return now

    def _send_ping(self, now: float) -> None:
        if self._pinged_at is None or self._pinged_at <= self.heard_at:
            self._pinged_at = now
        if self._pinging is None or self._pinging.done():
            self._pinging = self._loop.create_task(self._try_to_ping(), name="ping")

    async def _try_to_ping(self) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):  # the connection has ended; its reader says so
            await self._ping()

    def _set_timer(self, seconds: float) -> None:
        self._timer = self._loop.call_later(max(seconds, 0.001), self._check)

    def _check(self) -> None:
        now = self._loop.time()
        silent_since = max(self.heard_at, self._borne_until)
        if now < (ping_at := silent_since + self._seconds):
            self._set_timer(ping_at - now)
        elif self._pinged_at is None or self._pinged_at < silent_since:
            self._send_ping(now)
            self._set_timer(self._seconds / 2)
        elif now < (end_at := self._pinged_at + self._seconds / 2):
            self._set_timer(end_at - now)
        else:
            self._end()


def watch_socket(socket: Any) -> None:
    """Let the system end the TCP connection of a peer whose machine does not answer. Only where it can (Linux)."""
    if socket is None or socket.family not in (sockets.AF_INET, sockets.AF_INET6):
        return
    with contextlib.suppress(OSError):
        socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
        for name, value in (*_KEEPALIVE, _USER_TIMEOUT):
            if hasattr(sockets, name):
                socket.setsockopt(sockets.IPPROTO_TCP, getattr(sockets, name), value)
