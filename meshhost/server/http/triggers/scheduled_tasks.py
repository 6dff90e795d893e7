"""The scheduled tasks of MeshAgent's REST API, kept as schedules.

A client of newer MeshAgent SDKs makes a task from a spec: a cron line or an interval, and a queue with a payload. Here it
becomes a schedule with those; what the answers show is made from the schedule again, so tasks and schedules are one list. Tasks
that run a container are refused, and so is `storage_write_path`. Register it before `RestRoutes`, whose last route answers
everything else with 501.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import json_object, query_number
from meshhost.triggers.schedules import Schedule, Schedules, ScheduleSpec
from meshhost.validation import invalid_request

__all__ = ["ScheduledTaskRoutes"]

_MOST = 1000
_PAGE = 100
_UNITS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0, "days": 86400.0}
_STATUS = {"sent": "submitted", "run-now": "submitted", "failed": "retrying"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Metadata(_Strict):
    name: str | None = None
    annotations: dict[str, str] = Field(default_factory=dict)


class _Queue(_Strict):
    name: str
    payload: Any = None
    storage_write_path: str | None = None


class _Interval(_Strict):
    seconds: float | None = None
    minutes: float | None = None
    hours: float | None = None
    days: float | None = None


class _Schedule(_Interval):
    cron: str | None = None
    interval: _Interval | None = None
    timezone: str = "UTC"


class _Spec(_Strict):
    version: Literal["v1"]
    kind: Literal["ScheduledTask"]
    metadata: _Metadata = Field(default_factory=_Metadata)
    schedule: Annotated[str, Field(max_length=200)] | _Schedule
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
        spec, is_active = await _spec_in(request)
        schedule = await self._schedules.create(room, spec, paused=not is_active)
        return web.json_response({"task_id": schedule.id})

    async def _update(self, request: web.Request) -> web.Response:
        schedule = await self._found(request)
        spec, is_active = await _spec_in(request)
        await self._schedules.change(schedule, spec, paused=not is_active)
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
        size = min(query_number(request, "page_size", _PAGE), _MOST)
        found = [
            schedule
            for schedule in await self._schedules.list(tenant, room, limit=_MOST)
            if query.get("task_id", schedule.id) == schedule.id
            and query.get("active", _active(schedule)) == _active(schedule)
        ]
        page = [schedule for schedule in found if schedule.id > query.get("continuation_token", "")][:size]
        has_more = bool(page) and page[-1].id != found[-1].id
        tasks = [await self._task(schedule, ids.get(schedule.room.name)) for schedule in page]
        return web.json_response(
            {"tasks": tasks, "total": len(found), "continuation_token": page[-1].id if has_more else None}
        )

    async def _runs(self, request: web.Request) -> web.Response:
        schedule = await self._found(request)
        runs = [_run(schedule, run) for run in await self._schedules.runs(schedule)]
        offset = query_number(request, "offset", 0)
        return web.json_response(
            {"runs": runs[offset : offset + query_number(request, "limit", _PAGE)], "total": len(runs)}
        )

    async def _found(self, request: web.Request) -> Schedule:
        return await self._schedules.get(TenantId(self._project_of(request)), request.match_info["id"])

    async def _task(self, schedule: Schedule, room_id: str | None) -> dict[str, Any]:
        runs = [_run(schedule, run) for run in await self._schedules.runs(schedule)]
        last = runs[0] if runs else {}
        spec = schedule.spec
        return {
            "id": schedule.id,
            "project_id": schedule.room.tenant,
            "room_id": room_id,
            "room_name": schedule.room.name,
            "spec": _shown(schedule),
            "queue_name": spec.queue,
            "payload": spec.message,
            "container": None,
            "schedule": _shown_schedule(spec),
            "active": _active(schedule) == "true",
            "once": spec.once,
            "annotations": spec.annotations,
            "storage_write_path": None,
            "last_run_id": last.get("id"),
            "last_start_time": last.get("scheduled_time"),
            "last_end_time": last.get("submitted_time"),
            "last_status": last.get("status"),
            "last_return_message": last.get("error"),
        }


async def _spec_in(request: web.Request) -> tuple[ScheduleSpec, bool]:
    """The spec in the body as a schedule's, and whether it is active. Raises InvalidRequestError."""
    try:
        spec = _Spec.model_validate((await json_object(request)).get("spec"))
    except ValidationError as error:
        raise invalid_request(error, prefix="spec") from None
    if spec.container is not None or spec.queue is None:
        raise InvalidRequestError("spec.queue", "expected a queue: this server runs no containers")
    if spec.queue.storage_write_path is not None:
        raise InvalidRequestError("spec.queue.storage_write_path", "this server does not offer it")
    values = {
        "queue": spec.queue.name,
        "message": spec.queue.payload,
        "name": spec.metadata.name or "",
        "annotations": spec.metadata.annotations,
        "once": spec.once,
        **_times(spec.schedule),
    }
    return ScheduleSpec.parse(values), spec.active


def _times(schedule: str | _Schedule) -> dict[str, Any]:
    if isinstance(schedule, str):
        return {"cron": schedule}
    if schedule.cron is not None:
        return {"cron": schedule.cron, "timezone": schedule.timezone}
    interval = schedule.interval or schedule
    given = [(unit, getattr(interval, unit)) for unit in _UNITS if getattr(interval, unit) is not None]
    if not given:
        raise InvalidRequestError(
            "spec.schedule", "expected a cron line, or an interval of seconds, minutes, hours or days"
        )
    return {"every": sum(_UNITS[unit] * number for unit, number in given)}


def _shown_schedule(spec: ScheduleSpec) -> Any:
    if spec.every is not None:
        return {"seconds": spec.every}
    return spec.at if spec.cron is None else spec.cron


def _shown(schedule: Schedule) -> dict[str, Any]:
    spec = schedule.spec
    return {
        "version": "v1",
        "kind": "ScheduledTask",
        "metadata": {"name": spec.name or None, "annotations": spec.annotations},
        "schedule": _shown_schedule(spec),
        "active": _active(schedule) == "true",
        "once": spec.once,
        "queue": {"name": spec.queue, "payload": spec.message},
    }


def _active(schedule: Schedule) -> str:
    return "false" if schedule.state.is_paused or schedule.state.next is None else "true"


def _run(schedule: Schedule, run: dict[str, Any]) -> dict[str, Any]:
    at = run.get("occurrence", run["at"])
    return {
        "id": f"{schedule.id}:{at:.0f}",
        "target": "queue",
        "status": _STATUS.get(run["outcome"], "failed"),
        "attempt_count": 1,
        "scheduled_time": at,
        "submitted_time": run["at"],
        "message_id": run.get("message_id"),
        "error": run.get("error") or (None if run["outcome"] in _STATUS else run["outcome"]),
    }
