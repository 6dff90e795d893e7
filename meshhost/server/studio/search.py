"""`GET /search`: finds rooms, queues, agents, schedules, files and messages of a tenant by a part of their names.

For the search field of Studio, which asks while somebody types, so an answer is bounded in time and in size, and says when it
is cut. Names of rooms, queues and schedules are read from the stores once in some seconds for all who ask; participants are
those that are connected. Files are looked through for at most a second, the rooms that are open first. A number is also looked
up as the id of a message. Matches at the beginning of a name come first. A viewer sees no files, as it sees no contents. The
operator finds tenants, rooms and queues of all.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import web

from meshhost.errors import InvalidRequestError
from meshhost.identity.roles import Role
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.service import QueueService
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.fresh import Fresh
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import query_number
from meshhost.stores.files import RoomFiles
from meshhost.stores.queues import QueueKey
from meshhost.triggers.schedules import Schedules

__all__ = ["SearchRoutes"]

_SECONDS = 5.0
_FILE_SECONDS = 1.0
_LIMIT, _MOST, _MOST_CHARACTERS = 20, 100, 200
# Queues that are asked for a message of an id.
_MOST_QUEUES = 200
_ALL = 2**31
# What comes first of matches that are equally good.
_KINDS = ("tenant", "room", "queue", "message", "agent", "schedule", "file")

Kind = Literal["tenant", "room", "queue", "message", "agent", "schedule", "file"]


@dataclass(frozen=True, slots=True)
class _Name:
    """Something that has a name."""

    kind: Kind
    tenant: str
    name: str
    room: str | None = None
    queue: str | None = None
    id: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "tenant": self.tenant,
            "name": self.name,
            "room": self.room,
            "queue": self.queue,
            "id": self.id,
        }


class SearchRoutes:
    """Serves `/search`."""

    def __init__(
        self,
        access: Access,
        directory: RoomDirectory,
        queues: QueueService,
        files: RoomFiles,
        schedules: Schedules,
        *,
        seconds: float = _SECONDS,
        file_seconds: float = _FILE_SECONDS,
    ) -> None:
        self._access = access
        self._identity = access.identity
        self._directory = directory
        self._queues = queues
        self._files = files
        self._schedules = schedules
        self._file_seconds = file_seconds
        self._stored: Fresh[TenantId | None, list[_Name]] = Fresh(self._stored_names, seconds=seconds)

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.add_routes([web.get("/search", self._search)])

    async def _search(self, request: web.Request) -> web.Response:
        tenant, sees_files = None, False
        if not self._access.is_operator(request):
            holder = self._access.permitted(request)
            tenant, sees_files = TenantId(holder.project), holder.role.includes(Role.DEVELOPER)
        text = request.query.get("q", "").strip().casefold()
        if not text or len(text) > _MOST_CHARACTERS:
            raise InvalidRequestError("q", f"expected a text of 1 to {_MOST_CHARACTERS} characters")
        limit = max(1, min(query_number(request, "limit", _LIMIT), _MOST))
        stored = (await self._stored.of(tenant)).value
        known = dict.fromkeys((*stored, *self._present(tenant)))
        found = [name for name in known if text in name.name.casefold()]
        is_cut = len(found) >= limit
        if tenant is not None and text.isascii() and text.isdecimal() and len(text) < 19:
            found += await self._messages(int(text), stored)
        if tenant is not None and sees_files and len(found) < limit:
            rooms = sorted({name.room or name.name for name in stored if name.kind == "room"})
            files, is_cut = await self._found_files(tenant, text, rooms, limit - len(found))
            found += files
        found.sort(key=lambda name: _rank(name, text))
        shown = [name.as_json() for name in found[:limit]]
        return web.json_response({"found": shown, "cut": is_cut or len(found) > limit})

    async def _stored_names(self, tenant: TenantId | None) -> list[_Name]:
        projects = [project for project in await self._identity.projects() if tenant in (None, project.id)]
        names = [_Name("tenant", project.id, project.name) for project in projects] if tenant is None else []
        known = {project.id for project in projects}
        rooms: dict[RoomKey, None] = {}
        queues = list[_Name]()
        for room, queue in await self._queues.overview(tenant):
            rooms[room] = None
            queues.append(_Name("queue", room.tenant, queue.name, room.name, queue.name))
        if tenant is not None:
            for info in await self._identity.rooms(tenant, limit=_ALL, offset=0):
                rooms[RoomKey(tenant, info.name)] = None
            for schedule in await self._schedules.list(tenant):
                name = schedule.spec.name or schedule.id
                queues.append(_Name("schedule", tenant, name, schedule.room.name, schedule.spec.queue, schedule.id))
        names += [_Name("room", room.tenant, room.name, room.name) for room in rooms]
        return [name for name in (*names, *queues) if name.tenant in known and not self._is_going(name)]

    def _is_going(self, name: _Name) -> bool:
        """Whether the room is being deleted or imported."""
        return name.room is not None and self._identity.deleted_rooms.is_known(
            RoomKey(TenantId(name.tenant), name.room)
        )

    def _present(self, tenant: TenantId | None) -> Iterator[_Name]:
        """Rooms that are open, and the agents in them."""
        for room in self._directory.rooms:
            if tenant in (None, room.key.tenant) and room.is_awake:
                yield _Name("room", room.key.tenant, room.key.name, room.key.name)
                names = {member.name for member in room.connected() if member.role != "user"}
                yield from (_Name("agent", room.key.tenant, name, room.key.name) for name in sorted(names))

    async def _messages(self, message_id: int, stored: Iterable[_Name]) -> list[_Name]:
        found = list[_Name]()
        queues = [name for name in stored if name.kind == "queue"]
        for name in queues[:_MOST_QUEUES]:
            room = RoomKey(TenantId(name.tenant), name.room or "")
            if await self._queues.get(QueueKey(room, name.name), message_id) is not None:
                found.append(_Name("message", name.tenant, str(message_id), name.room, name.name, str(message_id)))
        return found

    async def _found_files(
        self, tenant: TenantId, text: str, rooms: Iterable[str], limit: int
    ) -> tuple[list[_Name], bool]:
        """Files whose path has the text in it, and whether there may be more."""
        found = list[_Name]()
        is_open = {room.key.name for room in self._directory.rooms if room.key.tenant == tenant}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._file_seconds):
                for room in sorted({*rooms, *await self._files.rooms(tenant)}, key=lambda name: name not in is_open):
                    async for path in self._files.all_paths(RoomKey(tenant, room)):
                        if text in path.casefold():
                            found.append(_Name("file", tenant, path, room))
                            if len(found) > limit:
                                return found[:limit], True
                return found, False
        return found, True


def _rank(name: _Name, text: str) -> tuple[bool, int, str, str]:
    shown = name.name.casefold().rpartition("/")[2] if name.kind == "file" else name.name.casefold()
    return not shown.startswith(text), _KINDS.index(name.kind), name.name, name.room or ""
