"""`GET /overview`: the rooms of a tenant with their counts, and what needs attention first.

One answer instead of a request for each room, made from one question to the queue store and what is in memory, for all who ask
within some seconds (`fresh.py`). An API key or session sees its own tenant; the operator sees all tenants and what troubles
them, and the rooms of one when it names one. An answer has an `ETag` that leaves out what always changes, so that a page that
asks again is mostly answered with 304.
"""

import hashlib
import json
import math
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from aiohttp import web

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.service import QueueService
from meshhost.quotas.counts import TenantCounts
from meshhost.server.calling.caller import ServiceCaller
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.fresh import Fresh
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import query_number
from meshhost.server.studio.attention import (
    STUCK_SECONDS,
    Attention,
    near_quota,
    of_queue,
    of_service,
    of_waiting,
    worst_first,
)
from meshhost.stores.identity import Project
from meshhost.stores.queues import QueueKey, QueueStats
from meshhost.tenant_names import name_of

__all__ = ["OverviewRoutes"]

_SECONDS = 2.0
_LIMIT, _MOST = 200, 1000
_MOST_ATTENTION = 100
# Queues in which is looked whether their next message waits for long.
_MOST_LOOKS = 20
_ALL = 2**31
_COUNTS = ("ready", "leased", "delayed", "dead")


class OverviewRoutes:
    """Serves `/overview`."""

    def __init__(
        self,
        access: Access,
        directory: RoomDirectory,
        queues: QueueService,
        caller: ServiceCaller,
        counts: TenantCounts,
        *,
        seconds: float = _SECONDS,
    ) -> None:
        self._access = access
        self._identity = access.identity
        self._directory = directory
        self._queues = queues
        self._caller = caller
        self._counts = counts
        self._fresh: Fresh[TenantId | None, dict[str, Any]] = Fresh(self._made, seconds=seconds)

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.add_routes([web.get("/overview", self._show)])

    async def _show(self, request: web.Request) -> web.Response:
        limit, after = min(query_number(request, "limit", _LIMIT), _MOST), request.query.get("after", "")
        if self._access.is_operator(request):
            answer = dict((await self._fresh.of(None)).value)
            if "tenant" in request.query:
                project = await self._identity.find_project(request.query["tenant"])
                answer["rooms"] = (await self._fresh.of(TenantId(project.id))).value["rooms"]
        else:
            answer = dict((await self._fresh.of(TenantId(self._access.project(request)))).value)
        rooms = [room for room in answer["rooms"] if room["name"] > after]
        answer["rooms"] = rooms[:limit]
        answer["next"] = rooms[limit - 1]["name"] if 0 < limit < len(rooms) else None
        return _tagged(request, answer)

    async def _made(self, tenant: TenantId | None) -> dict[str, Any]:
        """The overview of a tenant, or of all."""
        projects = {project.id: project for project in await self._identity.projects()}
        if tenant is not None:
            projects = {project.id: project for project in projects.values() if project.id == tenant}
        queues = await self._queues.overview(tenant)
        rooms = await self._rooms(tenant, projects, queues)
        mine = [(room, queue) for room, queue in queues if room in rooms]
        attention = [*self._troubles(projects.values(), mine, rooms), *await self._stuck(mine)]
        answer: dict[str, Any] = {"tenant": None, "tenants": _by_tenant(projects, rooms), "rooms": []}
        if tenant is not None:
            shown = {"id": tenant, "name": name_of(tenant), "suspended": None}
            answer = {"tenant": shown, "rooms": [room for _, room in sorted(rooms.items())]}
        answer["totals"] = _sum(rooms.values())
        answer["attention"] = [each.as_json() for each in worst_first(attention)[:_MOST_ATTENTION]]
        return answer

    async def _rooms(
        self, tenant: TenantId | None, projects: Mapping[str, Project], queues: Sequence[tuple[RoomKey, QueueStats]]
    ) -> dict[RoomKey, dict[str, Any]]:
        """The rooms that are open or have a queue, of one tenant also those that are only recorded.

        None that is being deleted or imported.
        """
        rooms: dict[RoomKey, dict[str, Any]] = {}
        if tenant is not None:
            for info in await self._identity.rooms(tenant, limit=_ALL, offset=0):
                key = RoomKey(tenant, info.name)
                rooms[key] = _room(key)
        now = time.time()
        for key, queue in queues:
            _add(rooms.setdefault(key, _room(key)), queue, now)
        for opened in self._directory.rooms:
            if tenant in (None, opened.key.tenant) and opened.is_awake:
                members = opened.connected()
                agents = sum(member.role != "user" for member in members)
                counts = {"open": True, "participants": len(members), "agents": agents}
                rooms.setdefault(opened.key, _room(opened.key)).update(counts)
        in_between = self._identity.deleted_rooms
        return {key: room for key, room in rooms.items() if key.tenant in projects and not in_between.is_known(key)}

    def _troubles(
        self,
        projects: Iterable[Project],
        queues: Iterable[tuple[RoomKey, QueueStats]],
        rooms: Collection[RoomKey],
    ) -> Iterator[Attention]:
        """What needs attention by what is known already."""
        for room, queue in queues:
            yield from of_queue(QueueKey(room, queue.name), queue)
        for opened in self._directory.rooms:
            if opened.key in rooms:
                yield from (of_service(opened.key, record) for record in self._caller.failing(opened))
        use = self._counts.known()
        for project in projects:
            yield from near_quota(project.id, use.get(project.id, {}), self._identity.quota_of(project.id))
            if project.suspended is not None:
                yield Attention("suspended", "warning", project.id, text=project.suspended)

    async def _stuck(self, queues: Iterable[tuple[RoomKey, QueueStats]]) -> list[Attention]:
        """Queues whose next message waits for long while nobody works on any."""
        idle = [
            (queue.oldest_age, QueueKey(room, queue.name), queue.ready)
            for room, queue in queues
            if queue.ready and not queue.leased and not queue.is_paused and (queue.oldest_age or 0.0) > STUCK_SECONDS
        ]
        found = list[Attention]()
        for _, key, ready in sorted(idle, key=lambda each: -(each[0] or 0.0))[:_MOST_LOOKS]:
            # The oldest message of all may be a delayed one: the one that comes next says it.
            for record in await self._queues.peek(key, limit=1):
                found += of_waiting(key, ready, since=max(record.sent_at, record.due_at or 0.0), now=time.time())
        return found


def _room(key: RoomKey) -> dict[str, Any]:
    counts = dict.fromkeys(("participants", "agents", "queues", "paused", *_COUNTS), 0)
    return {"tenant": key.tenant, "name": key.name, "open": False, **counts, "oldest_age": None, "oldest_at": None}


def _add(room: dict[str, Any], queue: QueueStats, now: float) -> None:
    room["queues"] += 1
    room["paused"] += queue.is_paused
    for name in _COUNTS:
        room[name] += getattr(queue, name)
    if queue.oldest_age is not None and queue.oldest_age >= (room["oldest_age"] or 0.0):
        room["oldest_age"], room["oldest_at"] = round(queue.oldest_age, 3), math.floor(now - queue.oldest_age)


def _sum(rooms: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    listed = list(rooms)
    totals = {"rooms": len(listed), "open": sum(room["open"] for room in listed)}
    return totals | {name: sum(room[name] for room in listed) for name in ("participants", "agents", *_COUNTS)}


def _by_tenant(projects: Mapping[str, Project], rooms: Mapping[RoomKey, dict[str, Any]]) -> list[dict[str, Any]]:
    of_tenants: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for key, room in rooms.items():
        of_tenants[key.tenant].append(room)
    return [
        {"id": project.id, "name": project.name, "suspended": project.suspended, **_sum(of_tenants[project.id])}
        for project in projects.values()
    ]


def _tagged(request: web.Request, answer: dict[str, Any]) -> web.Response:
    still = {**answer, "rooms": [{**room, "oldest_age": None} for room in answer["rooms"]]}
    tag = hashlib.sha256(json.dumps(still).encode()).hexdigest()[:16]
    headers = {"ETag": f'W/"{tag}"', "Cache-Control": "no-cache"}
    if tag in {shown.value for shown in request.if_none_match or ()}:
        return web.Response(status=304, headers=headers)
    return web.json_response({"at": round(time.time(), 3), **answer}, headers=headers)
