"""Queues over REST: looking, waiting and changing, with keys of each role and with tokens, and without waking a room."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any
from unittest.mock import ANY

import aiohttp
import pytest

from meshhost.identity.grants import ApiScope, QueuesGrant
from meshhost.identity.keys import encode_api_key
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.protocol.json_values import dump_json
from meshhost.queues.service import QueueService
from meshhost.server.http import queues as routes
from meshhost.stores.queues import MAX_BATCH, EndReason, HolderId, Lease, NewMessage, QueueKey
from meshhost.testing.server import RunningServer

Until = Callable[[Callable[[], bool]], Awaitable[None]]

OPERATOR_KEY = "mo-0123456789abcdef"
JOBS = "/rooms/room/queues/jobs"


class Rest:
    """Asks a running server, and has its queues at hand."""

    def __init__(self, http: aiohttp.ClientSession, server: RunningServer) -> None:
        self.http, self.server = http, server
        self.queue = QueueKey(RoomKey(TenantId(server.key.project_id), "room"), "jobs")

    async def __call__(self, method: str, path: str, *, bearer: str | None = None, **options: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {bearer or self.server.api_key}"}
        async with self.http.request(method, self.server.url + path, headers=headers, **options) as response:
            return response.status, await response.json()

    async def ok(self, method: str, path: str, **options: Any) -> Any:
        status, answer = await self(method, path, **options)
        assert status == 200, answer
        return answer

    @property
    def queues(self) -> QueueService:
        return self.server.server.engines.queues

    @property
    def awake(self) -> list[str]:
        return [room.key.name for room in self.server.server.parts.directory.rooms if room.is_awake]

    async def send(self, body: str = "1", **options: Any) -> str:
        return str(await self.queues.send(self.queue, NewMessage(body, **options)))

    async def lease(self) -> Lease:
        delivery = await self.queues.receive(self.queue, HolderId("holder"), by="worker-1")
        assert delivery is not None
        return delivery.lease

    def token(self, **queues: Any) -> str:
        return self.server.token("room", scope=ApiScope(queues=QueuesGrant(**queues)))


@pytest.fixture
async def rest(serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession) -> Rest:
    return Rest(http, await stack.enter_async_context(serve(operator_key=OPERATOR_KEY)))


async def key_of(rest: Rest, role: str) -> str:
    path = f"/tenants/{rest.server.key.project_id}/keys"
    return str((await rest.ok("POST", path, bearer=OPERATOR_KEY, json={"role": role}))["value"])


# --- Looking


async def test_queues_are_listed_with_what_is_in_them(rest: Rest) -> None:
    await rest.send()
    await rest.send(delay=60)
    await rest.ok("POST", f"{JOBS}/pause")
    (listed,) = (await rest.ok("GET", "/rooms/room/queues"))["queues"]
    assert {name: listed[name] for name in ("name", "size", "ready", "delayed", "blocked", "paused")} == {
        "name": "jobs",
        "size": 2,
        "ready": 1,
        "delayed": 1,
        "blocked": 0,
        "paused": True,
    }
    assert await rest.ok("GET", "/rooms/other/queues") == {"queues": []}


async def test_a_series_of_points_shows_how_a_queue_and_its_room_went_on(rest: Rest) -> None:
    await rest.send()
    await rest.queues.ack(await rest.lease())
    await rest.send()
    await rest.server.server.parts.series.sample()
    for path in (f"{JOBS}/series", "/rooms/room/queue-series"):
        answer = await rest.ok("GET", path)
        (point,) = [point for point in answer["points"] if point["sent"]]
        assert answer["step_seconds"] == 10
        assert datetime.fromisoformat(point.pop("time")).tzinfo is not None
        assert point.pop("oldest_seconds") >= 0
        depths = {"ready": 1, "delayed": 0, "leased": 0, "blocked": 0, "dead": 0}
        assert point == depths | {"sent": 2, "started": 1, "done": 1, "failed": 0}
    project = await rest.ok("GET", f"/accounts/projects/{rest.server.key.project_id}/queue-series")
    assert [point["sent"] for point in project["points"] if point["sent"]] == [2]
    assert (await rest("GET", "/accounts/projects/other/queue-series"))[0] == 404
    coarse = await rest.ok("GET", f"{JOBS}/series", params={"step": "60"})
    assert coarse["step_seconds"] == 60
    assert [point["sent"] for point in coarse["points"]] == [2]
    assert await rest("GET", f"{JOBS}/series", params={"step": "5"}) == (400, ANY)
    assert (await rest("GET", "/rooms/room/queues/none/series"))[0] == 404


async def test_the_metrics_show_what_happens_in_queues(rest: Rest) -> None:
    await rest.send()
    await rest.queues.ack(await rest.lease())
    closed = RoomKey(rest.queue.room.tenant, "closed")
    await rest.queues.send(QueueKey(closed, "later"), NewMessage("1", delay=3600.0))
    async with rest.http.get(f"{rest.server.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    assert 'meshhost_queue_name_sent_total{queue="jobs"} 1.0' in lines
    assert 'meshhost_queue_name_settled_total{outcome="done",queue="jobs"} 1.0' in lines
    assert 'meshhost_queue_name_wait_seconds_count{queue="jobs"} 1.0' in lines
    assert 'meshhost_queue_name_work_seconds_count{queue="jobs"} 1.0' in lines
    assert 'meshhost_queue_name_messages{queue="later",state="delayed"} 1.0' in lines, "nobody is in that room"


async def test_a_series_is_for_those_who_may_list_queues(rest: Rest) -> None:
    await rest.send()
    for path in (f"{JOBS}/series", "/rooms/room/queue-series"):
        assert (await rest("GET", path, bearer=rest.token(list=True)))[0] == 200
        assert (await rest("GET", path, bearer=rest.token(list=False, receive=["jobs"])))[0] == 403


async def test_messages_are_found_in_pages(rest: Rest) -> None:
    ids = [await rest.send(f'{{"n": {number}}}', key=f"k{number % 2}") for number in range(5)]

    async def found(**query: Any) -> list[str]:
        answer = await rest.ok("GET", f"{JOBS}/messages", params=query)
        return [each["id"] for each in answer["messages"]]

    assert await found() == ids[::-1]
    assert await found(key="k1") == [ids[3], ids[1]]
    assert await found(text='"n": 2') == [ids[2]]
    assert await found(since=0, until=1) == []
    assert await found(state=["ready", "done"]) == [ids[1], ids[0]]
    first = await rest.ok("GET", f"{JOBS}/messages", params={"limit": 3})
    second = await rest.ok("GET", f"{JOBS}/messages", params={"limit": 3, "before": first["next"]})
    assert [each["id"] for each in first["messages"] + second["messages"]] == ids[::-1]
    assert second["next"] is None


async def test_messages_are_found_by_text_in_any_script(rest: Rest) -> None:
    await rest.send()
    named = await rest.send(dump_json("Jürgen 🎈"))
    answer = await rest.ok("GET", f"{JOBS}/messages", params={"text": "ürgen 🎈"})
    assert [each["id"] for each in answer["messages"]] == [named]


async def test_a_page_ends_where_its_messages_become_too_many_bytes(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshhost.server.services.queue_replies.MANY_BYTES", 100)
    ids = [await rest.send('"' + "x" * 60 + '"') for _ in range(3)]
    page = await rest.ok("GET", f"{JOBS}/messages")
    assert ([each["id"] for each in page["messages"]], page["next"]) == ([ids[2]], ids[2])


async def test_the_life_of_a_message_is_shown(rest: Rest) -> None:
    message_id = await rest.send('{"city": "Berlin"}', key="k")
    await rest.queues.nack(await rest.lease(), reason=EndReason.FAILED, error="no such city", delay=0.0)
    lease = await rest.lease()
    await rest.queues.extend(lease, seconds=30, progress="0.5")
    shown = await rest.ok("GET", f"{JOBS}/messages/{message_id}")
    assert (shown["state"], shown["message"], shown["progress"], shown["by"]) == (
        "leased",
        {"city": "Berlin"},
        0.5,
        "worker-1",
    )
    assert [attempt["error"] for attempt in shown["history"]] == ["no such city"]
    await rest.queues.ack(lease, result="[1]")
    assert (await rest.ok("GET", f"{JOBS}/messages/{message_id}"))["result"] == [1]


@pytest.mark.parametrize("message_id", ["999", "x", "9" * 30, "-1"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_message_that_is_not_there_is_not_found(rest: Rest, method: str, message_id: str) -> None:
    await rest.send()
    assert (await rest(method, f"{JOBS}/messages/{message_id}"))[0] == 404


async def test_a_queue_that_is_not_there_is_not_found(rest: Rest) -> None:
    requests = [("GET", "messages"), ("GET", "messages/1"), ("DELETE", "messages/1"), ("GET", "settings")]
    requests += [("PATCH", "settings"), *(("POST", what) for what in ("pause", "resume", "purge", "replay"))]
    for method, what in requests:
        status, answer = await rest(method, f"{JOBS}/{what}", json={"max_depth": 1})
        assert (status, answer["error"]) == (404, "no queue 'jobs' in this room"), (method, what)
    assert await rest.ok("GET", "/rooms/room/queues") == {"queues": []}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/rooms/a%20b/queues", "room name"),
        (f"/rooms/room/queues/{'x' * 201}/messages", "name"),
        ("/rooms/room/queues/a%00b/messages", "name"),
        (f"{JOBS}/messages?state=new", "states.0"),
        (f"{JOBS}/messages?limit=0", "limit"),
        (f"{JOBS}/messages?limit=201", "limit"),
        (f"{JOBS}/messages?before=x", "before"),
        (f"{JOBS}/messages?since=soon", "since"),
        (f"{JOBS}/messages?until=nan", "until"),
        (f"{JOBS}/messages?text=", "text"),
        (f"{JOBS}/messages/1?wait=x", "wait"),
        (f"{JOBS}/messages/1?wait=-1", "wait"),
        (f"{JOBS}/messages/1?wait=inf", "wait"),
    ],
)
async def test_what_is_wrong_in_a_request_is_named(rest: Rest, path: str, field: str) -> None:
    await rest.send()
    status, answer = await rest("GET", path)
    assert (status, answer["error"].partition(":")[0]) == (400, field)


# --- Waiting


async def test_a_wait_is_answered_when_the_message_has_ended(rest: Rest, until: Until) -> None:
    message_id = await rest.send()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(rest.ok("GET", f"{JOBS}/messages/{message_id}?wait=30"))
        await until(lambda: rest.queues.watching == 1)
        await rest.queues.ack(await rest.lease(), result='"done"')
    assert (waiting.result()["state"], waiting.result()["result"]) == ("done", "done")
    again = await rest.ok("GET", f"{JOBS}/messages/{message_id}?wait=30")
    assert again["state"] == "done"


async def test_a_wait_ends_with_its_time_and_with_what_was_not_seen(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = await rest.send()
    shown = await rest.ok("GET", f"{JOBS}/messages/{message_id}?wait=0")
    assert shown["state"] == "ready"
    monkeypatch.setattr(routes, "MAX_WAIT_SECONDS", 0.05)
    assert (await rest.ok("GET", f"{JOBS}/messages/{message_id}?wait=9999"))["state"] == "ready"
    monkeypatch.setattr(routes, "MAX_WAIT_SECONDS", 60.0)
    await rest.lease()
    assert (await rest.ok("GET", f"{JOBS}/messages/{message_id}?wait=60&seen={shown['seen']}"))["state"] == "leased"


async def test_a_client_that_goes_away_leaves_no_wait_behind(
    rest: Rest, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "_LOOK_SECONDS", 0.01)
    message_id = await rest.send()
    waiting = asyncio.get_running_loop().create_task(rest("GET", f"{JOBS}/messages/{message_id}?wait=60"))
    await until(lambda: rest.queues.watching == 1)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    await until(lambda: rest.queues.watching == 0)


async def test_a_server_that_stops_answers_those_who_wait(
    serve: Any, http: aiohttp.ClientSession, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "_LOOK_SECONDS", 0.01)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        rest = Rest(http, await stack.enter_async_context(serve()))
        message_id = await rest.send()
        waiting = tasks.create_task(rest.ok("GET", f"{JOBS}/messages/{message_id}?wait=60"))
        await until(lambda: rest.queues.watching == 1)
        await rest.server.server.stop()
    assert waiting.result()["state"] == "ready"


async def test_waits_of_a_tenant_are_bounded(rest: Rest, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MAX_WAITING", 1)
    message_id = await rest.send()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(rest.ok("GET", f"{JOBS}/messages/{message_id}?wait=60"))
        await until(lambda: rest.queues.watching == 1)
        status, answer = await rest("GET", f"{JOBS}/messages/{message_id}?wait=60")
        assert (status, answer["error"]) == (429, "over 1 requests of this tenant wait for messages")
        assert (await rest("GET", f"{JOBS}/messages/{message_id}"))[0] == 200
        await rest.queues.cancel(rest.queue, int(message_id))
    assert (await rest.ok("GET", f"{JOBS}/messages/{message_id}?wait=60"))["state"] == "cancelled"


# --- Changing


async def test_a_message_is_cancelled(rest: Rest) -> None:
    first, second = await rest.send(), await rest.send()
    await rest.lease()
    assert await rest.ok("DELETE", f"{JOBS}/messages/{first}") == {"state": "leased"}
    assert await rest.ok("DELETE", f"{JOBS}/messages/{second}") == {"state": "cancelled"}


async def test_settings_are_changed_one_by_one(rest: Rest) -> None:
    await rest.send()
    await rest.ok("PATCH", f"{JOBS}/settings", json={"max_attempts": 2, "retry_seconds": 5})
    await rest.ok("PATCH", f"{JOBS}/settings", json={"max_attempts": None})
    settings = await rest.ok("GET", f"{JOBS}/settings")
    assert (settings["max_attempts"], settings["retry_seconds"], settings["result_ttl"]) == (None, 5, 3600)
    for body, field in (({"max_dept": 1}, "max_dept"), ({"result_ttl": None}, "result_ttl"), ([], "body")):
        status, answer = await rest("PATCH", f"{JOBS}/settings", json=body)
        assert (status, answer["error"].partition(":")[0]) == (400, field)


async def test_a_paused_queue_delivers_again_when_it_is_resumed(rest: Rest) -> None:
    await rest.send()
    assert (await rest.ok("POST", f"{JOBS}/pause"))["paused"] is True
    assert await rest.queues.receive(rest.queue, HolderId("h")) is None
    assert (await rest.ok("POST", f"{JOBS}/resume"))["paused"] is False
    assert await rest.queues.receive(rest.queue, HolderId("h")) is not None


async def test_dead_messages_are_replayed_and_the_rest_is_purged(rest: Rest) -> None:
    await rest.send()
    await rest.send()
    await rest.ok("PATCH", f"{JOBS}/settings", json={"max_attempts": 1})
    for _ in range(2):
        assert await rest.queues.nack(await rest.lease(), reason=EndReason.FAILED, error="no")
    for ids in ("1", ["x"], [-1], [2**63], list(range(MAX_BATCH + 1))):
        assert (await rest("POST", f"{JOBS}/replay", json={"ids": ids}))[0] == 400
    assert await rest.ok("POST", f"{JOBS}/replay", json={"ids": ["1"]}) == {"replayed": 1}
    assert await rest.ok("POST", f"{JOBS}/replay") == {"replayed": 1}
    assert await rest.ok("POST", f"{JOBS}/purge") == {"purged": 2}


# --- Who may


async def test_a_viewer_sees_states_and_no_contents(rest: Rest) -> None:
    viewer, message_id = await key_of(rest, "viewer"), await rest.send('"secret"')
    shown = await rest.ok("GET", f"{JOBS}/messages/{message_id}", bearer=viewer)
    (found,) = (await rest.ok("GET", f"{JOBS}/messages", bearer=viewer))["messages"]
    assert shown == found
    assert (found["state"], "message" in found, "history" in found) == ("ready", False, False)
    assert (await rest("GET", f"{JOBS}/messages?text=s", bearer=viewer))[0] == 403
    assert (await rest("POST", f"{JOBS}/purge", bearer=viewer))[0] == 403
    developer = await key_of(rest, "developer")
    assert (await rest.ok("GET", f"{JOBS}/messages/{message_id}", bearer=developer))["message"] == "secret"


async def test_a_token_needs_the_grants_that_the_room_asks_for(rest: Rest) -> None:
    sender = rest.token(send=["jobs"], receive=[], list=False)
    message_id = (await rest.ok("POST", f"{JOBS}/messages", bearer=sender, json="secret"))["id"]
    receiver = rest.token(send=[], receive=["jobs"], list=False)
    other = rest.token(send=["mails"], receive=["mails"], list=True)
    shown = await rest.ok("GET", f"{JOBS}/messages/{message_id}", bearer=sender)
    assert (shown["state"], "message" in shown) == ("ready", False)
    assert (await rest.ok("GET", f"{JOBS}/messages/{message_id}", bearer=receiver))["message"] == "secret"
    assert (await rest.ok("GET", f"{JOBS}/messages?text=secret", bearer=receiver))["messages"][0]["message"] == "secret"
    changing = [("GET", "messages"), ("DELETE", f"messages/{message_id}"), ("GET", "settings"), ("PATCH", "settings")]
    changing += [("POST", what) for what in ("pause", "resume", "replay", "purge")]
    for method, what in changing:
        assert (await rest(method, f"{JOBS}/{what}", bearer=sender, json={}))[0] == 403, what
        assert (await rest(method, f"{JOBS}/{what}", bearer=other, json={}))[0] == 403, what
        assert (await rest(method, f"{JOBS}/{what}", bearer=receiver, json={}))[0] == 200, what
    assert (await rest("GET", f"{JOBS}/messages/{message_id}", bearer=other))[0] == 403
    assert (await rest("GET", "/rooms/room/queues", bearer=sender))[0] == 403
    assert len((await rest.ok("GET", "/rooms/room/queues", bearer=other))["queues"]) == 1
    assert (await rest("GET", "/rooms/elsewhere/queues", bearer=other))[0] == 403


async def test_a_token_that_may_only_send_reads_what_its_owner_sent(rest: Rest) -> None:
    sender = rest.token(send=["jobs"], receive=[])
    other = rest.server.token("room", name="other", scope=ApiScope(queues=QueuesGrant(send=["jobs"], receive=[])))
    mine = (await rest.ok("POST", f"{JOBS}/messages", bearer=sender, json=[1, 2]))["ids"]
    mine.append((await rest.ok("POST", f"{JOBS}/messages", bearer=sender, json="x" * 300_000))["id"])
    foreign = [await rest.send(), (await rest.ok("POST", f"{JOBS}/messages", bearer=other, json=3))["id"], "98765432"]
    for message_id in mine:
        assert (await rest.ok("GET", f"{JOBS}/messages/{message_id}", bearer=sender))["state"] == "ready"
        assert (await rest.ok("GET", f"{JOBS}/messages/{message_id}?wait=0.01", bearer=sender))["state"] == "ready"
    for message_id in foreign:
        for query in ("", "?wait=0.01", "/result"):
            status, answer = await rest("GET", f"{JOBS}/messages/{message_id}{query}", bearer=sender)
            assert status == 403
            assert "another participant sent" in answer["error"]


async def test_another_tenant_has_other_queues(rest: Rest, other_key: Any) -> None:
    await rest.send()
    assert await rest.ok("GET", "/rooms/room/queues", bearer=encode_api_key(other_key)) == {"queues": []}


async def test_looking_opens_no_room(rest: Rest) -> None:
    message_id = await rest.send(delay=3600)
    assert rest.awake == []
    for path in ("/rooms/room/queues", f"{JOBS}/messages", f"{JOBS}/messages/{message_id}", f"{JOBS}/settings"):
        await rest.ok("GET", path)
    await rest.ok("GET", f"{JOBS}/messages/{message_id}?wait=0.01")
    await rest.ok("POST", f"{JOBS}/pause")
    await rest.ok("PATCH", f"{JOBS}/settings", json={"max_depth": 9})
    assert rest.awake == []
