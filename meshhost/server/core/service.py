"""What a room server's services are: the Protocol that each implements, and the set that the server runs.

A service adds operations to every room: messaging, queues, storage, documents, agents, the developer log. The server itself
knows none of them by name. It is given a list of `RoomService` objects, serves their operations, and tells them when a room
opens or ends and when a participant connects or leaves. `RoomDirectory` calls the hooks through a `ServiceSet`, in the order of
the list; a hook that fails is logged and the next service is told all the same, so one service cannot keep another from
cleaning up.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Peer
from meshhost.server.core.requests import Operation, Operations
from meshhost.server.core.room import Room

__all__ = ["RoomService", "ServiceSet"]

logger = logging.getLogger(__name__)

S = TypeVar("S")


class RoomService(Protocol):
    """One service of every room. Subclass it and override what you need: every hook does nothing by default.

    State belongs in a `Slot` of the room, the participant or the peer; it is then freed with its owner. A service that keeps a
    room, participant or peer in a collection of its own must remove it in the matching hook.

    The hooks of one participant come in this order::

        joined            the participant has a connection and was greeted
        disconnected      that connection takes nothing any more      (at once, before anything else happens in the room)
        settle            the same connection is over                 (may wait for a store)
        ...               joined, disconnected, settle again for each time it resumes
        left              the participant will not come back

    A participant that resumes before the server noticed the end of the old connection gets `disconnected` for the old peer,
    then `joined` for the new one, and `settle` for the old one later. Requests of a connection may still be in progress
    during its `disconnected`, but not during its `settle`. For a room, `opened` comes first; `ended` does not wait for the
    last `settle`.
    """

    def operations(self) -> Operations:
        """The operations that this service offers, by the server's names. Read once, when the server is built."""
        return {}

    async def run(self) -> None:
        """Background work of the service. Runs from the server's start to its stop, where it is cancelled."""
        return

    async def opened(self, room: Room) -> None:
        """A room was opened and is awake. Runs as a task, as long as the room is open; cancelled when the room ends.

        Not called for a room that was only looked at, for which `ended` is called all the same.
        """
        return

    def check_join(self, room: Room, joining: Participant) -> None:
        """A participant asks to join for the first time; raise the MeshhostError to refuse it with.

        Not called for one that comes back on a new connection, nor for clients that do not tell the two apart.
        """
        return

    def joined(self, room: Room, participant: Participant, peer: Peer) -> None:
        """A participant joined, or came back on a new connection."""
        return

    def disconnected(self, room: Room, participant: Participant, peer: Peer) -> None:
        """The connection ended, or another one replaced it: end what belongs to it.

        Called synchronously, so that a participant that resumes at once never meets what it registered before.
        """
        return

    def given_up(self, room: Room, participant: Participant, peer: Peer, message_id: int) -> None:
        """The client gave up the request of this message id, but its answer is sent already: take back what it handed over.

        Called synchronously, before the next request of the connection is read. The request may have been any service's.
        """
        return

    async def settle(self, room: Room, participant: Participant, peer: Peer, *, orderly: bool) -> None:
        """Settle with the stores what the ended connection held. `orderly`: the client closed it on purpose."""
        return

    async def left(self, room: Room, participant: Participant) -> None:
        """The participant left for good: it closed in order, lost its right to be here, or did not resume in time."""
        return

    async def has_work(self, room: Room) -> bool:
        """Whether there is work for the agents that the server calls into the room, so that the room must stay open."""
        return False

    async def ended(self, room: Room) -> None:
        """The room ended. Its participants are being disconnected."""
        return


class ServiceSet:
    """The services of a server, in the order in which their hooks are called."""

    def __init__(self, services: Sequence[RoomService]) -> None:
        self._services = tuple(services)

    def __iter__(self) -> Iterator[RoomService]:
        return iter(self._services)

    def find(self, kind: type[S]) -> S:
        """The first service of this class. Raises LookupError."""
        for service in self._services:
            if isinstance(service, kind):
                return service
        raise LookupError(f"no {kind.__name__} here")

    def operations(self) -> Operations:
        """The operations of all services. Raises ValueError when two offer the same name."""
        table: dict[str, Operation[Any]] = {}
        for service in self._services:
            offered = service.operations()
            if twice := table.keys() & offered.keys():
                raise ValueError(f"offered by two services: {', '.join(sorted(twice))}")
            table |= offered
        return table

    async def opened(self, room: Room) -> None:
        """See RoomService. The services' tasks run side by side, until each returns or this is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for service in self._services:
                tasks.create_task(self._opened(service, room), name=f"{_name(service)} in room {room.key.name}")

    def check_join(self, room: Room, joining: Participant) -> None:
        """See RoomService. Raises what the first service that refuses raises."""
        for service in self._services:
            service.check_join(room, joining)

    def joined(self, room: Room, participant: Participant, peer: Peer) -> None:
        """See RoomService."""
        for service in self._services:
            with _logged(service):
                service.joined(room, participant, peer)

    def disconnected(self, room: Room, participant: Participant, peer: Peer) -> None:
        """See RoomService."""
        for service in self._services:
            with _logged(service):
                service.disconnected(room, participant, peer)

    def given_up(self, room: Room, participant: Participant, peer: Peer, message_id: int) -> None:
        """See RoomService."""
        for service in self._services:
            with _logged(service):
                service.given_up(room, participant, peer, message_id)

    async def settle(self, room: Room, participant: Participant, peer: Peer, *, orderly: bool) -> None:
        """See RoomService."""
        for service in self._services:
            with _logged(service):
                await service.settle(room, participant, peer, orderly=orderly)

    async def left(self, room: Room, participant: Participant) -> None:
        """See RoomService."""
        for service in self._services:
            with _logged(service):
                await service.left(room, participant)

    async def has_work(self, room: Room) -> bool:
        """Whether any service has work. Raises what a service raises: then nobody knows."""
        for service in self._services:
            if await service.has_work(room):
                return True
        return False

    async def ended(self, room: Room) -> None:
        """See RoomService."""
        for service in self._services:
            with _logged(service):
                await service.ended(room)

    @staticmethod
    async def _opened(service: RoomService, room: Room) -> None:
        with _logged(service):
            await service.opened(room)


@contextmanager
def _logged(service: RoomService) -> Iterator[None]:
    try:
        yield
    except Exception:
        logger.exception("hook of a service failed", extra={"service": _name(service)})


def _name(service: RoomService) -> str:
    return type(service).__name__
