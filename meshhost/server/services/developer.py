"""The developer log: entries that participants write and that watching participants receive (room-protocol §12).

Nothing is stored here; `on_entry` may keep some in memory. Watching ends with the connection.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from pydantic import Field

from meshhost.identity.grants import ApiScope
from meshhost.protocol.messages import EmptyResponse
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Event, Peer
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.server.core.slots import Slot

__all__ = ["DeveloperService"]


class _Log(Body):
    type: str = Field(max_length=256)
    data: dict[str, Any]


class _Nothing(Body):
    pass


OnEntry: TypeAlias = Callable[[Room, Participant, str, dict[str, Any]], object]


def _ignore(*_: object) -> None:
    pass


class DeveloperService(RoomService):
    """The developer log. `on_entry` is called with each entry: its room, who wrote it, its type and its data."""

    def __init__(self, *, on_entry: OnEntry = _ignore) -> None:
        self._on_entry = on_entry
        self._watching: Slot[set[Participant]] = Slot(set)

    def operations(self) -> Operations:
        """See RoomService."""
        return {
            "developer.log": Operation(_Log, self._log, _may_log),
            "developer.watch": Operation(_Nothing, self._watch, _may_log),
            "developer.unwatch": Operation(_Nothing, self._unwatch, _may_log),
        }

    def disconnected(self, room: Room, participant: Participant, peer: Peer) -> None:
        """See RoomService."""
        self._watching.of(room).discard(participant)

    def _log(self, request: Request, body: _Log) -> Answer:
        self._on_entry(request.room, request.participant, body.type, body.data)
        watching = self._watching.of(request.room)
        watchers = [member for member in request.room.connected() if member in watching]
        request.room.tell(watchers, Event("developer.log", {"type": body.type, "data": body.data}))
        return EmptyResponse()

    def _watch(self, request: Request, _: _Nothing) -> Answer:
        self._watching.of(request.room).add(request.participant)
        return EmptyResponse()

    def _unwatch(self, request: Request, _: _Nothing) -> Answer:
        self._watching.of(request.room).discard(request.participant)
        return EmptyResponse()


def _may_log(scope: ApiScope, _: Body) -> bool:
    return scope.developer is not None and scope.developer.logs
