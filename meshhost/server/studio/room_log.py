"""What happened in rooms lately: `GET /rooms/{room}/log`, from a ring of lines that the server keeps in memory.

Three sources write it: entries of the developer log, which participants send; what agents log while they work on messages,
which they report (`meshhost.work_log`); and the server's own log records about a room (participants that join and leave, calls
of services). Each room has its last lines, those of work apart from the others, so that busy agents do not push out what else
happened; and only so many rooms do: the one that logged longest ago gives its place away. Lines are bounded texts; they are
lost when the server stops, and each server has those of the rooms that it had open. Lines are numbered in order over all
rooms, so that who follows asks for what came after the last one.

`emit` is called in any thread and must not raise; the lock of the handler makes it, `keep` and `after` safe.
"""

import json
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import merge
from typing import Any, NamedTuple

from aiohttp import web

from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.logs import ContextFilter, as_json
from meshhost.server.core.participants import Participant
from meshhost.server.core.room import Room
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import query_number
from meshhost.work_log.line import Line, Worked
from meshhost.work_log.recording import is_reported

__all__ = ["RoomLog", "RoomLogRoutes"]

_MOST_LINES, _MOST_ROOMS = 500, 500
_MOST_OF_WORK = 1_000
_MAX_TEXT = 2_000
_LEVELS = {name: getattr(logging, name) for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}
# Of a record, what a line says elsewhere, or what is the same for all of the room.
_KNOWN = frozenset({"time", "level", "logger", "message", "tenant", "tenant_name", "room", "identity"})


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    at: float
    level: int
    agent: str
    text: str
    fields: dict[str, Any]
    of: Worked | None = None  # the message that its agent worked on

    def as_json(self) -> dict[str, Any]:
        name = logging.getLevelName(self.level)
        return {
            "n": self.number,
            "at": round(self.at, 3),
            "level": name,
            "agent": self.agent,
            "text": self.text,
            "fields": self.fields,
        }


class _Kept(NamedTuple):
    """The lines of a room: those of work on messages, and all others."""

    others: deque[_Line]
    of_work: deque[_Line]

    def lines(self) -> list[_Line]:
        """All in order."""
        return list(merge(self.others, self.of_work, key=lambda line: line.number))


class RoomLog(logging.Handler):
    """The last lines of each of the last rooms that logged anything."""

    def __init__(
        self, *, most_lines: int = _MOST_LINES, most_of_work: int = _MOST_OF_WORK, most_rooms: int = _MOST_ROOMS
    ) -> None:
        super().__init__(logging.INFO)
        self._most_lines, self._most_of_work, self._most_rooms = most_lines, most_of_work, most_rooms
        self._rooms: OrderedDict[RoomKey, _Kept] = OrderedDict()
        self._last = 0
        self.addFilter(ContextFilter())

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Take in what the package logs, for the length of the block.

        Not in a program without handlers: Python then writes its warnings to stderr itself.
        """
        logger, is_taken = logging.getLogger("meshhost"), bool(logging.getLogger().handlers)
        if is_taken:
            logger.addHandler(self)
        try:
            yield
        finally:
            if is_taken:
                logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record, if it is about a room and does not come as a line of an agent's work anyhow."""
        if is_reported():
            return
        tenant, room = getattr(record, "tenant", None), getattr(record, "room", None)
        if not (isinstance(tenant, str) and isinstance(room, str)):
            return
        try:
            content = as_json(record)
            fields = {name: value for name, value in content.items() if name not in _KNOWN}
            key = RoomKey(TenantId(tenant), room)
            agent = str(content.get("identity", ""))
            self.keep(key, record.created, record.levelno, agent, record.getMessage(), fields)
        except Exception:  # noqa: BLE001 - logging must not make the code fail that logs
            self.handleError(record)

    def keep(
        self,
        room: RoomKey,
        at: float,
        level: int,
        agent: str,
        text: str,
        fields: dict[str, Any],
        of: Worked | None = None,
    ) -> None:
        """Keep a line. Any thread may call this."""
        self.acquire()
        try:
            self._last += 1
            kept = self._rooms.get(room)
            if kept is None:
                kept = self._rooms[room] = _Kept(deque(maxlen=self._most_lines), deque(maxlen=self._most_of_work))
            self._rooms.move_to_end(room)
            while len(self._rooms) > self._most_rooms:
                self._rooms.popitem(last=False)
            line = _Line(self._last, at, level, agent[:200], text[:_MAX_TEXT], _bounded(fields), of)
            (kept.others if of is None else kept.of_work).append(line)
        finally:
            self.release()

    def keep_line(self, room: Room, writer: Participant, line: Line) -> None:
        """Keep what a participant logged while it worked on a message."""
        fields = {"logger": line.logger, **line.of._asdict(), **line.fields}
        fields["message_id"] = fields.pop("id")
        self.keep(room.key, line.at, _LEVELS[line.level], writer.name, line.text, fields, line.of)

    def keep_entry(self, room: Room, writer: Participant, type: str, data: dict[str, Any]) -> None:
        """Keep an entry of the developer log."""
        self.keep(room.key, time.time(), logging.INFO, writer.name, type, data)

    def after(
        self,
        room: RoomKey,
        number: int,
        *,
        limit: int,
        level: int = 0,
        agent: str = "",
        text: str = "",
        queue: str = "",
        message: str = "",
    ) -> tuple[list[dict[str, Any]], int]:
        """The newest `limit` lines after this number that match, oldest first; and the number to ask after next.

        With a `queue` or the id of a `message` only what agents logged while they worked on it.
        """
        self.acquire()
        try:
            lines, last = (kept.lines() if (kept := self._rooms.get(room)) else []), self._last
        finally:
            self.release()
        start = 0 if number > last else number  # of before a restart
        found = [
            line
            for line in lines
            if line.number > start
            and line.level >= level
            and agent in ("", line.agent)
            and _is_of(line, queue, message)
            and _has(line, text)
        ]
        return [line.as_json() for line in found[-limit:]], last

    def forget(self, room: RoomKey, *, until: float) -> None:
        """Drop the lines of a room up to this time, at which it was deleted."""
        self.acquire()
        try:
            for lines in self._rooms.get(room, ()):
                while lines and lines[0].at <= until:
                    lines.popleft()
        finally:
            self.release()


class RoomLogRoutes:
    """Serves the log of a room."""

    def __init__(self, access: Access, log: RoomLog) -> None:
        self._access = access
        self._log = log

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.add_routes([web.get("/rooms/{room}/log", self._show)])

    async def _show(self, request: web.Request) -> web.Response:
        tenant = TenantId(self._access.project(request))
        room = RoomKey(tenant, check_room_name(request.match_info["room"]))
        deleted = self._access.identity.deleted_rooms
        if deleted.is_known(room):
            raise NotFoundError("the room is being deleted or imported")
        # Those of the room that had the name before; also when another server deleted it.
        self._log.forget(room, until=deleted.deleted_at(room))
        name = request.query.get("level", "INFO").upper()
        if name not in _LEVELS:
            raise InvalidRequestError("level", f"expected one of {', '.join(_LEVELS)}")
        lines, last = self._log.after(
            room,
            query_number(request, "after", 0),
            limit=max(1, min(query_number(request, "limit", _MOST_LINES), _MOST_LINES)),
            level=_LEVELS[name],
            agent=request.query.get("agent", ""),
            text=request.query.get("text", "").casefold(),
            queue=request.query.get("queue", ""),
            message=request.query.get("message", ""),
        )
        return web.json_response({"lines": lines, "next": last})


def _is_of(line: _Line, queue: str, message: str) -> bool:
    if not queue and not message:
        return True
    return line.of is not None and queue in ("", line.of.queue) and message in ("", line.of.id)


def _has(line: _Line, text: str) -> bool:
    return not text or text in line.text.casefold() or text in json.dumps(line.fields, ensure_ascii=False).casefold()


def _bounded(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, or the beginning of their text when they are too much. What is no JSON becomes text."""
    text = json.dumps(fields, default=str, ensure_ascii=False)
    return dict(json.loads(text)) if len(text) <= _MAX_TEXT else {"cut": text[:_MAX_TEXT]}
