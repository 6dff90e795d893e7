"""Connects the calling of agents, and the webhooks about rooms, to the life of a room.

When a room opens, its webhooks are sent and then its configured agents are called; both run in the room's own task, so they end
with the room. The service offers no operations: the agents service calls agents in on request through `ServiceCaller.call_out`.
"""

import logging
from collections.abc import Sequence

from meshhost.errors import CallRefusedError
from meshhost.server.calling.caller import ServiceCaller
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.tenant_names import name_of

__all__ = ["CallingService"]

logger = logging.getLogger(__name__)


class CallingService(RoomService):
    """Sends `room.started` and `room.ended` to `webhook_urls`, and keeps a room's configured agents in it."""

    def __init__(
        self, caller: ServiceCaller, sender: WebhookSender, *, webhook_urls: Sequence[str], webhook_secret: str | None
    ) -> None:
        self._caller = caller
        self._sender = sender
        self._webhook_urls = webhook_urls
        self._webhook_secret = webhook_secret

    async def opened(self, room: Room) -> None:
        """See RoomService."""
        await self._send("room.started", {"room_name": room.key.name, "room_url": room.url, "tenant": room.key.tenant})
        await self._caller.keep_called(room)

    async def ended(self, room: Room) -> None:
        """See RoomService."""
        await self._send("room.ended", {"room_name": room.key.name, "tenant": room.key.tenant})

    async def _send(self, event: str, data: dict[str, str]) -> None:
        data = {**data, "tenant_name": name_of(data["tenant"])}
        for url in self._webhook_urls:
            try:
                await self._sender.send(url, event, data, secret=self._webhook_secret)
            except CallRefusedError as error:
                fields = {"tenant": data["tenant"], "room": data["room_name"], "reason": str(error)}
                logger.warning("webhook failed", extra={"event": event, **fields})
