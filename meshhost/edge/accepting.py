"""Accepts the connections of listening sockets one at a time, at the pace that `Pace` allows.

asyncio's own server accepts all that wait in one turn of the loop, so that a crowd holds up everybody else. `Acceptor` is
called by the loop when a connection waits, accepts one, and is called again in the next turn, after the work of others. When it
must wait it does not look at the socket until then. It starts a task for each connection, which ends when the protocol has it.

Without file descriptors nothing can be accepted. Then it tries again after a second, and logs that once in a while. All in the
event loop, which owns the sockets' readers; `stop` takes them back.
"""

import asyncio
import functools
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence

from meshhost.edge.pace import Pace

__all__ = ["Acceptor"]

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0
_LOG_SECONDS = 30.0


class Acceptor:
    """Accepts connections of `listening` until `stop`, each with a new protocol of `make`. `waiting` may wait in the system."""

    def __init__(self, make: Callable[[], asyncio.Protocol], *, pace: Pace, waiting: int) -> None:
        self._make = make
        self._pace = pace
        self._waiting = waiting
        self._sockets: list[socket.socket] = []
        self._timers: dict[socket.socket, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log_at = 0.0

    def start(self, listening: Sequence[socket.socket]) -> None:
        """Accept connections of these sockets, which stay the caller's. Raises OSError."""
        for each in listening:
            # A copy: asyncio lends its sockets for looking only.
            own = socket.socket(fileno=os.dup(each.fileno()))
            self._sockets.append(own)
            own.setblocking(False)
            own.listen(self._waiting)
            self._look(own)

    def stop(self) -> None:
        """Accept no more. Idempotent."""
        loop = asyncio.get_running_loop()
        for timer in self._timers.values():
            timer.cancel()
        for own in self._sockets:
            loop.remove_reader(own)
            own.close()
        self._timers, self._sockets = {}, []

    def _look(self, own: socket.socket) -> None:
        self._timers.pop(own, None)
        asyncio.get_running_loop().add_reader(own, self._accept, own)

    def _look_later(self, own: socket.socket, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(own)
        self._timers[own] = loop.call_later(seconds, self._look, own)

    def _accept(self, own: socket.socket) -> None:
        if (seconds := self._pace.wait()) > 0:
            self._look_later(own, seconds)
            return
        try:
            accepted, _ = own.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            self._log(error)
            self._look_later(own, _AGAIN_SECONDS)
            return
        self._pace.accept()
        accepted.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._connect(accepted))
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._connected, accepted))

    def _connected(self, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # the loop ends, perhaps before the task has run at all
            accepted.close()

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._make, accepted)
        except OSError:  # it is gone already
            accepted.close()

    def _log(self, error: OSError) -> None:
        if time.monotonic() >= self._log_at:
            self._log_at = time.monotonic() + _LOG_SECONDS
            logger.error("cannot accept connections", extra={"reason": error.strerror})
