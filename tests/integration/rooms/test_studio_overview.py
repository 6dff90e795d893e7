"""What Studio sees of a tenant and of a room without joining anything: `/overview`, and the events of a room."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from meshhost.identity.keys import encode_api_key, new_api_key, parse_api_key
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.server.studio import events as events_module
from meshhost.stores.queues import EndReason, HolderId, NewMessage, QueueKey
from meshhost.testing.server import RunningServer, running_server

OPERATOR_KEY = "operator-key-of-more-than-thirty-two-characters"
OTHER = new_api_key("99999999-2222-3333-4444-555555555555")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path, operator_key=OPERATOR_KEY, other_keys=[OTHER]) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Asking:
    def __init__(self, server: RunningServer, http: aiohttp.ClientSession, key: str | None = None) -> None:
        self.server, self.http = server, http
        self.headers = {"Authorization": f"Bearer {key or server.api_key}"}

    async def __call__(self, path: str = "/overview", *, method: str = "GET", **options: Any) -> tuple[int, Any]:
        headers = self.headers | options.pop("headers", {})
        async with self.http.request(method, self.server.url + path, headers=headers, **options) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if body else answer.headers.get("ETag")

    def queue(self, room: str, name: str = "jobs", tenant: str | None = None) -> QueueKey:
        return QueueKey(RoomKey(TenantId(tenant or self.server.key.project_id), room), name)

    async def send(self, room: str, *, tenant: str | None = None, count: int = 1) -> None:
        messages = [NewMessage(body="1") for _ in range(count)]
        await self.server.server.engines.queues.send_many(self.queue(room, tenant=tenant), messages)


@pytest.fixture
def asking(server: RunningServer, http: aiohttp.ClientSession) -> Asking:
    return Asking(server, http)


async def test_an_overview_has_all_rooms_with_their_counts(asking: Asking) -> None:
    await asking("/accounts/projects/" + asking.server.key.project_id + "/rooms", method="POST", json={"name": "empty"})
    await asking.send("closed", count=3)
    async with asking.server.client("den", name="ada"), asking.server.client("den", name="poet", role="agent"):
        status, overview = await asking()
    assert status == 200
    rooms = {room["name"]: room for room in overview["rooms"]}
    assert list(rooms) == ["closed", "den", "empty"]
    den, closed, empty = rooms["den"], rooms["closed"], rooms["empty"]
    assert (den["open"], den["participants"], den["agents"], den["queues"]) == (True, 2, 1, 0)
    assert (closed["ready"], closed["queues"], closed["oldest_at"] <= overview["at"]) == (3, 1, True)
    assert (empty["open"], empty["queues"], empty["oldest_age"]) == (False, 0, None)
    assert overview["totals"]["rooms"] == 3
    assert (overview["totals"]["ready"], overview["totals"]["agents"]) == (3, 1)
    assert overview["tenant"]["id"] == asking.server.key.project_id
    assert "tenants" not in overview


async def test_an_overview_comes_in_pages_and_is_not_sent_again_unchanged(asking: Asking) -> None:
    for name in ("a", "b", "c"):
        await asking.send(name)
    _, first = await asking("/overview?limit=2")
    assert ([room["name"] for room in first["rooms"]], first["next"]) == (["a", "b"], "b")
    _, second = await asking("/overview?limit=2&after=b")
    assert ([room["name"] for room in second["rooms"]], second["next"]) == (["c"], None)
    async with asking.http.get(f"{asking.server.url}/overview", headers=asking.headers) as answer:
        tag = answer.headers["ETag"]
    assert await asking(headers={"If-None-Match": tag}) == (304, tag)
    assert (await asking("/overview?limit=x"))[0] == 400


async def test_a_tenant_sees_its_own_rooms_only_and_the_operator_all_tenants(asking: Asking) -> None:
    await asking.send("mine")
    await asking.send("theirs", tenant=OTHER.project_id, count=2)
    _, overview = await Asking(asking.server, asking.http, encode_api_key(OTHER))()
    assert [room["name"] for room in overview["rooms"]] == ["theirs"]
    operator = Asking(asking.server, asking.http, OPERATOR_KEY)
    _, overview = await operator()
    assert (overview["tenant"], overview["rooms"], overview["totals"]["ready"]) == (None, [], 3)
    assert {each["id"]: each["ready"] for each in overview["tenants"]} == {
        asking.server.key.project_id: 1,
        OTHER.project_id: 2,
    }
    _, overview = await operator(f"/overview?tenant={OTHER.project_id}")
    assert [room["name"] for room in overview["rooms"]] == ["theirs"]
    assert (await operator("/overview?tenant=none"))[0] == 404


async def test_what_needs_attention_comes_first(asking: Asking) -> None:
    queues, store = asking.server.server.engines.queues, asking.server.server.engines.queues.store
    await asking.send("den")
    await queues.configure(asking.queue("den"), {"paused": True})
    await asking.send("cave")
    await queues.configure(asking.queue("cave"), {"max_attempts": 1})
    [delivery] = await store.lease(asking.queue("cave"), HolderId("w"), seconds=30)
    assert await store.nack(delivery.lease, reason=EndReason.FAILED, error="it broke")
    _, overview = await asking()
    assert [(each["kind"], each["room"], each["severity"]) for each in overview["attention"]] == [
        ("dead", "cave", "error"),
        ("paused", "den", "warning"),
    ]


async def test_a_suspended_tenant_needs_the_operators_attention(asking: Asking) -> None:
    operator = Asking(asking.server, asking.http, OPERATOR_KEY)
    await asking()  # the tenant is recorded
    path = f"/tenants/{asking.server.key.project_id}/suspend"
    assert (await operator(path, method="POST", json={"reason": "unpaid"}))[0] == 200
    _, overview = await operator()
    assert [(each["kind"], each["text"]) for each in overview["attention"]] == [("suspended", "unpaid")]


# --- Search


def found_in(answer: tuple[int, Any]) -> list[tuple[str, str, str | None]]:
    assert answer[0] == 200, answer
    return [(each["kind"], each["name"], each["room"]) for each in answer[1]["found"]]


async def test_a_search_finds_names_of_every_kind_those_that_begin_so_first(asking: Asking) -> None:
    files = asking.server.server.engines.files
    room = RoomKey(TenantId(asking.server.key.project_id), "poetry")
    await files.write(room, "old/Poem.txt", io.BytesIO(b"x"), overwrite=True)
    await asking.send("poetry")
    await asking(
        "/rooms/poetry/schedules",
        method="POST",
        json={"queue": "jobs", "every": 60, "name": "a poem an hour", "message": 1},
    )
    async with asking.server.client("den", name="poet", role="agent"):
        assert found_in(await asking("/search?q=POE")) == [
            ("room", "poetry", "poetry"),
            ("agent", "poet", "den"),
            ("file", "old/Poem.txt", "poetry"),
            ("schedule", "a poem an hour", "poetry"),
        ]
        assert found_in(await asking("/search?q=jobs")) == [("queue", "jobs", "poetry")]
        assert found_in(await asking("/search?q=den")) == [("room", "den", "den")]
    [record] = await asking.server.server.engines.queues.peek(asking.queue("poetry"), limit=1)
    assert found_in(await asking(f"/search?q={record.id}")) == [("message", str(record.id), "poetry")]
    status, answer = await asking("/search?q=po&limit=1")
    assert (status, len(answer["found"]), answer["cut"]) == (200, 1, True)
    other = Asking(asking.server, asking.http, encode_api_key(OTHER))
    assert found_in(await other("/search?q=poe")) == []
    operator = Asking(asking.server, asking.http, OPERATOR_KEY)
    assert ("room", "poetry", "poetry") in found_in(await operator("/search?q=poe"))
    assert [kind for kind, *_ in found_in(await operator("/search?q=default"))] == ["tenant", "tenant"]


async def test_a_viewer_finds_no_files_and_a_search_needs_a_text(asking: Asking) -> None:
    operator = Asking(asking.server, asking.http, OPERATOR_KEY)
    keys = f"/tenants/{asking.server.key.project_id}/keys"
    _, made = await operator(keys, method="POST", json={"role": "viewer"})
    files = asking.server.server.engines.files
    den = RoomKey(TenantId(asking.server.key.project_id), "den")
    await files.write(den, "poem.txt", io.BytesIO(b"x"), overwrite=True)
    assert found_in(await asking("/search?q=poem")) == [("file", "poem.txt", "den")]
    assert found_in(await Asking(asking.server, asking.http, made["value"])("/search?q=poem")) == []
    for wrong in ("/search", "/search?q=%20", f"/search?q={'x' * 201}"):
        assert (await asking(wrong))[0] == 400


# --- The log of a room


async def test_the_log_of_a_room_has_what_participants_and_the_server_wrote(asking: Asking) -> None:
    async with asking.server.client("den", name="poet") as client:
        await client.developer.log(type="verse", data={"line": 1})
        status, log = await asking("/rooms/den/log?agent=poet&text=verse")
    assert (status, [(line["text"], line["fields"]) for line in log["lines"]]) == (200, [("verse", {"line": 1})])
    assert (await asking(f"/rooms/den/log?after={log['next']}&text=verse"))[1]["lines"] == []
    assert (await asking("/rooms/cave/log"))[1]["lines"] == []
    assert (await asking("/rooms/den/log?level=loud"))[0] == 400


async def test_a_room_that_takes_the_name_of_a_deleted_one_has_none_of_its_log(asking: Asking) -> None:
    async with asking.server.client("den", name="poet") as client:
        await client.developer.log(type="verse", data={"line": 1})
    room = f"/tenants/{asking.server.key.project_id}/rooms/den"
    status, answer = await asking(room, method="DELETE")
    assert (status, answer["deleted"]) == (200, True)
    async with asking.server.client("den", name="poet") as client:
        await client.developer.log(type="prose", data={})
        _, log = await asking("/rooms/den/log")
    texts = [line["text"] for line in log["lines"]]
    assert ("prose" in texts, "verse" in texts) == (True, False)


# --- Events of a room


class Stream:
    """The events of a room, as they come."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def next(self) -> tuple[str, Any]:
        """Name and data of the next event, or ("ping", None), or ("closed", None)."""
        async with asyncio.timeout(20):
            block = b""
            while not block.endswith(b"\n\n"):
                line = await self._answer.content.readline()
                if not line:
                    return "closed", None
                block += line
        if block.startswith(b":"):
            return "ping", None
        name, data = block.decode().strip().split("\n")
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    async def until(self, holds: Any) -> Any:
        """The data of the first event for which this holds."""
        while True:
            name, data = await self.next()
            assert name == "room", (name, data)
            if holds(data):
                return data


@asynccontextmanager
async def watching(asking: Asking, room: str = "den", query: str = "") -> AsyncIterator[Stream]:
    async with asking.http.get(f"{asking.server.url}/rooms/{room}/events{query}", headers=asking.headers) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/event-stream"
        yield Stream(answer)


async def test_one_who_watches_a_room_sees_it_change_without_joining_it(asking: Asking) -> None:
    async with watching(asking) as stream:
        name, state = await stream.next()
        assert (name, state["open"], state["participants"], state["queues"]) == ("room", False, [], [])
        assert asking.server.server.rooms == []
        async with asking.server.client("den", name="ada"):
            state = await stream.until(lambda state: state["participants"])
            assert (state["open"], state["participants"][0]["name"], state["participants"][0]["role"]) == (
                True,
                "ada",
                "user",
            )
            await asking.send("den", count=2)
            state = await stream.until(lambda state: state["queues"])
            assert state["queues"][0]["ready"] == 2
        await stream.until(lambda state: not state["participants"])


async def test_one_who_asks_for_changes_gets_the_whole_state_once(asking: Asking) -> None:
    async with watching(asking, query="?changes=1") as stream, asking.server.client("den", name="ada") as ada:
        name, state = await stream.next()
        assert name == "room"
        here = {each["name"] for each in state["participants"]}
        while here != {"ada"}:
            name, change = await stream.next()
            assert name == "change"
            here |= {each["name"] for each in change["joined"]}
        async with asking.server.client("den", name="bob"):
            await asking.send("den", count=2)
            joined, queues = list[str](), dict[str, int]()
            while not joined or not queues:
                name, change = await stream.next()
                assert (name, change["left"], "calls" in change) == ("change", [], False)
                joined += [each["name"] for each in change["joined"]]
                queues |= {queue["name"]: queue["ready"] for queue in change["queues"]}
            assert (joined, queues) == (["bob"], {"jobs": 2})
        while not change["left"]:
            name, change = await stream.next()
            assert (name, change["joined"], change["queues"]) == ("change", [], [])
        await ada.queues.purge("jobs")


async def test_a_quiet_stream_says_that_it_is_alive(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "_PING_SECONDS", 0.1)
    async with watching(asking) as stream:
        assert (await stream.next())[0] == "room"
        assert await stream.next() == ("ping", None)


async def test_a_stream_ends_with_its_key(asking: Asking) -> None:
    operator = Asking(asking.server, asking.http, OPERATOR_KEY)
    keys = f"/tenants/{asking.server.key.project_id}/keys"
    _, made = await operator(keys, method="POST", json={"role": "viewer"})
    async with watching(Asking(asking.server, asking.http, made["value"])) as stream:
        assert (await stream.next())[0] == "room"
        await operator(f"{keys}/{parse_api_key(made['value']).id}", method="DELETE")
        assert await stream.next() == ("end", {"reason": "the API key is unknown or was revoked"})
        assert await stream.next() == ("closed", None)


async def test_a_stream_ends_when_the_server_stops(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with running_server(tmp_path) as server:
        asking = Asking(server, http)
        opened = watching(asking)
        stream = await opened.__aenter__()
        assert (await stream.next())[0] == "room"
    assert await stream.next() in [("end", {"reason": "the room server is stopping"}), ("closed", None)]
    await opened.__aexit__(None, None, None)


async def test_streams_that_are_opened_at_once_are_counted_too(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "MAX_STREAMS", 1)
    queues, is_refused = asking.server.server.engines.queues, asyncio.Event()
    stats = queues.stats

    async def slow(room: RoomKey) -> Any:
        await is_refused.wait()
        return await stats(room)

    monkeypatch.setattr(queues, "stats", slow)

    async def status() -> int:
        async with asking.http.get(f"{asking.server.url}/rooms/den/events", headers=asking.headers) as answer:
            is_refused.set()
            return answer.status

    async with asyncio.timeout(20):
        assert sorted(await asyncio.gather(status(), status())) == [200, 429]


async def test_a_tenant_opens_only_so_many_streams(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "MAX_STREAMS", 1)
    async with watching(asking):
        assert (await asking("/rooms/den/events"))[0] == 429
    for _ in range(100):  # the server sees that the reader is gone within a second
        async with asking.http.get(f"{asking.server.url}/rooms/den/events", headers=asking.headers) as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(0.05)
    pytest.fail("the place was not given back")
