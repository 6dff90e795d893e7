"""What happened in rooms lately: `GET /rooms/{room}/log`, from a ring of lines that the server keeps in memory.

Three sources write it: entries of the developer log, which participants send; what agents log while they work on messages,
which they report (`meshhost.work_log`); and the server's own log records about a room (participants that join and leave, calls
of services). Each room has its last lines, those of work apart from the others, so that busy agents do not push out what else
happened. Only so many rooms have lines, and all lines together take only so much memory: the tenant that has most of either
gives away what it logged longest ago, so no tenant pushes out the lines of others. Lines are bounded texts; they are
lost when the server stops, and each server has those of the rooms that it had open. Lines are numbered in order over all
rooms, so that who follows asks for what came after the last one.

`emit` is called in any thread and must not raise; the lock of the handler makes it, `keep` and `after` safe.
"""

import json
import logging
import sys
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import merge
from typing import Any

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
_MOST_BYTES = 64 * 1024 * 1024
_LINE_BYTES = 400  # of a line beside its texts
_LEVELS = {name: getattr(logging, name) for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}
# Of a record, what a line says elsewhere, or what is the same for all of the room.
_KNOWN = frozenset({"time", "level", "logger", "message", "tenant", "tenant_name", "room", "identity"})


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    at: float  # by the clock of who logged it
    kept_at: float  # by the server's
    level: int
    agent: str
    text: str
    fields: str  # JSON
    of: Worked | None = None  # the message that its agent worked on

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return _LINE_BYTES + sum(map(sys.getsizeof, (self.agent, self.text, self.fields, *(self.of or ())[:2])))

    def as_json(self) -> dict[str, Any]:
        name = logging.getLevelName(self.level)
        return {
            "n": self.number,
            "at": round(self.at, 3),
            "level": name,
            "agent": self.agent,
            "text": self.text,
            "fields": json.loads(self.fields, parse_constant=str),  # 1e999 is JSON, but Infinity is not
        }


@dataclass(frozen=True, slots=True)
class _Kept:
    """The lines of a room: those of work on messages, and all others."""

    others: deque[_Line] = field(default_factory=deque)
    of_work: deque[_Line] = field(default_factory=deque)

    def lines(self) -> list[_Line]:
        """All in order."""
        return list(merge(self.others, self.of_work, key=lambda line: line.number))

    def oldest(self) -> deque[_Line]:
        """Those of which the first is the oldest of all; empty when there are none."""
        return min((self.others, self.of_work), key=lambda lines: lines[0].number if lines else sys.maxsize)


class RoomLog(logging.Handler):
    """The last lines of each of the last rooms that logged anything."""

    def __init__(
        self,
        *,
        most_lines: int = _MOST_LINES,
        most_of_work: int = _MOST_OF_WORK,
        most_rooms: int = _MOST_ROOMS,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        super().__init__(logging.INFO)
        self._most_lines, self._most_of_work, self._most_rooms = most_lines, most_of_work, most_rooms
        self._most_bytes = most_bytes
        self._rooms: OrderedDict[RoomKey, _Kept] = OrderedDict()
        self._rooms_of: Counter[TenantId] = Counter()
        self._bytes_of: Counter[TenantId] = Counter()
        self._bytes = 0
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
        kept_at: float | None = None,
    ) -> None:
        """Keep a line. `kept_at` is now, where `at` is the time of another's clock. Any thread may call this."""
        content = _bounded(fields)
        self.acquire()
        try:
            self._last += 1
            if room not in self._rooms:
                self._rooms[room] = _Kept()
                self._rooms_of[room.tenant] += 1
            self._rooms.move_to_end(room)
            kept = self._rooms[room]
            lines, most = (kept.others, self._most_lines) if of is None else (kept.of_work, self._most_of_work)
            kept_at = at if kept_at is None else kept_at
            line = _Line(self._last, at, kept_at, level, agent[:200], text[:_MAX_TEXT], content, of)
            lines.append(line)
            self._count(room, line.size)
            if len(lines) > most:
                self._drop_first(room, lines)
            self._make_place()
        finally:
            self.release()

    def _count(self, room: RoomKey, size: int) -> None:
        self._bytes += size
        self._bytes_of[room.tenant] += size

    def _drop_first(self, room: RoomKey, lines: deque[_Line]) -> None:
        self._count(room, -lines.popleft().size)

    def _make_place(self) -> None:
        while len(self._rooms) > self._most_rooms:
            self._drop_room(self._first_of(self._rooms_of))
        while self._bytes > self._most_bytes:
            room = self._first_of(self._bytes_of)
            if oldest := self._rooms[room].oldest():
                self._drop_first(room, oldest)
            else:
                self._drop_room(room)

    def _first_of(self, has: Counter[TenantId]) -> RoomKey:
        """The room that logged longest ago, of the tenant that has most."""
        most = max(has.values())
        return next(room for room in self._rooms if has[room.tenant] == most)

    def _drop_room(self, room: RoomKey) -> None:
        kept = self._rooms.pop(room)
        self._count(room, -sum(line.size for line in kept.lines()))
        self._rooms_of[room.tenant] -= 1
        if not self._rooms_of[room.tenant]:
            del self._rooms_of[room.tenant], self._bytes_of[room.tenant]

    def keep_line(self, room: Room, writer: Participant, line: Line) -> None:
        """Keep what a participant logged while it worked on a message."""
        fields = {"logger": line.logger, **line.of._asdict(), **line.fields}
        fields["message_id"] = fields.pop("id")
        self.keep(room.key, line.at, _LEVELS[line.level], writer.name, line.text, fields, line.of, time.time())

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
            kept = self._rooms.get(room)
            for lines in () if kept is None else (kept.others, kept.of_work):
                while lines and lines[0].kept_at <= until:
                    self._drop_first(room, lines)
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
    return not text or text in line.text.casefold() or text in line.fields.casefold()


def _bounded(fields: dict[str, Any]) -> str:
    """The fields as JSON, or the beginning of it when they are too much. What is no JSON becomes text."""
    text = json.dumps(fields, default=str, ensure_ascii=False)
    return text if len(text) <= _MAX_TEXT else json.dumps({"cut": text[:_MAX_TEXT]}, ensure_ascii=False)
