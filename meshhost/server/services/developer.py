"""The developer log: entries that participants write and that watching participants receive (room-protocol §12).

Nothing is stored here; `on_entry` and `on_line` may keep some in memory. Watching ends with the connection.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from meshhost.identity.grants import ApiScope
from meshhost.protocol.messages import EmptyResponse, JsonResponse
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Event, Peer
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.server.core.slots import Slot
from meshhost.work_log.line import MAX_BATCH, MAX_FIELDS, MAX_LINE_TEXT, MAX_NAME, Line, Worked

__all__ = ["DeveloperService"]


# A line has a few more fields than its record: what was left out before it.
_MAX_FIELDS, _MAX_QUEUE = MAX_FIELDS + 8, 1024
_MOST_SECONDS = 2.0**40


_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Log(Body):
    type: str = Field(max_length=256)
    data: dict[str, Any]


class _Line(Body):
    at: float = Field(ge=0, le=_MOST_SECONDS, allow_inf_nan=False)
    level: Literal["INFO", "WARNING", "ERROR", "CRITICAL"]
    logger: str = Field(max_length=MAX_NAME)
    text: str = Field(max_length=MAX_LINE_TEXT)
    queue: str = Field(max_length=_MAX_QUEUE)
    message_id: str = Field(max_length=MAX_NAME)
    attempt: int = Field(ge=0, le=2**31)
    fields: dict[str, str | int | _Finite | bool | None] = Field(default_factory=dict, max_length=_MAX_FIELDS)


class _Report(Body):
    lines: list[_Line] = Field(min_length=1, max_length=MAX_BATCH)


class _Nothing(Body):
    pass


OnEntry: TypeAlias = Callable[[Room, Participant, str, dict[str, Any]], object]
OnLine: TypeAlias = Callable[[Room, Participant, Line], object]


def _ignore(*_: object) -> None:
    pass


class DeveloperService(RoomService):
    """The developer log.

    `on_entry` is called with each entry: its room, who wrote it, its type and its data; `on_line` with each line that a
    participant logged while it worked on a message. Lines are not passed on to those who watch.
    """

    def __init__(self, *, on_entry: OnEntry = _ignore, on_line: OnLine = _ignore) -> None:
        self._on_entry = on_entry
        self._on_line = on_line
        self._watching: Slot[set[Participant]] = Slot(set)

    def operations(self) -> Operations:
        """See RoomService."""
        return {
            "developer.log": Operation(_Log, self._log, _may_log),
            "developer.report": Operation(_Report, self._report, _may_log),
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

    def _report(self, request: Request, body: _Report) -> Answer:
        for each in body.lines:
            of = Worked(each.queue, each.message_id, each.attempt)
            line = Line(each.at, each.level, each.logger, each.text, of, each.fields)
            self._on_line(request.room, request.participant, line)
        return JsonResponse(json={"kept": len(body.lines)})

    def _watch(self, request: Request, _: _Nothing) -> Answer:
        self._watching.of(request.room).add(request.participant)
        return EmptyResponse()

    def _unwatch(self, request: Request, _: _Nothing) -> Answer:
        self._watching.of(request.room).discard(request.participant)
        return EmptyResponse()


def _may_log(scope: ApiScope, _: Body) -> bool:
    return scope.developer is not None and scope.developer.logs
