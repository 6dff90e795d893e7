"""A listening site with limits, for an application that was prepared with `watch_requests`.

`GuardedSite` takes the place of aiohttp's TCPSite. Its `Acceptor` accepts connections at the pace that `EdgeLimits` allow to
those of nobody known, and its `Guard` ends those that do not finish their requests. Room server and service host listen with
it.
"""

import asyncio

from aiohttp import web

from meshhost.edge.accepting import Acceptor
from meshhost.edge.bodies import HeldBodies
from meshhost.edge.descriptors import raise_limit
from meshhost.edge.guard import Connection, Guard
from meshhost.edge.limits import EdgeLimits
from meshhost.edge.pace import Pace
from meshhost.edge.watched import watchers_of

__all__ = ["GuardedSite"]

_WAITING_CONNECTIONS = 1024


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
        limits = limits or EdgeLimits()
        self._address = (host, port)
        self._pace = Pace(limits.newcomer_share)
        self._guard = Guard(limits, watchers_of(runner.app), log_seconds)
        self._acceptor: Acceptor | None = None

    @property
    def bodies(self) -> HeldBodies:
        """The bodies that routes read whole."""
        return self._guard.bodies

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
        # asyncio makes and closes the sockets; it never serves them.
        self._server = await loop.create_server(asyncio.Protocol, host, port, start_serving=False, reuse_address=True)
        self._acceptor = Acceptor(
            lambda: Connection(make(), self._guard, self._pace), pace=self._pace, waiting=_WAITING_CONNECTIONS
        )
        self._acceptor.start(self._server.sockets)
        self._guard.start(loop)

    async def stop(self) -> None:
        """See BaseSite: listen no more. Connections that are open stay, and are no longer watched."""
        self._guard.stop()
        if self._acceptor is not None:
            self._acceptor.stop()
        await super().stop()
