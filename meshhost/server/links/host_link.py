"""One link of a host, as the server keeps it: who opened it, and the connection that it has now, if it has one."""

import asyncio
import secrets
from collections.abc import Callable

from meshhost.identity.tenant import TenantId
from meshhost.link.running import Link
from meshhost.transport.websocket_server import AiohttpTransport

__all__ = ["HostLink", "LinkTransport"]


class HostLink:
    """One link: who opened it, its present connection, and the timer that ends it when it is lost."""

    def __init__(self, link: Link, tenant: TenantId | None, key_id: str | None) -> None:
        self.link = link
        self.tenant, self.key_id = tenant, key_id
        self.token = secrets.token_urlsafe(32)
        self._shown: str | None = None
        self._heard_before = 0.0
        self.transport: AiohttpTransport | None = None
        self.left = asyncio.Event()
        self.timer: asyncio.TimerHandle | None = None
        self.is_given_up = False
        # Channels over which a host is called.
        self.hosts = 0

    def takes(self, token: str) -> bool:
        """Whether who shows this token may go on: the present one, or the one before while nothing says that this arrived."""
        return token == self.token or (token == self._shown and self.link.heard_at == self._heard_before)

    def renew(self, shown: str | None) -> None:
        """There is a new connection, for which this token was shown: it is good once, so that who saw it cannot use it."""
        self._shown, self._heard_before = shown, self.link.heard_at
        self.token = secrets.token_urlsafe(32)

    # A `Pulse` of the participants: the host lives if its link does.

    @property
    def heard_at(self) -> float:
        """When anything came last."""
        return self.link.heard_at if self.transport is None else max(self.link.heard_at, self._heard_at())

    def _heard_at(self) -> float:
        heartbeat = None if self.transport is None else self.transport.heartbeat
        return 0.0 if heartbeat is None else heartbeat.heard_at

    def probe(self, *, patience: float) -> float:
        """Ask for a sign of life, and do not take silence for the end within `patience` seconds."""
        if self.transport is not None and self.transport.heartbeat is not None:
            return self.transport.heartbeat.probe(patience=patience)
        return asyncio.get_running_loop().time()

    def stop(self) -> None:
        """One participant has left."""


class LinkTransport(AiohttpTransport):
    """A WebSocket that says when a message was taken, so that what was held for it is given back."""

    taken: Callable[[], None] | None = None

    async def receive(self) -> bytes:
        """See `Transport`."""
        data = await super().receive()
        if self.taken is not None:
            self.taken()
        return data
