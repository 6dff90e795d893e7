"""Connects the calling of agents, and the webhooks about rooms, to the life of a room.

When a room wakes, its webhooks are sent and then its configured agents are called; both run in the room's own task, so they end
with the room. An agent whose place is taken, or whose service is not configured any more, does not stay: one that its host has
just started is refused, one that comes back on a new connection is told to leave (`dismiss` sends it the message). Its host
ends it for good and forgets it. The service offers no operations: the agents service calls agents in on request through
`ServiceCaller.call_out`.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable, Sequence

from meshhost.errors import AlreadyExistsError, CallRefusedError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.server.calling.caller import ServiceCaller
from meshhost.server.calling.kept import Unwanted
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.server.config import ConfiguredService
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Peer
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.tenant_names import name_of

__all__ = ["CallingService"]

logger = logging.getLogger(__name__)

REPEAT_SECONDS = 5.0
_WILDCARDS = frozenset("*?[")


class CallingService(RoomService):
    """Sends `room.started` and `room.ended` to `webhook_urls`, and keeps a room's configured agents in it.

    `on_event` gets both, too: it must not wait.
    """

    def __init__(
        self,
        caller: ServiceCaller,
        sender: WebhookSender,
        *,
        webhook_urls: Sequence[str],
        webhook_secret: str | None,
        dismiss: Callable[[Participant, str], None],
        on_event: Callable[[RoomKey, str, dict[str, str]], None] = lambda *_: None,
    ) -> None:
        self._caller = caller
        self._sender = sender
        self._webhook_urls = webhook_urls
        self._webhook_secret = webhook_secret
        self._dismiss = dismiss
        self._on_event = on_event

    def check_join(self, room: Room, joining: Participant) -> None:
        """See RoomService: refuse an agent that its host starts again although its place is taken or gone.

        Its host then ends it before it has begun to work, and forgets it. An agent that was at work when it lost its
        connection is let in and told to leave, so that it can settle what it holds.
        """
        found = self._caller.unwanted(room, joining)
        if found is None or found.member is not joining:
            return
        logger.warning("agent is refused", extra=_fields(room, joining, found))
        raise NotFoundError(found.reason) if found.rival is None else AlreadyExistsError(found.reason)

    def joined(self, room: Room, participant: Participant, peer: Peer) -> None:
        """See RoomService: keep one agent for each path of each configured service."""
        if (found := self._caller.unwanted(room, participant)) is not None:
            self._tell_to_leave(room, participant, found)

    def replace_services(self, services: Sequence[ConfiguredService], rooms: Iterable[Room]) -> None:
        """Keep the agents of these services in the rooms from now on. Those of services and paths that are gone must leave.

        One that has no connection at the moment is told when it comes back (`joined`).
        """
        self._caller.replace(services)
        self._apply(rooms)

    def replace_stored(self, services: Sequence[ConfiguredService], rooms: Iterable[Room]) -> None:
        """Do the same for the services that tenants configured."""
        self._caller.replace_stored(services)
        self._apply(rooms)

    def _apply(self, rooms: Iterable[Room]) -> None:
        for room in rooms:
            for member in room.connected():
                found = None if member.is_leaving else self._caller.unwanted(room, member)
                if found is not None and found.rival is None:
                    self._tell_to_leave(room, member, found)
            room.changed()

    def linked_changed(self, directory: RoomDirectory) -> None:
        """Hosts dialled in, or are gone: keep the agents of their services, and wake the rooms that they name."""
        before = set(map(_key_of, self._caller.called))
        self._caller.linked_changed()
        self._apply(directory.rooms)
        for service in self._caller.called:
            if service.tenant is not None and not set(service.rooms) & _WILDCARDS and _key_of(service) not in before:
                directory.need(RoomKey(TenantId(service.tenant), service.rooms))

    def _tell_to_leave(self, room: Room, participant: Participant, found: Unwanted) -> None:
        logger.warning("agent is told to leave", extra=_fields(room, participant, found))
        found.member.is_leaving = True
        room.changed()
        self._dismiss(found.member, found.reason)
        # An agent of the SDK listens for the message only after it has joined.
        asyncio.get_running_loop().call_later(REPEAT_SECONDS, self._dismiss_again, found, found.member.peer)

    def _dismiss_again(self, found: Unwanted, peer: Peer | None) -> None:
        if found.member.peer is peer:
            self._dismiss(found.member, found.reason)

    async def opened(self, room: Room) -> None:
        """See RoomService."""
        await self._send(room.key, "room.started", {"room_name": room.key.name, "room_url": room.url})
        await self._caller.keep_called(room)

    async def ended(self, room: Room) -> None:
        """See RoomService. A room that was only looked at never started."""
        if room.is_awake:
            await self._send(room.key, "room.ended", {"room_name": room.key.name})

    async def _send(self, room: RoomKey, event: str, data: dict[str, str]) -> None:
        data = {**data, "tenant": room.tenant, "tenant_name": name_of(room.tenant)}
        self._on_event(room, event, data)
        for url in self._webhook_urls:
            try:
                await self._sender.send(url, event, data, secret=self._webhook_secret)
            except CallRefusedError as error:
                fields = {"tenant": data["tenant"], "room": data["room_name"], "reason": str(error)}
                logger.warning("webhook failed", extra={"event": event, **fields})


def _key_of(service: ConfiguredService) -> Hashable:
    """What tells services apart when rooms are woken. There may be thousands: to compare them one by one takes seconds."""
    return service.tenant, service.url, service.rooms, tuple((each.path, each.identity) for each in service.paths)


def _fields(room: Room, joining: Participant, found: Unwanted) -> dict[str, str]:
    return {"tenant": room.key.tenant, "room": room.key.name, "identity": joining.name, "reason": found.reason}
