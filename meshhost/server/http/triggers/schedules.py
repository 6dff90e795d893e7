"""REST of schedules: `/rooms/{room}/schedules`, and `/schedules` for all rooms of a tenant.

`meshhost schedule` is the caller. A participant may do the same with its token, for queues that it may send to and with the
schedules that it made itself (`callers.py`).
"""

import time
from typing import Any

from aiohttp import web

from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.identity.tenant import TenantId
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import json_object, query_number
from meshhost.server.http.triggers.callers import RoomCaller, may_see_contents, room_caller
from meshhost.triggers.schedules import Schedule, Schedules, ScheduleSpec, timing_of
from meshhost.triggers.timing import next_times

__all__ = ["ScheduleRoutes"]

_MOST = 1000
_PREVIEWED = 10
_TIMES = ("cron", "every", "at")


class ScheduleRoutes:
    """Serves the schedules of rooms."""

    def __init__(self, access: Access, schedules: Schedules) -> None:
        self._access = access
        self._schedules = schedules

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        path = "/rooms/{room}/schedules"
        app.add_routes(
            [
                web.get("/schedules", self._list_all),
                web.post("/schedules/preview", self._preview),
                web.post(path, self._create),
                web.get(path, self._list),
                web.get(f"{path}/{{id}}", self._show),
                web.patch(f"{path}/{{id}}", self._change),
                web.delete(f"{path}/{{id}}", self._delete),
                web.post(f"{path}/{{id}}/run", self._run),
            ]
        )

    async def _list_all(self, request: web.Request) -> web.Response:
        tenant = TenantId(self._access.project(request))
        found = await self._schedules.list(tenant, after=request.query.get("after", ""), limit=_limit(request))
        sees_contents = may_see_contents(self._access, request)
        return web.json_response({"schedules": [self._shown(schedule, sees_contents) for schedule in found]})

    async def _preview(self, request: web.Request) -> web.Response:
        """When a schedule with this time would send. Nothing is stored."""
        self._access.project(request)
        body = await json_object(request)
        spec = ScheduleSpec.parse({"queue": "preview", "message": None} | body)
        now = time.time()
        return web.json_response({"times": next_times(timing_of(spec, created_at=now), now, _PREVIEWED)})

    async def _list(self, request: web.Request) -> web.Response:
        caller = room_caller(self._access, request)
        found = await self._schedules.list(
            caller.room.tenant, caller.room.name, after=request.query.get("after", ""), limit=_limit(request)
        )
        mine = [each for each in found if caller.may_manage(each.spec.queue, each.maker)]
        return web.json_response({"schedules": [self._shown(each, caller.sees_contents) for each in mine]})

    async def _create(self, request: web.Request) -> web.Response:
        caller, body = room_caller(self._access, request), await json_object(request)
        paused = _paused(body)
        spec = ScheduleSpec.parse(body)
        caller.check_send(spec.queue)
        made = await self._schedules.create(caller.room, spec, paused=bool(paused), maker=caller.maker)
        return web.json_response(self._shown(made))

    async def _show(self, request: web.Request) -> web.Response:
        caller, schedule = await self._found(request)
        return web.json_response(
            {**self._shown(schedule, caller.sees_contents), "runs": await self._schedules.runs(schedule)}
        )

    async def _change(self, request: web.Request) -> web.Response:
        """Change members of the spec; another time replaces the one there was. `paused` pauses and resumes."""
        caller, schedule = await self._found(request)
        body = await json_object(request)
        paused = _paused(body)
        if body:
            times = dict.fromkeys(_TIMES) if any(body.get(name) is not None for name in _TIMES) else {}
            spec = ScheduleSpec.parse(schedule.spec.model_dump() | times | body)
            caller.check_send(spec.queue)
            schedule = await self._schedules.change(schedule, spec, paused=paused, maker=caller.maker)
        elif paused:
            schedule = await self._schedules.pause(schedule)
        elif paused is not None:
            schedule = await self._schedules.resume(schedule, maker=caller.maker)
        return web.json_response(self._shown(schedule))

    async def _delete(self, request: web.Request) -> web.Response:
        _, schedule = await self._found(request)
        await self._schedules.delete(schedule)
        return web.Response(status=204)

    async def _run(self, request: web.Request) -> web.Response:
        _, schedule = await self._found(request)
        return web.json_response({"id": str(await self._schedules.run_now(schedule))})

    async def _found(self, request: web.Request) -> tuple[RoomCaller, Schedule]:
        caller = room_caller(self._access, request)
        found = await self._schedules.get(caller.room.tenant, request.match_info["id"], room=caller.room.name)
        if not caller.may_manage(found.spec.queue, found.maker):
            raise NotFoundError("no such schedule")
        return caller, found

    def _shown(self, schedule: Schedule, sees_contents: bool = True) -> dict[str, Any]:
        shown = self._schedules.shown(schedule)
        return shown if sees_contents else {**shown, "message": None, "headers": {}, "annotations": {}}


def _limit(request: web.Request) -> int:
    return min(query_number(request, "limit", _MOST), _MOST)


def _paused(body: dict[str, Any]) -> bool | None:
    paused = body.pop("paused", None)
    if paused is not None and not isinstance(paused, bool):
        raise InvalidRequestError("paused", "expected true or false")
    return paused
