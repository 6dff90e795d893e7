"""Schedules of a running server: REST for keys and participants, waking of rooms, and MeshAgent's scheduled tasks."""

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

import aiohttp
import pytest
from pydantic import BaseModel, ConfigDict

from meshhost.identity.grants import ApiScope, QueuesGrant
from meshhost.identity.keys import parse_api_key
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.testing.server import RunningServer
from meshhost.triggers.makers import MOST_OF_A_PARTICIPANT

OPERATOR_KEY = "mo-0123456789abcdef"


class Rest:
    """Requests to a running server with a bearer."""

    def __init__(self, http: aiohttp.ClientSession, server: RunningServer) -> None:
        self.http = http
        self.server = server
        self.project = f"/accounts/projects/{server.key.project_id}"

    async def __call__(self, method: str, path: str, body: Any = None, *, bearer: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {bearer or self.server.api_key}"}
        async with self.http.request(method, self.server.url + path, json=body, headers=headers) as response:
            is_json = response.content_type == "application/json"
            return response.status, await response.json() if is_json else await response.text()

    async def messages(self, queue: str, *, room: str = "room") -> list[Any]:
        async with self.server.client(room) as client:
            found = []
            while (message := await client.queues.receive(name=queue, wait=False)) is not None:
                found.append(message)
            return found


@pytest.fixture
async def rest(serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession) -> Rest:
    return Rest(http, await stack.enter_async_context(serve(operator_key=OPERATOR_KEY)))


async def until_sent(rest: Rest, path: str, count: int = 1) -> Any:
    async with asyncio.timeout(20):
        while (shown := (await rest("GET", path))[1])["sent"] < count:  # noqa: ASYNC110 - of a server
            await asyncio.sleep(0.05)
        return shown


async def test_the_next_times_are_shown_before_a_schedule_is_made(rest: Rest) -> None:
    status, shown = await rest("POST", "/schedules/preview", {"cron": "30 8 * * *", "timezone": "Europe/Berlin"})
    assert status == 200
    assert len(shown["times"]) == 10
    assert shown["times"] == sorted(shown["times"])
    assert {datetime.fromtimestamp(time, ZoneInfo("Europe/Berlin")).strftime("%H:%M") for time in shown["times"]} == {
        "08:30"
    }
    assert await rest("POST", "/schedules/preview", {"at": time.time() - 60}) == (200, {"times": []})
    assert (await rest("GET", "/schedules"))[1]["schedules"] == []


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"cron": "61 * * * *"}, "cron"),
        ({"timezone": "UTC"}, "cron, every, at"),
        ({"every": 60, "timezone": "Mars"}, "timezone"),
    ],
)
async def test_a_preview_names_the_member_that_is_wrong(rest: Rest, body: Any, error: str) -> None:
    status, answer = await rest("POST", "/schedules/preview", body)
    assert status == 400
    assert error in answer["error"]


async def test_a_schedule_is_made_shown_changed_and_deleted(rest: Rest) -> None:
    spec = {"queue": "jobs", "message": {"a": 1}, "cron": "0 8 * * *", "timezone": "Europe/Berlin", "name": "daily"}
    status, made = await rest("POST", "/rooms/room/schedules", spec)
    assert status == 200
    path = f"/rooms/room/schedules/{made['id']}"
    assert made["next_at"] > time.time()
    assert made["made_by"] == ""
    assert (await rest("GET", "/rooms/room/schedules"))[1]["schedules"] == [made]
    assert (await rest("GET", "/schedules"))[1]["schedules"] == [made]
    assert (await rest("GET", "/rooms/other/schedules"))[1]["schedules"] == []
    assert (await rest("GET", path))[1] == made | {"runs": []}

    _, changed = await rest("PATCH", path, {"every": 60, "paused": True})
    assert (changed["cron"], changed["every"], changed["paused"], changed["name"]) == (None, 60.0, True, "daily")
    _, resumed = await rest("PATCH", path, {"paused": False})
    assert (resumed["paused"], resumed["message"]) == (False, {"a": 1})
    assert (await rest("PATCH", path, {"paused": True}))[1]["paused"]
    assert (await rest("PATCH", path, {}))[1]["paused"]

    status, ran = await rest("POST", f"{path}/run")
    assert (status, await rest.messages("jobs")) == (200, [{"a": 1}])
    assert (await rest("GET", path))[1]["runs"][0]["message_id"] == ran["id"]
    assert (await rest("DELETE", path))[0] == 204
    assert (await rest("GET", path))[0] == 404
    assert (await rest("DELETE", path))[0] == 404


async def test_a_wrong_schedule_is_told_which_field_is_wrong(rest: Rest) -> None:
    for body, says in [
        ({"queue": "jobs", "message": 1, "cron": "61 * * * *"}, "cron: minute: expected 0-59, got '61'"),
        ({"message": 1, "every": 60}, "queue: Field required"),
        ({"queue": "jobs", "message": 1, "every": 60, "paused": 1}, "paused: expected true or false"),
    ]:
        status, answer = await rest("POST", "/rooms/room/schedules", body)
        assert (status, answer["error"]) == (400, says)
    assert (await rest("POST", "/rooms/Room/schedules", {}))[0] == 400
    assert (await rest("GET", "/schedules?limit=x"))[0] == 400


async def test_a_room_has_a_limited_number_of_schedules(rest: Rest) -> None:
    body = {"queue": "jobs", "message": 1, "every": 3600}
    for _ in range(100):
        assert (await rest("POST", "/rooms/room/schedules", body))[0] == 200
    status, answer = await rest("POST", "/rooms/room/schedules", body)
    assert (status, answer["error"]) == (429, "the room has 100 schedules already, which is the limit")


async def test_a_participant_manages_what_sends_to_its_queues_only(rest: Rest) -> None:
    mine = rest.server.token("room", scope=ApiScope(queues=QueuesGrant(send=["jobs"])))
    body = {"queue": "jobs", "message": 1, "every": 3600}
    status, made = await rest("POST", "/rooms/room/schedules", body, bearer=mine)
    assert (status, made["made_by"]) == (200, "tester")
    assert (await rest("POST", "/rooms/room/schedules", body | {"queue": "mail"}, bearer=mine))[0] == 403
    _, other = await rest("POST", "/rooms/room/schedules", body | {"queue": "mail"})

    _, listed = await rest("GET", "/rooms/room/schedules", bearer=mine)
    assert [each["id"] for each in listed["schedules"]] == [made["id"]]
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/run")):
        assert (await rest(method, f"/rooms/room/schedules/{other['id']}{path}", {}, bearer=mine))[0] == 404
    path = f"/rooms/room/schedules/{made['id']}"
    assert (await rest("PATCH", path, {"queue": "mail"}, bearer=mine))[0] == 403
    assert (await rest("GET", "/rooms/other/schedules", bearer=mine))[0] == 403
    assert (await rest("GET", "/schedules", bearer=mine))[0] == 401
    nothing = rest.server.token("room", scope=ApiScope())
    assert (await rest("POST", "/rooms/room/schedules", body, bearer=nothing))[0] == 403
    assert (await rest("DELETE", path, bearer=mine))[0] == 204


async def test_a_participant_manages_and_sees_the_schedules_that_it_made_only(rest: Rest) -> None:
    scope = ApiScope(queues=QueuesGrant(send=["jobs"], receive=[]))
    mine, other = (rest.server.token("room", name=name, scope=scope) for name in ("mine", "other"))
    path, body = "/rooms/room/schedules", {"queue": "jobs", "message": "secret", "every": 3600}
    _, by_key = await rest("POST", path, body)
    _, made = await rest("POST", path, body, bearer=mine)
    assert (made["made_by"], made["key_id"]) == ("mine", rest.server.key.id)
    for bearer, schedule in ((other, made), (other, by_key), (mine, by_key)):
        for method, what in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/run")):
            assert (await rest(method, f"{path}/{schedule['id']}{what}", {}, bearer=bearer))[0] == 404
    assert (await rest("GET", path, bearer=other))[1] == {"schedules": []}
    assert (await rest("GET", path, bearer=mine))[1] == {"schedules": [made]}
    for _ in range(MOST_OF_A_PARTICIPANT - 1):
        await rest("POST", path, body, bearer=mine)
    assert (await rest("POST", path, body, bearer=mine))[0] == 429


async def test_a_schedule_stops_with_the_key_of_its_maker_until_another_key_keeps_it(rest: Rest) -> None:
    tenant, path = rest.server.key.project_id, "/rooms/room/schedules"
    _, key = await rest("POST", f"/tenants/{tenant}/keys", {"name": "k", "role": "developer"}, bearer=OPERATOR_KEY)
    other = RunningServer(rest.server.server, parse_api_key(key["value"]))
    soon = time.time() + 1.5
    made = []
    for maker in (other.api_key, other.token("room"), rest.server.api_key):
        body = {"queue": "jobs", "message": len(made), "at": soon}
        made.append((await rest("POST", path, body, bearer=maker))[1])
    assert (await rest("DELETE", f"/tenants/{tenant}/keys/{other.key.id}"))[0] < 300
    await until_sent(rest, f"{path}/{made[2]['id']}")
    for stopped in made[:2]:
        _, shown = await rest("GET", f"{path}/{stopped['id']}")
        assert (shown["sent"], "with another key" in shown["error"]) == (0, True)
        _, kept = await rest("PATCH", f"{path}/{stopped['id']}", {"paused": False})
        assert (kept["made_by"], kept["key_id"], kept["error"]) == ("", rest.server.key.id, None)
        await until_sent(rest, f"{path}/{stopped['id']}")
    assert sorted(await rest.messages("jobs")) == [0, 1, 2]
    _, changed = await rest("PATCH", f"{path}/{made[0]['id']}", {"every": 60, "paused": False})
    assert changed["key_id"] == rest.server.key.id


async def test_a_viewers_key_sees_no_contents_of_schedules(rest: Rest) -> None:
    tenant, body = rest.server.key.project_id, {"name": "v", "role": "viewer"}
    _, viewer = await rest("POST", f"/tenants/{tenant}/keys", body, bearer=OPERATOR_KEY)
    hidden = {"message": {"a": "hidden"}, "headers": {"a": "hidden"}, "annotations": {"a": "hidden"}}
    _, made = await rest("POST", "/rooms/room/schedules", {"queue": "jobs", "every": 3600} | hidden)
    for path in ("/schedules", "/rooms/room/schedules", f"/rooms/room/schedules/{made['id']}"):
        status, answer = await rest("GET", path, bearer=viewer["value"])
        assert (status, "jobs" in str(answer), "hidden" in str(answer)) == (200, True, False), path
    status, answer = await rest("GET", f"{rest.project}/scheduled-tasks", bearer=viewer["value"])
    assert (status, len(answer["tasks"]), "hidden" in str(answer)) == (200, 1, False)


async def test_a_schedule_that_is_due_wakes_its_room(rest: Rest) -> None:
    body = {"queue": "jobs", "message": "good morning", "at": time.time() + 0.3}
    _, made = await rest("POST", "/rooms/sleeper/schedules", body)
    shown = await until_sent(rest, f"/rooms/sleeper/schedules/{made['id']}")
    assert shown["next_at"] is None
    room = RoomKey(TenantId(rest.server.key.project_id), "sleeper")
    found = rest.server.server.parts.directory.find(room)
    assert found is not None
    assert found.is_awake
    assert await rest.messages("jobs", room="sleeper") == ["good morning"]
    assert 'meshhost_triggers_total{kind="schedule",outcome="sent"} 1.0' in (await rest("GET", "/metrics"))[1]


async def test_a_room_with_a_schedule_due_soon_stays_open(
    serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession
) -> None:
    rest = Rest(http, await stack.enter_async_context(serve(linger_seconds=1.0)))
    directory = rest.server.server.parts.directory
    rooms = [RoomKey(TenantId(rest.server.key.project_id), name) for name in ("with", "without")]
    _, made = await rest("POST", "/rooms/with/schedules", {"queue": "jobs", "message": 1, "at": time.time() + 1.6})
    for room in rooms:
        async with rest.server.client(room.name):
            pass
    opened = directory.find(rooms[0])
    async with asyncio.timeout(20):
        while directory.find(rooms[1]) is not None:  # noqa: ASYNC110 - of another task
            await asyncio.sleep(0.02)
    await until_sent(rest, f"/rooms/with/schedules/{made['id']}")
    assert opened is not None
    assert directory.find(rooms[0]) is opened


async def test_schedules_go_with_their_room_and_their_tenant(rest: Rest) -> None:
    body = {"queue": "jobs", "message": 1, "every": 3600}
    await rest("POST", "/rooms/gone/schedules", body)
    _, kept = await rest("POST", "/rooms/kept/schedules", body)
    tenant = f"/tenants/{rest.server.key.project_id}"
    assert (await rest("DELETE", f"{tenant}/rooms/gone"))[1]["deleted"]
    assert (await rest("GET", "/schedules"))[1]["schedules"] == [kept]
    assert (await rest("DELETE", tenant, bearer=OPERATOR_KEY))[1]["deleted"]
    store = rest.server.server.engines.triggers
    assert await store.rooms(TenantId(rest.server.key.project_id)) == []


TASK = {
    "version": "v1",
    "kind": "ScheduledTask",
    "metadata": {"name": "report", "annotations": {"team": "x"}},
    "schedule": "0 8 * * *",
    "queue": {"name": "jobs", "payload": {"a": 1}},
}


class TheirSpec(BaseModel):
    """What a client of MeshAgent's SDK 0.56 takes of a server, which it checks strictly."""

    model_config = ConfigDict(extra="forbid")
    version: Literal["v1"]
    kind: Literal["ScheduledTask"]
    metadata: dict[str, Any]
    schedule: str
    active: bool
    once: bool
    queue: dict[str, Any]


class TheirTask(BaseModel):
    id: str
    project_id: str
    room_id: str
    room_name: str
    spec: TheirSpec
    queue_name: str | None
    payload: dict[str, Any]
    schedule: str
    active: bool
    once: bool
    annotations: dict[str, str]
    last_run_id: int | None
    last_start_time: datetime | None
    last_end_time: datetime | None
    last_status: str | None
    last_return_message: str | None


class TheirRun(BaseModel):
    id: str
    task_id: str
    project_id: str
    room_id: str
    room_name: str
    queued_message_id: str | None
    target: Literal["queue", "container"]
    status: Literal["pending", "submitting", "retrying", "submitted", "failed"]
    attempt_count: int
    error: str | None
    scheduled_time: datetime
    started_at: datetime | None
    completed_at: datetime | None


async def tasks_of(rest: Rest, query: str = "") -> list[TheirTask]:
    _, listed = await rest("GET", f"{rest.project}/scheduled-tasks{query}")
    return [TheirTask.model_validate(task) for task in listed["tasks"]]


async def test_scheduled_tasks_of_meshagent_are_schedules(rest: Rest) -> None:
    _, room = await rest("POST", f"{rest.project}/rooms", {"name": "room"})
    status, made = await rest("POST", f"{rest.project}/rooms/room/scheduled-tasks", {"spec": TASK})
    assert status == 200
    _, other = await rest(
        "POST",
        f"{rest.project}/rooms/mail/scheduled-tasks",
        {"spec": TASK | {"schedule": "15 Minutes", "active": False, "once": True, "metadata": {}}},
    )
    await rest("POST", f"/rooms/room/schedules/{made['task_id']}/run")

    first, second = await tasks_of(rest)
    assert (first.id, first.room_id, first.room_name) == (made["task_id"], room["id"], "room")
    assert (first.active, first.annotations, first.last_status) == (True, {"team": "x"}, "submitted")
    assert first.spec.model_dump() == TASK | {"active": True, "once": False}
    assert (second.schedule, second.active, second.once) == ("15 minutes", False, True)
    assert second.room_id == "mail"  # nobody recorded this room

    _, page = await rest("GET", f"{rest.project}/scheduled-tasks?page_size=1")
    assert (page["continuation_token"], page["total"]) == (made["task_id"], 2)
    rest_of = f"?page_size=1&continuation_token={page['continuation_token']}"
    assert [task.id for task in await tasks_of(rest, rest_of)] == [other["task_id"]]
    assert [task.id for task in await tasks_of(rest, "?offset=1")] == [other["task_id"]]
    for query in (f"room_id={room['id']}", "room_id=room", "active=true", f"task_id={made['task_id']}"):
        assert [task.id for task in await tasks_of(rest, f"?{query}")] == [made["task_id"]], query

    task = f"{rest.project}/scheduled-tasks/{made['task_id']}"
    _, runs = await rest("GET", f"{task}/runs?limit=5")
    [run] = [TheirRun.model_validate(each) for each in runs["runs"]]
    assert (runs["total"], run.task_id, run.status, run.queued_message_id) == (1, made["task_id"], "submitted", "1")
    assert (await rest("PUT", task, {"spec": TASK | {"schedule": "2 days"}}))[0] == 200
    assert (await rest("GET", f"/rooms/room/schedules/{made['task_id']}"))[1]["every"] == 172800.0
    assert [each.schedule for each in await tasks_of(rest, f"?task_id={made['task_id']}")] == ["2 days"]
    assert (await rest("DELETE", task))[0] == 204
    assert (await rest("DELETE", task))[0] == 404


async def test_a_schedule_that_meshagents_clients_would_refuse_is_not_among_its_tasks(rest: Rest) -> None:
    message = {"queue": "jobs", "message": {"a": 1}}
    slow = message | {"cron": "0 8 * * 1-5", "timezone": "Europe/Berlin"}
    _, kept = await rest("POST", "/rooms/room/schedules", slow)
    for other in (
        message | {"every": 60},
        message | {"every": 1000.5},
        message | {"cron": "*/5 * * * *"},
        message | {"cron": "0 8 LW * *"},
        message | {"at": time.time() + 3600},
        slow | {"message": "text"},
    ):
        assert (await rest("POST", "/rooms/room/schedules", other))[0] == 200
    assert [task.id for task in await tasks_of(rest)] == [kept["id"]]
    task = f"{rest.project}/scheduled-tasks/{kept['id']}"
    assert (await rest("PUT", task, {"spec": TASK}))[0] == 200
    assert (await rest("GET", f"/rooms/room/schedules/{kept['id']}"))[1]["timezone"] == "Europe/Berlin"
    assert (await rest("PATCH", f"/rooms/room/schedules/{kept['id']}", {"every": 60}))[0] == 200
    assert await tasks_of(rest) == []


async def test_a_scheduled_task_that_cannot_be_is_refused(rest: Rest) -> None:
    for wrong, says in [
        ({"container": {"image": "x"}, "queue": None}, "spec.queue: expected a queue"),
        ({"queue": {"name": "jobs", "storage_write_path": "/x"}}, "spec.queue.storage_write_path: "),
        ({"queue": {"name": "jobs", "payload": []}}, "spec.queue.payload: "),
        ({"schedule": "0 8 * *"}, "cron: expected five fields"),
        ({"schedule": "*/14 * * * *"}, "spec.schedule: expected at least 15 minutes between two runs"),
        ({"schedule": "14 minutes"}, "spec.schedule: expected at least 15 minutes between two runs"),
        ({"schedule": {}}, "spec.schedule: "),
        ({"more": 1}, "spec.more: "),
        ({"version": "v2"}, "spec.version: "),
    ]:
        status, answer = await rest("POST", f"{rest.project}/rooms/room/scheduled-tasks", {"spec": TASK | wrong})
        assert status == 400, says
        assert answer["error"].startswith(says)
