"""The scheduled tasks of MeshAgent's REST API, kept as schedules.

A client of newer MeshAgent SDKs makes a task from a spec: a cron line or an interval, and a queue with a payload. Here it
becomes a schedule with those; what the answers show is made from the schedule again, so tasks and schedules are one list.
Tasks that run a container are refused, and so is `storage_write_path`. Schedules that a task cannot be (more frequent than
every 15 minutes, at one time, with a message that is no object) are not listed here. Register it before `RestRoutes`, whose
last route answers everything else with 501.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import json_object, query_number
from meshhost.server.http.triggers.callers import key_of, may_see_contents
from meshhost.triggers.schedules import Schedule, Schedules, ScheduleSpec, timing_of
from meshhost.triggers.timing import shortest_gap
from meshhost.validation import invalid_request

__all__ = ["ScheduledTaskRoutes"]

_MOST = 1000
_PAGE = 100
# MeshAgent's clients refuse what is more frequent, also in a list.
_SHORTEST_SECONDS = 15 * 60.0
# The begin of 2026, from where those look ahead.
_LOOK_FROM = 1_767_225_600.0
_UNITS = {"day": 86400.0, "hour": 3600.0, "minute": 60.0, "second": 1.0}
_INTERVAL = re.compile(r"\s*(\d{1,9})\s+(second|minute|hour|day)s?\s*", re.IGNORECASE)
# What cron lines of ours may have and theirs may not.
_OURS_ONLY = re.compile(r"#|\bLW?\b|\dL\b", re.IGNORECASE)
_STATUS = {"sent": "submitted", "run-now": "submitted", "failed": "retrying"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Metadata(_Strict):
    name: str | None = None
    annotations: dict[str, str] = Field(default_factory=dict)


class _Queue(_Strict):
    name: str
    payload: dict[str, Any] = Field(default_factory=dict)
    storage_write_path: str | None = None


class _Spec(_Strict):
    version: Literal["v1"] = "v1"
    kind: Literal["ScheduledTask"] = "ScheduledTask"
    metadata: _Metadata = Field(default_factory=_Metadata)
    schedule: str = Field(max_length=200)
    active: bool = True
    once: bool = False
    queue: _Queue | None = None
    container: dict[str, Any] | None = None


class ScheduledTaskRoutes:
    """Serves `scheduled-tasks` of a project. `project_of` returns the project of a request, or raises."""

    def __init__(self, access: Access, schedules: Schedules, project_of: Callable[[web.Request], str]) -> None:
        self._access = access
        self._schedules = schedules
        self._project_of = project_of

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        project = "/accounts/projects/{project}"
        app.add_routes(
            [
                web.post(f"{project}/rooms/{{name}}/scheduled-tasks", self._create),
                web.get(f"{project}/scheduled-tasks", self._list),
                web.put(f"{project}/scheduled-tasks/{{id}}", self._update),
                web.delete(f"{project}/scheduled-tasks/{{id}}", self._delete),
                web.get(f"{project}/scheduled-tasks/{{id}}/runs", self._runs),
            ]
        )

    async def _create(self, request: web.Request) -> web.Response:
        tenant = TenantId(self._project_of(request))
        room = RoomKey(tenant, check_room_name(request.match_info["name"]))
        if self._access.identity.deleted_rooms.is_known(room):
            raise NotFoundError("no such room")
        spec, is_active = await _spec_in(request, "UTC")
        schedule = await self._schedules.create(room, spec, paused=not is_active, maker=key_of(self._access, request))
        return web.json_response({"task_id": schedule.id})

    async def _update(self, request: web.Request) -> web.Response:
        """A task has no time zone: that of the schedule stays."""
        schedule = await self._found(request)
        spec, is_active = await _spec_in(request, schedule.spec.timezone)
        await self._schedules.change(schedule, spec, paused=not is_active, maker=key_of(self._access, request))
        return web.json_response({"task_id": schedule.id})

    async def _delete(self, request: web.Request) -> web.Response:
        await self._schedules.delete(await self._found(request))
        return web.Response(status=204)

    async def _list(self, request: web.Request) -> web.Response:
        """Filtered by `room_id` (an id or a name), `task_id` and `active`. The token of a page is the id of its last task."""
        tenant, query = TenantId(self._project_of(request)), request.query
        ids = {room.name: room.id for room in await self._access.identity.rooms(tenant, limit=_MOST, offset=0)}
        names = {room_id: name for name, room_id in ids.items()}
        room = names.get(query["room_id"], query["room_id"]) if "room_id" in query else None
        size, offset = min(query_number(request, "page_size", _PAGE), _MOST), query_number(request, "offset", 0)
        found = [
            schedule
            for schedule in await self._schedules.list(tenant, room, limit=_MOST)
            if _is_task(schedule)
            and query.get("task_id", schedule.id) == schedule.id
            and query.get("active", _active(schedule)) == _active(schedule)
        ]
        page = [schedule for schedule in found if schedule.id > query.get("continuation_token", "")]
        page = page[offset : offset + size]
        has_more = bool(page) and page[-1].id != found[-1].id
        tasks = [await self._task(schedule, ids.get(schedule.room.name)) for schedule in page]
        if not may_see_contents(self._access, request):
            for task in tasks:
                task |= {"payload": {}, "annotations": {}}
                task["spec"]["queue"]["payload"] = {}
                task["spec"]["metadata"]["annotations"] = {}
        return web.json_response(
            {"tasks": tasks, "total": len(found), "continuation_token": page[-1].id if has_more else None}
        )

    async def _runs(self, request: web.Request) -> web.Response:
        schedule = await self._found(request)
        room = await self._access.identity.find_room(schedule.room.tenant, schedule.room.name)
        place = _place(schedule, None if room is None else room.id)
        runs = [_run(schedule, run) | place for run in await self._schedules.runs(schedule)]
        offset = query_number(request, "offset", 0)
        page = runs[offset : offset + query_number(request, "limit", _PAGE)]
        return web.json_response({"runs": page, "total": len(runs)})

    async def _found(self, request: web.Request) -> Schedule:
        return await self._schedules.get(TenantId(self._project_of(request)), request.match_info["id"])

    async def _task(self, schedule: Schedule, room_id: str | None) -> dict[str, Any]:
        spec, last = schedule.spec, next(iter(await self._schedules.runs(schedule)), None)
        shown = None if last is None else _run(schedule, last)
        return {
            "id": schedule.id,
            **_place(schedule, room_id),
            "spec": {
                "version": "v1",
                "kind": "ScheduledTask",
                "metadata": {"name": spec.name or None, "annotations": spec.annotations},
                "schedule": _shown_times(spec),
                "active": _active(schedule) == "true",
                "once": spec.once,
                "queue": {"name": spec.queue, "payload": spec.message},
            },
            "queue_name": spec.queue,
            "payload": spec.message,
            "container": None,
            "schedule": _shown_times(spec),
            "active": _active(schedule) == "true",
            "once": spec.once,
            "annotations": spec.annotations,
            "storage_write_path": None,
            "last_run_id": None if last is None else int(last["at"]),
            "last_start_time": None if shown is None else shown["started_at"],
            "last_end_time": None if shown is None else shown["completed_at"],
            "last_status": None if shown is None else shown["status"],
            "last_return_message": None if shown is None else shown["error"],
        }


async def _spec_in(request: web.Request, timezone: str) -> tuple[ScheduleSpec, bool]:
    """The spec in the body as a schedule's, and whether it is active. Raises InvalidRequestError."""
    try:
        spec = _Spec.model_validate((await json_object(request)).get("spec"))
    except ValidationError as error:
        raise invalid_request(error, prefix="spec") from None
    if spec.container is not None or spec.queue is None:
        raise InvalidRequestError("spec.queue", "expected a queue: this server runs no containers")
    if spec.queue.storage_write_path is not None:
        raise InvalidRequestError("spec.queue.storage_write_path", "this server does not offer it")
    interval = _INTERVAL.fullmatch(spec.schedule)
    every = None if interval is None else int(interval[1]) * _UNITS[interval[2].lower()]
    values = {
        "queue": spec.queue.name,
        "message": spec.queue.payload,
        "name": spec.metadata.name or "",
        "annotations": spec.metadata.annotations,
        "once": spec.once,
        "cron": spec.schedule if every is None else None,
        "every": every,
        "timezone": timezone,
    }
    made = ScheduleSpec.parse(values)
    gap = shortest_gap(timing_of(made, created_at=_LOOK_FROM), _LOOK_FROM)
    if gap is not None and gap < _SHORTEST_SECONDS:
        raise InvalidRequestError("spec.schedule", "expected at least 15 minutes between two runs")
    return made, spec.active


def _is_task(schedule: Schedule) -> bool:
    """Whether MeshAgent's clients accept the schedule as a task; one that they refuse would spoil their whole list."""
    spec, gap = schedule.spec, schedule.state.gap
    is_slow = spec.at is None and (spec.every or 0.0) % 1 == 0 and (gap is None or gap >= _SHORTEST_SECONDS)
    return is_slow and isinstance(spec.message, dict) and not _OURS_ONLY.search(spec.cron or "")


def _place(schedule: Schedule, room_id: str | None) -> dict[str, str]:
    """Where a task is. A room that was never recorded has no id: its name stands for it, also in the query."""
    room = schedule.room
    return {"project_id": room.tenant, "room_id": room_id or room.name, "room_name": room.name}


def _shown_times(spec: ScheduleSpec) -> str:
    if spec.every is None:
        return spec.cron or ""
    unit, seconds = next((unit, size) for unit, size in _UNITS.items() if spec.every % size == 0 or size == 1.0)
    return f"{spec.every / seconds:.0f} {unit}s"


def _active(schedule: Schedule) -> str:
    return "false" if schedule.state.is_paused or schedule.state.next is None else "true"


def _run(schedule: Schedule, run: dict[str, Any]) -> dict[str, Any]:
    at, outcome = run.get("occurrence", run["at"]), run["outcome"]
    return {
        "id": f"{schedule.id}:{at:.0f}",
        "task_id": schedule.id,
        "queued_message_id": run.get("message_id"),
        "target": "queue",
        "status": _STATUS.get(outcome, "failed"),
        "attempt_count": 1,
        "error": run.get("error") or (None if outcome in _STATUS else outcome),
        "scheduled_time": _time(at),
        "started_at": _time(run["at"]),
        "completed_at": None if outcome == "failed" else _time(run["at"]),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
