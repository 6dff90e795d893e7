"""A ServiceHost and a room server over real sockets: what a call starts, and everything that ends it."""

import asyncio
import contextlib
import gc
import io
import json
import logging
import os
import re
import signal
import socket
import sys
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from meshhost.agents.worker import Worker
from meshhost.errors import CallRefusedError, ConnectionLostError, LifecycleError, RequestTimeoutError, SettingsError
from meshhost.hosting import service_host as service_host_module
from meshhost.hosting.agents import life as life_module
from meshhost.hosting.calls.hosted_agents import HostedAgents
from meshhost.hosting.http.bodies import MAX_BODY_BYTES
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.grants import ApiScope
from meshhost.identity.keys import encode_api_key, new_api_key
from meshhost.identity.tokens import NO_EXPIRATION, ParticipantGrant, ParticipantToken
from meshhost.identity.webhooks import sign_webhook, webhook_body
from meshhost.protocol.connection import MessageReceived, RoomConnection
from meshhost.protocol.messages import EmptyResponse, JsonResponse
from meshhost.room.client import RoomClient
from meshhost.room.participants import RemoteParticipant
from meshhost.supervision.agent import SupervisedAgent
from meshhost.supervision.drain import DrainReport
from meshhost.supervision.policy import RestartPolicy
from meshhost.supervision.state import State
from meshhost.tasks import TaskOwner
from meshhost.testing.agents import CrashingAgent, NeverStartingAgent, QuietAgent, SlowAgent, StubbornAgent
from meshhost.testing.scripted_llm import ScriptedLLM, wait_until
from meshhost.testing.server import RunningServer, running_server

SECRET = "webhook-secret-of-at-least-32-bytes!"
AT_ONCE = RestartPolicy(first_delay=0.0, max_delay=0.0)


async def soon(awaitable: Awaitable[Any], seconds: float = 15.0) -> Any:
    """What is awaited here comes soon, or the test fails."""
    async with asyncio.timeout(seconds):
        return await awaitable


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@dataclass
class Answer:
    """What a host answered."""

    status: int
    json: Any
    headers: Any


@dataclass
class Hosted:
    """A host that listens, and how it is called."""

    host: ServiceHost
    server: RunningServer
    http: aiohttp.ClientSession
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.host.port}"

    def data(self, room: str = "room", identity: str = "agent", **changes: Any) -> dict[str, Any]:
        data = {
            "room_name": room,
            "room_url": self.server.server.room_url(room),
            "token": self.server.token(room, name=identity, role="agent"),
            "arguments": {},
        }
        return data | changes

    async def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> Answer:
        async with self.http.post(self.url + path, data=io.BytesIO(body), headers=headers) as response:
            return Answer(response.status, await response.json(), response.headers)

    async def call(self, path: str = "/agent", **data: Any) -> Answer:
        return await self.post(path, webhook_body("room.call", self.data(**data)))

    async def get(self, path: str, **options: Any) -> Answer:
        async with self.http.get(self.url + path, **options) as response:
            return Answer(response.status, await response.json(), response.headers)

    async def started(self, **data: Any) -> SupervisedAgent:
        """Call, and return the spawn."""
        answer = await self.call(**data)
        assert answer.status == 200, answer.json
        spawn = self.host.parts.supervisor.find(answer.json["spawn_id"])
        assert spawn is not None
        return spawn

    async def present(self) -> set[tuple[str, str]]:
        """(room, name) of everybody in a room of the server."""
        url = f"{self.server.url}/accounts/projects/{self.server.key.project_id}/sessions/active"
        async with self.http.get(url, headers={"Authorization": f"Bearer {self.server.api_key}"}) as response:
            sessions = (await response.json())["sessions"]
        return {(session["room_name"], one["name"]) for session in sessions for one in session["participants"]}

    async def end_room(self, room: str = "room") -> None:
        """Delete the room at the server, as its operator would."""
        headers = {"Authorization": f"Bearer {self.server.api_key}"}
        url = f"{self.server.url}/accounts/projects/{self.server.key.project_id}/rooms"
        async with self.http.post(url, json={"name": room, "if_not_exists": True}, headers=headers) as response:
            room_id = (await response.json())["id"]
        async with self.http.delete(f"{url}/{room_id}", headers=headers) as response:
            assert response.status == 204


Serve = Callable[..., Awaitable[Hosted]]


@pytest.fixture
async def serve(server: RunningServer, http: aiohttp.ClientSession) -> AsyncIterator[Serve]:
    """`serve(QuietAgent, **of the path)` starts a host with that class at /agent; it is stopped after the test."""
    async with AsyncExitStack() as stack:

        async def make(
            cls: Callable[..., Any],
            *,
            secret: str = "",
            max_agents: int | None = None,
            drain: float = 5.0,
            tuned: dict[str, float] | None = None,
            **path: Any,
        ) -> Hosted:
            host = ServiceHost(
                port=0,
                webhook_secret=secret,
                allowed_room_urls=[server.url],
                max_agents=max_agents,
                drain_seconds=drain,
                name="tested",
            )
            host.tune(**tuned or {})
            host.add_path("/agent", cls=cls, **{"restart": AT_ONCE} | path)
            await host.start()
            stack.push_async_callback(host.stop)
            return Hosted(host, server, http)

        yield make


def quiet() -> type[QuietAgent]:
    """A class of its own, with its own `made`."""
    return type("Quiet", (QuietAgent,), {})


# What a call starts


async def test_a_call_starts_an_agent_that_joins_the_room_and_knows_its_call(serve: Serve) -> None:
    cls = quiet()
    hosted = await serve(cls)
    before = time.time()
    answer = await hosted.call(arguments={"topic": "ai"}, identity="poet")

    assert answer.status == 200
    assert answer.json == {"ok": True, "spawn_id": hosted.host.agents[0].id, "state": "starting"}
    agent = await cls.wait_made()
    await soon(agent.started.wait())
    await soon(hosted.host.agents[0].wait_state(State.RUNNING))
    assert ("room", "poet") in await hosted.present()
    assert agent.room.room_name == "room"
    assert agent.call is agent.room.call
    assert (agent.call.tenant, agent.call.room, agent.call.identity) == (
        hosted.server.key.project_id,
        "room",
        "poet",
    )
    assert agent.call.arguments == {"topic": "ai"}
    assert agent.call.call_id
    assert before + 3600 < agent.call.deadline < before + 2 * 24 * 3600


async def test_a_class_that_takes_no_call_is_made_without_one(serve: Serve) -> None:
    class Plain(QuietAgent):
        def __init__(self) -> None:
            super().__init__()

    hosted = await serve(Plain)
    await hosted.call(arguments='{"as": "text"}', token=hosted.server.token("room", expiration=NO_EXPIRATION))
    agent = await Plain.wait_made()
    await soon(agent.started.wait())
    assert agent.call is None
    assert agent.room.call.arguments == {"as": "text"}
    assert agent.room.call.deadline is None


async def test_a_repeated_call_finds_the_agent_and_renews_its_token(serve: Serve) -> None:
    cls = quiet()
    hosted = await serve(cls)
    first = await hosted.started()
    agent = await cls.wait_made()
    await soon(first.wait_state(State.RUNNING))
    token = hosted.server.token("room", name="agent", role="agent", expiration=datetime.now(UTC) + timedelta(hours=9))
    again = await hosted.call(token=token)
    other_room, other_name = await hosted.started(room="elsewhere"), await hosted.started(identity="second")

    assert (again.json["spawn_id"], again.json["state"]) == (first.id, "running")
    assert agent.room.protocol.token == token
    assert len({first.id, other_room.id, other_name.id}) == 3
    assert len(hosted.host.agents) == 3


async def test_the_event_may_come_in_a_header_and_other_events_are_ignored(serve: Serve) -> None:
    hosted = await serve(quiet())
    text = json.dumps({"event": "room.call", "data": hosted.data()})
    by_header = await hosted.post("/agent", b"not read", {"Meshagent-Webhook": text})
    started = await hosted.post("/agent", b'{"event": "room.started", "data": {"room_name": "r"}}')

    assert by_header.json["spawn_id"] == hosted.host.agents[0].id
    assert (started.status, started.json) == (200, {"ok": True})
    assert len(hosted.host.agents) == 1


async def test_a_replaced_agent_is_stopped_before_its_successor_starts(serve: Serve) -> None:
    cls = quiet()
    hosted = await serve(cls, on_duplicate="replace")
    first = await hosted.started()
    await soon(first.wait_state(State.RUNNING))
    second, third = await asyncio.gather(hosted.started(), hosted.started())

    assert first.state is State.STOPPED
    assert [spawn.id for spawn in hosted.host.agents] in ([second.id], [third.id])
    await soon(hosted.host.agents[0].wait_state(State.RUNNING))
    assert cls.made[0].stops == 1


async def test_allowed_duplicates_live_side_by_side(serve: Serve) -> None:
    hosted = await serve(quiet(), on_duplicate="allow")
    spawns = [await hosted.started() for _ in range(2)]
    for spawn in spawns:
        await soon(spawn.wait_state(State.RUNNING))
    assert len(hosted.host.agents) == 2


# What is refused


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "body: Invalid JSON"),
        (b"[]", "body: "),
        (b'{"data": {}}', "event: Field required"),
        (b'{"event": "room.call", "data": {"room_url": "ws://x", "token": "t"}}', "data.room_name: Field required"),
    ],
)
async def test_a_malformed_call_is_refused_with_400_and_the_field(serve: Serve, body: bytes, text: str) -> None:
    hosted = await serve(quiet())
    answer = await hosted.post("/agent", body)
    assert answer.status == 400
    assert answer.json["error"].startswith(text)
    assert not hosted.host.agents


@pytest.mark.parametrize("header", [b'{"event": "\xff"}', b"\xf0\x28\x8c\x28"])
async def test_a_header_that_is_no_text_is_refused_with_400(serve: Serve, header: bytes) -> None:
    hosted = await serve(quiet())
    reader, writer = await asyncio.open_connection("127.0.0.1", hosted.host.port)
    head = b"POST /agent HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\nMeshhost-Webhook: "
    writer.write(head + header + b"\r\n\r\n")
    answer = await soon(reader.read())
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'{"error": "body: ' in answer


async def test_foreign_room_servers_and_tokens_are_refused_with_403(serve: Serve) -> None:
    hosted = await serve(quiet())
    foreign = await hosted.call(room_url="ws://evil.example/rooms/room")
    token = await hosted.call(token=hosted.server.token("other-room"))
    garbage = await hosted.call(token="garbage")

    assert [answer.status for answer in (foreign, token, garbage)] == [403, 403, 403]
    assert "MESHHOST_ALLOWED_ROOM_URLS" in foreign.json["error"]
    assert "another room" in token.json["error"]
    assert "garbage" not in garbage.json["error"]


async def test_unknown_paths_methods_and_plain_gets_are_refused(serve: Serve) -> None:
    hosted = await serve(quiet())
    nowhere, got = await hosted.call("/nowhere"), await hosted.get("/agent")
    async with hosted.http.delete(hosted.url + "/agent") as response:
        deleted = Answer(response.status, await response.json(), response.headers)
    broken = await hosted.get(
        "/agent",
        headers={
            "Upgrade": "websocket",
            "Meshhost-Webhook": json.dumps({"event": "room.call", "data": hosted.data()}),
        },
    )

    assert (nowhere.status, nowhere.json) == (404, {"error": "no agent at this path"})
    assert (got.status, got.json) == (405, {"error": "a path takes POST, or a WebSocket upgrade"})
    assert deleted.status == 405
    assert deleted.json["error"]
    assert "POST" in deleted.headers["Allow"]
    assert (broken.status, type(broken.json["error"])) == (400, str)


async def test_a_body_that_is_too_large_is_refused_with_413(serve: Serve) -> None:
    hosted = await serve(quiet())
    answer = await hosted.post("/agent", b" " * (MAX_BODY_BYTES + 1))
    assert (answer.status, answer.json) == (413, {"error": f"body: at most {MAX_BODY_BYTES} bytes"})
    assert 'meshhost_calls_total{path="/agent",status="413"} 1.0' in await metrics(hosted)


async def test_a_full_host_refuses_with_503_and_says_so_in_readyz(serve: Serve) -> None:
    hosted = await serve(quiet(), max_agents=1)
    await hosted.started()
    refused, again, ready = await hosted.call(identity="b"), await hosted.call(), await hosted.get("/readyz")

    assert refused.status == 503
    assert refused.headers["Retry-After"] == "5"
    assert refused.json == {"error": "this host is full: 1 agents live here"}
    assert again.status == 200
    assert (ready.status, ready.json["ok"], ready.json["reasons"]) == (503, False, ["full"])


async def test_signed_calls_pass_and_all_others_get_401(serve: Serve) -> None:
    hosted = await serve(quiet(), secret=SECRET)
    body = webhook_body("room.call", hosted.data())

    async def signed(name: str = "Meshhost-Signature", **options: Any) -> Answer:
        signature = sign_webhook(body, **{"secret": SECRET, "now": time.time()} | options)
        return await hosted.post("/agent", body, {name: signature})

    signature = sign_webhook(body, secret=SECRET, now=time.time())
    ours = await hosted.post("/agent", body, {"Meshhost-Signature": signature})
    replayed = await hosted.post("/agent", body, {"Meshagent-Signature": signature})
    theirs, stale = await signed("Meshagent-Signature"), await signed(now=time.time() - 3600)
    wrong, unsigned = await signed(secret="another-secret-of-at-least-32-bytes!"), await hosted.post("/agent", body)

    assert [ours.status, theirs.status] == [200, 200]
    assert (replayed.status, replayed.json["spawn_id"]) == (200, ours.json["spawn_id"])
    assert [answer.status for answer in (stale, wrong, unsigned)] == [401] * 3
    assert [re.search("old|wrong|not signed", a.json["error"]) is not None for a in (stale, wrong)] == [True, True]
    assert "not signed" in unsigned.json["error"]


async def test_a_call_that_comes_again_starts_nobody(serve: Serve) -> None:
    """As a proxy repeats it, or an attacker: 409 unless the first answer still holds. A refused call is no first one."""
    hosted = await serve(quiet(), secret=SECRET, on_duplicate="allow", max_agents=1)

    async def signed() -> tuple[bytes, dict[str, str]]:
        body = webhook_body("room.call", hosted.data())
        return body, {"Meshhost-Signature": sign_webhook(body, secret=SECRET, now=time.time())}

    first, second = await signed(), await signed()
    assert (await hosted.post("/agent", *first)).status == 200
    again = await hosted.post("/agent", *first)
    assert (again.status, "made before" in again.json["error"]) == (409, True)
    assert (await hosted.post("/agent", *second)).status == 503
    (agent,) = hosted.host.agents
    await hosted.host.parts.supervisor.stop(agent)
    assert (await hosted.post("/agent", *first)).status == 409
    assert (await hosted.post("/agent", *second)).status == 200
    assert len(hosted.host.agents) == 1


async def test_a_host_with_a_ledger_knows_after_a_restart_which_calls_it_has_answered(
    server: RunningServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async def host_of_room() -> Hosted:
        host = ServiceHost(port=0, webhook_secret=SECRET, allowed_room_urls=[server.url], ledger=tmp_path / "ledger.db")
        host.add_path("/joined", cls=quiet())
        host.add_path("/each", cls=quiet(), on_duplicate="allow")
        await host.start()
        return Hosted(host, server, http)

    hosted = await host_of_room()
    body = webhook_body("room.call", hosted.data())
    headers = [{"Meshhost-Signature": sign_webhook(body, secret=SECRET, now=time.time())} for _ in range(2)]
    for path, header in zip(["/joined", "/each"], headers, strict=True):
        assert (await hosted.post(path, body, header)).status == 200
    await hosted.host.stop()
    hosted = await host_of_room()
    try:
        joined, each = [
            await hosted.post(path, body, header) for path, header in zip(["/joined", "/each"], headers, strict=True)
        ]
        assert (joined.status, each.status) == (200, 409)
        assert joined.json["spawn_id"] in {agent.id for agent in hosted.host.agents}
        assert len(hosted.host.agents) == 2
    finally:
        await hosted.host.stop()


# What ends an agent


async def test_a_dismissed_agent_leaves_and_is_not_started_again(serve: Serve) -> None:
    cls = quiet()
    hosted = await serve(cls)
    spawn = await hosted.started()
    agent = await cls.wait_made()
    await soon(spawn.wait_state(State.RUNNING))
    async with hosted.server.client("room") as user:
        to = RemoteParticipant(id=agent.room.local_participant.id)
        await user.messaging.send_message(to=to, type="chat", message={})
        await user.messaging.send_message(to=to, type="dismiss", message={})
        await soon(spawn.wait_state(State.STOPPED))

    assert spawn.reason == "dismissed"
    assert spawn.last_error is None
    assert (agent.stops, len(cls.made)) == (1, 1)
    assert agent.room.is_closed
    assert not hosted.host.agents


async def test_the_rooms_end_ends_an_agent(serve: Serve) -> None:
    cls = quiet()
    hosted = await serve(cls)
    spawn = await hosted.started()
    await soon(spawn.wait_state(State.RUNNING))
    await hosted.end_room()
    await soon(spawn.wait_state(State.STOPPED))

    assert "the room has ended" in spawn.reason
    assert (cls.made[0].stops, len(cls.made)) == (1, 1)


async def test_the_rooms_end_is_no_crash_of_an_agent_that_raises_because_of_it(serve: Serve) -> None:
    class Asking(QuietAgent):
        async def wait_ended(self) -> None:
            await self.room.wait_closed()
            raise ConnectionLostError("my room is gone")

        async def drain(self) -> None:
            raise ConnectionLostError("my room is gone")

    hosted = await serve(Asking)
    spawn = await hosted.started()
    await soon(spawn.wait_state(State.RUNNING))
    await hosted.end_room()
    await soon(spawn.wait_state(State.STOPPED))
    assert spawn.last_error is None


async def test_a_room_error_of_an_agent_in_an_open_room_is_a_crash(serve: Serve) -> None:
    class Failing(CrashingAgent):
        crashes_in_start = False
        error = RequestTimeoutError("no reply")

    hosted = await serve(Failing, restart=RestartPolicy(kind="temporary"))
    spawn = await hosted.started()
    await soon(spawn.wait_state(State.RUNNING))
    Failing.made[0].crash()
    await soon(spawn.wait_state(State.FAILED))
    assert spawn.last_error is not None
    assert (spawn.last_error.type, spawn.last_error.text) == ("RequestTimeoutError", "no reply")


async def test_an_error_of_draining_in_an_open_room_is_kept(serve: Serve) -> None:
    class Failing(QuietAgent):
        async def drain(self) -> None:
            raise RequestTimeoutError("cannot finish")

    hosted = await serve(Failing)
    spawn = await hosted.started()
    await soon(spawn.wait_state(State.RUNNING))
    await soon(hosted.host.stop())
    assert spawn.state is State.FAILED
    assert spawn.last_error is not None
    assert spawn.last_error.text == "cannot finish"


async def test_a_crashed_agent_is_started_again_and_counted(serve: Serve) -> None:
    class Failing(CrashingAgent):
        crashes = 1

    hosted = await serve(Failing)
    spawn = await hosted.started()
    second = await Failing.wait_made(2)
    await soon(second.started.wait())
    await soon(spawn.wait_state(State.RUNNING))

    assert (spawn.restarts, hosted.host.agents) == (1, (spawn,))
    assert Failing.made[0].stops == 1
    assert spawn.last_error is not None
    assert spawn.last_error.text == "the agent crashed"
    second.crash()
    third = await Failing.wait_made(3)
    await soon(third.started.wait())
    text = await metrics(hosted)
    assert 'meshhost_agent_crashes_total{path="/agent"} 2.0' in text
    assert 'meshhost_agent_restarts_total{path="/agent"} 2.0' in text


async def test_an_agent_that_ends_by_itself_is_started_again_only_if_its_policy_says_so(serve: Serve) -> None:
    class Brief(QuietAgent):
        async def wait_ended(self) -> None:
            pass

    hosted = await serve(Brief, restart=RestartPolicy(kind="transient"))
    spawn = await hosted.started()
    await soon(spawn.wait_state(State.STOPPED))
    assert spawn.reason == "exit of a transient agent"
    assert len(Brief.made) == 1


async def test_an_agent_whose_token_is_refused_fails_at_once_and_says_why(serve: Serve) -> None:
    hosted = await serve(quiet())
    forged = ParticipantToken(name="agent", grants=[ParticipantGrant(name="room", scope="room")])
    key = new_api_key(hosted.server.key.project_id)
    spawn = await hosted.started(token=forged.to_jwt(api_key=encode_api_key(key)))
    with contextlib.suppress(LifecycleError):
        await soon(spawn.wait_state(State.FAILED))

    assert (spawn.state, spawn.restarts) == (State.FAILED, 0)
    assert spawn.last_error is not None
    assert spawn.last_error.type == "RoomRefusedError"
    assert "401" in spawn.last_error.text
    assert spawn.reason == spawn.last_error.text
    assert hosted.host.agents == ()
    kept = (await hosted.get("/agents?state=failed")).json["agents"]
    assert [(agent["id"], agent["last_error"]["type"]) for agent in kept] == [(spawn.id, "RoomRefusedError")]
    assert (await hosted.get("/agents")).json["agents"] == []


async def test_a_room_server_that_says_no_hello_is_tried_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    cls, refusals = quiet(), []

    class Shy(RoomClient):
        async def connect(self) -> None:
            if not refusals:
                refusals.append(1)
                raise RequestTimeoutError("the room server did not say hello in time")
            await super().connect()

    monkeypatch.setattr(life_module, "RoomClient", Shy)
    hosted = await serve(cls)
    spawn = await hosted.started()
    await soon((await cls.wait_made()).started.wait())
    await soon(spawn.wait_state(State.RUNNING))
    assert spawn.restarts == 1


async def test_something_that_is_no_agent_fails_with_a_clear_error(serve: Serve) -> None:
    class NoAgent:
        def __getattr__(self, name: str) -> Any:  # only its instances show that it is none
            raise AttributeError(name)

    hosted = await serve(NoAgent, restart=RestartPolicy(kind="temporary"))
    spawn = await hosted.started()
    with contextlib.suppress(LifecycleError):
        await soon(spawn.wait_state(State.FAILED))
    assert spawn.last_error is not None
    assert spawn.last_error.text == "NoAgent is not an agent: it needs start(room=…) and stop()"


async def test_what_an_agent_leaves_needs_no_collection_of_garbage(serve: Serve) -> None:
    rooms: list[weakref.ref[RoomClient]] = []

    class Brief:
        async def start(self, *, room: RoomClient) -> None:
            rooms.append(weakref.ref(room))
            room.messaging.on("message", print)
            await room.queues.send(name="work", message="m")

        async def stop(self) -> None:
            pass

    hosted = await serve(Brief)
    gc.disable()  # a full one is rare, and thorough, where thousands of agents live
    try:
        spawn = await hosted.started()
        await soon(spawn.wait_state(State.RUNNING))
        await hosted.host.parts.supervisor.stop(spawn)
        assert spawn.state is State.STOPPED
        await asyncio.sleep(0)
        assert [room() for room in rooms] == [None]
    finally:
        gc.enable()


async def test_an_agent_that_does_not_start_in_time_has_crashed(serve: Serve) -> None:
    class Never(NeverStartingAgent):
        pass

    hosted = await serve(Never, start_timeout=0.05, restart=RestartPolicy(kind="temporary"))
    spawn = await hosted.started()
    with contextlib.suppress(LifecycleError):
        await soon(spawn.wait_state(State.FAILED))
    assert spawn.last_error is not None
    assert "did not report running within 0.05 s" in spawn.last_error.text
    assert Never.made[0].stops == 1


async def test_an_agent_outlives_its_room_servers_absence(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    cls, key = quiet(), new_api_key("11111111-2222-3333-4444-555555555555")
    async with AsyncExitStack() as stack:
        async with running_server(tmp_path, key=key) as first:
            port = int(first.url.rpartition(":")[2])
            host = ServiceHost(port=0, webhook_secret="", allowed_room_urls=[first.url], drain_seconds=5)
            host.add_path("/agent", cls=cls)
            await host.start()
            stack.push_async_callback(host.stop)
            hosted = Hosted(host, first, http)
            spawn = await hosted.started()
            await soon(spawn.wait_state(State.RUNNING))
            agent, lost, back = cls.made[0], asyncio.Event(), asyncio.Event()
            agent.room.on("reconnecting", lost.set)
            agent.room.on("reconnected", back.set)
        await soon(lost.wait())
        assert spawn.state is State.RUNNING
        async with running_server(tmp_path, key=key, port=port) as second:
            await soon(back.wait())
            hosted.server = second
            assert ("room", "agent") in await hosted.present()
            assert (spawn.state, spawn.restarts, len(cls.made), agent.starts) == (State.RUNNING, 0, 1, 1)
            await host.stop()


# How a host stops


def worker(llm: ScriptedLLM) -> type[Worker]:
    class Working(Worker):
        def __init__(self) -> None:
            super().__init__(queue="jobs", name="worker", llm_adapter=llm)

    return Working


async def test_a_worker_in_the_middle_of_a_message_finishes_it_while_the_host_drains(serve: Serve) -> None:
    finish = asyncio.Event()
    step = wait_until(finish)
    hosted = await serve(worker(ScriptedLLM([step])))
    spawn = await hosted.started(identity="worker")
    async with hosted.server.client("room") as user, asyncio.TaskGroup() as tasks:
        await user.queues.send(name="jobs", message=1)
        await soon(step.reached.wait())
        working = spawn.activity
        stopping = tasks.create_task(hosted.host.stop())
        await soon(spawn.wait_state(State.DRAINING))
        ready, refused = await hosted.get("/readyz"), await hosted.call(identity="late")
        live, seen = await hosted.get("/livez"), await hosted.get(f"/agents/{spawn.id}")
        await user.queues.send(name="jobs", message=2)
        finish.set()
        report = await soon(stopping)
        [queue] = await user.queues.list()

    assert (ready.status, ready.json["reason"]) == (503, "draining")
    assert (refused.status, refused.json) == (503, {"error": "this host is draining"})
    assert refused.headers["Retry-After"] == "5"
    assert live.status == 200
    assert working == seen.json["activity"] == "a message of queue 'jobs' for 0 s"
    assert seen.json["waits_for"] == "its work to finish: a message of queue 'jobs' for 0 s"
    assert 0 < seen.json["leave_seconds"] <= 5
    assert report == DrainReport(finished=("worker in room",), aborted=(), stuck=())
    assert (queue.ready, queue.leased, queue.delayed) == (1, 0, 0)  # the second message waits for the next worker
    assert spawn.state is State.STOPPED


async def test_an_idle_worker_leaves_at_once(serve: Serve) -> None:
    hosted = await serve(worker(ScriptedLLM()), drain=30.0)
    spawn = await hosted.started(identity="worker")
    await soon(spawn.wait_state(State.RUNNING))
    assert spawn.activity is None
    report = await soon(hosted.host.stop(), 5.0)
    assert report.finished == ("worker in room",)
    with pytest.raises(aiohttp.ClientConnectionError):
        await hosted.get("/livez")


async def test_the_rooms_end_is_no_crash_of_a_worker(serve: Serve) -> None:
    hosted = await serve(worker(ScriptedLLM()))
    spawn = await hosted.started(identity="worker")
    await soon(spawn.wait_state(State.RUNNING))
    await hosted.end_room()
    await soon(spawn.wait_state(State.STOPPED))
    assert spawn.last_error is None


async def test_a_worker_that_does_not_finish_in_time_gives_its_message_back(serve: Serve) -> None:
    step = wait_until(asyncio.Event())
    hosted = await serve(worker(ScriptedLLM([step])), drain=0.05)
    await hosted.started(identity="worker")
    async with hosted.server.client("room") as user:
        await user.queues.send(name="jobs", message="long")
        await soon(step.reached.wait())
        report = await soon(hosted.host.stop())
        again = await soon(user.queues.lease(name="jobs"))

    assert report.aborted == ("worker in room",)
    assert (again.message, again.attempt, again.delivery) == ("long", 1, 2)


async def test_who_would_not_leave_is_named_at_the_deadline_and_stop_raises_nothing(serve: Serve) -> None:
    class Stubborn(StubbornAgent):
        pass

    hosted = await serve(Stubborn, drain=0.05, tuned={"cleanup_seconds": 0.1})
    spawn = await hosted.started()
    await soon(spawn.wait_state(State.RUNNING))
    report = await soon(hosted.host.stop(), 5.0)

    assert report == DrainReport(finished=(), aborted=(), stuck=("agent in room",))
    Stubborn.made[0].release.set()
    await soon(spawn.wait_state(State.STOPPED, State.FAILED))


async def test_an_agent_that_takes_its_time_to_stop_is_left_behind_in_the_end(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(StubbornAgent):
        pass

    hosted = await serve(Stubborn, tuned={"stop_seconds": 0.05})
    spawn = await hosted.started()
    await soon(spawn.wait_state(State.RUNNING))
    report = await soon(hosted.host.stop())
    assert report.finished == ("agent in room",)
    assert "agent did not stop in time" in caplog.messages
    Stubborn.made[0].release.set()
    await soon(Stubborn.made[0].stopped.wait())


async def test_an_agent_that_cannot_stop_or_drain_is_no_trouble(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(QuietAgent):
        async def drain(self) -> None:
            await asyncio.Event().wait()

        async def stop(self) -> None:
            raise ValueError("cannot stop")

    hosted = await serve(Broken, drain=0.05)
    # The agent's grace is over long before the host's, which would abort it.
    hosted.host.parts.drain.grace = 5.0
    spawn = await hosted.started()
    await soon(spawn.wait_state(State.RUNNING))
    report = await soon(hosted.host.stop())
    assert report.finished == ("agent in room",)
    assert {"agent did not drain in time", "agent could not stop"} <= set(caplog.messages)


async def test_a_long_path_is_not_cut_short_by_a_short_one_nor_the_short_one_kept_waiting(serve: Serve) -> None:
    class Long(QuietAgent):
        """Leaves when the short one has gone."""

        may_leave = asyncio.Event()

        async def drain(self) -> None:
            await self.may_leave.wait()

    class Short(QuietAgent):
        async def drain(self) -> None:
            await asyncio.Event().wait()

    hosted = await serve(Long, drain=0.05, drain_seconds=60.0)
    hosted.host.add_path("/short", cls=Short, identity="short", drain_seconds=0.1)
    assert hosted.host.get_service_spec()["metadata"]["annotations"] == {"meshhost.drain_seconds": "60"}
    answer = await hosted.call("/short", identity="short")
    short = hosted.host.parts.supervisor.find(answer.json["spawn_id"])
    assert short is not None
    long = await hosted.started()
    for spawn in (long, short):
        await soon(spawn.wait_state(State.RUNNING))
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(hosted.host.stop())
        await soon(short.wait_state(State.STOPPED))
        assert (long.state, stopping.done()) == (State.DRAINING, False)
        Long.may_leave.set()
        report = await soon(stopping)
    assert (long.aborted, report.stuck) == (False, ())
    assert "agent in room" in report.finished


async def test_a_drain_of_the_operator_and_the_stop_after_it_are_told_as_one(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    class Busy(QuietAgent):
        may_leave = asyncio.Event()

        async def drain(self) -> None:
            await self.may_leave.wait()

    caplog.set_level(logging.INFO, "meshhost.supervision.drain")
    hosted = await serve(Busy, drain_seconds=60.0)
    spawn = await hosted.started()
    await soon(spawn.wait_state(State.RUNNING))
    answer = await hosted.post("/drain", b"")
    assert (answer.status, answer.json) == (202, {"ok": True, "agents": 1, "seconds": 60.0})
    await soon(spawn.wait_state(State.DRAINING))
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(hosted.host.stop())
        while caplog.messages.count("agents are asked to leave") < 2:  # noqa: ASYNC110 - what is logged wakes nobody
            await asyncio.sleep(0.01)
        Busy.may_leave.set()
        assert (await soon(stopping)).finished == ("agent in room",)
    assert caplog.messages.count("agents drained") == 1


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_time_to_drain_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(SettingsError, match="drain_seconds: expected a number"):
        ServiceHost(port=0).add_path("/agent", cls=QuietAgent, drain_seconds=seconds)


async def test_a_stop_while_an_agent_is_cut_off_from_its_room_ends_by_the_deadline(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    cls = quiet()
    async with AsyncExitStack() as stack:
        async with running_server(tmp_path) as server:
            host = ServiceHost(port=0, webhook_secret="", allowed_room_urls=[server.url], drain_seconds=3)
            host.add_path("/agent", cls=cls)
            await host.start()
            stack.push_async_callback(host.stop)
            spawn = await Hosted(host, server, http).started()
            await soon(spawn.wait_state(State.RUNNING))
            lost = asyncio.Event()
            cls.made[0].room.on("reconnecting", lost.set)
        await soon(lost.wait())
        report = await soon(host.stop(), 5.0)
    assert (report.stuck, spawn.state, cls.made[0].stops) == ((), State.STOPPED, 1)


async def test_a_stop_while_an_agent_cannot_reach_its_room_at_first_ends_by_the_deadline(
    server: RunningServer, http: aiohttp.ClientSession
) -> None:
    class Unreachable(QuietAgent):
        pass

    # A port that takes connections and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"127.0.0.1:{silent.getsockname()[1]}"
        host = ServiceHost(port=0, webhook_secret="", allowed_room_urls=[f"http://{url}"], drain_seconds=0.2)
        host.add_path("/agent", cls=Unreachable)
        await host.start()
        spawn = await Hosted(host, server, http).started(room_url=f"ws://{url}/rooms/room")
        report = await soon(host.stop(), 5.0)
    assert (report.stuck, spawn.state, Unreachable.made) == ((), State.STOPPED, [])


async def test_one_that_is_still_starting_is_aborted_at_the_deadline(serve: Serve) -> None:
    class Slow(SlowAgent):
        pass

    hosted = await serve(Slow, drain=0.05)
    spawn = await hosted.started()
    agent = await Slow.wait_made()
    await soon(agent.starting.wait())
    report = await soon(hosted.host.stop())
    assert report.aborted == ("agent in room",)
    assert (agent.starts, agent.stops, spawn.state) == (0, 1, State.STOPPED)


async def test_a_slow_agent_runs_when_it_has_started(serve: Serve) -> None:
    class Slow(SlowAgent):
        pass

    hosted = await serve(Slow)
    spawn = await hosted.started()
    agent = await Slow.wait_made()
    await soon(agent.starting.wait())
    assert (await hosted.call()).json["state"] == "starting"
    agent.release.set()
    await soon(spawn.wait_state(State.RUNNING))


async def test_an_address_in_use_is_explained(serve: Serve) -> None:
    hosted = await serve(quiet())
    with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{hosted.host.port}: .*choose another port"):
        await ServiceHost(port=hosted.host.port).start()


async def test_a_host_that_never_started_stops(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert await ServiceHost(port=0).stop() == DrainReport((), (), ())
    assert "agents drained" not in caplog.messages


# `run()` and signals


class TellingHost(ServiceHost):
    """Sets `ready` when it listens."""

    def __init__(self, **options: Any) -> None:
        super().__init__(port=0, webhook_secret="", **options)
        self.ready = asyncio.Event()

    async def start(self) -> None:
        await super().start()
        self.ready.set()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


Running = Callable[[TellingHost], Awaitable["asyncio.Task[None]"]]


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """`running(host)`: its `run()` as a task, listening."""
    tasks = TaskOwner("test")

    async def run(host: TellingHost) -> "asyncio.Task[None]":
        task = tasks.spawn(host.run(), name="run")
        await soon(host.ready.wait())
        return task

    yield run
    await tasks.stop(timeout=10)


async def test_a_signal_stops_a_host_in_order(running: Running) -> None:
    host = TellingHost()
    task = await running(host)
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(task)
    assert host.parts.intake.refuses is not None
    assert not listens(host.port)


BLOCKED_THREADS = """
import asyncio, logging, threading, time
from meshhost.api.services import ServiceHost
logging.basicConfig()
form = logging.Formatter("%(message)s %(threads)s", defaults={"threads": ""})
logging.getLogger().handlers[0].setFormatter(form)
async def main():
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
    threading.Thread(target=time.sleep, args=(600,), name="of a library").start()
    asyncio.get_running_loop().call_later(0.5, lambda: print("running", flush=True))
    await ServiceHost(port=0, webhook_secret="", drain_seconds=0.2).run()
asyncio.run(main())
"""


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_stop_does_not_wait_for_threads_beyond_its_deadline(tmp_path: Path, signals: int) -> None:
    program = tmp_path / "main.py"
    program.write_text(BLOCKED_THREADS)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, str(program), stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    try:
        await soon(process.stdout.readline(), 30)
        await asyncio.sleep(0.5)
        for _ in range(signals):
            process.terminate()
            await asyncio.sleep(0.3)
        _, errors = await soon(process.communicate(), 20)  # its threads sleep for ten minutes
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    if signals == 1:
        assert "the process ends without them" in errors.decode()
        assert "of a library" in errors.decode()
        assert "asyncio_0" in errors.decode()


async def run_of(program: Path, **variables: str) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MESH")} | variables
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, str(program), stderr=pipe, env=environment)


async def test_a_program_prints_where_its_host_listens(tmp_path: Path) -> None:
    """At 8081, or where that is taken (as it is for the second one, whoever has it) at any port, and says so."""
    program = tmp_path / "main.py"
    program.write_text(
        "import asyncio\nfrom meshhost.api.services import ServiceHost\n"
        "from meshhost.testing.agents import QuietAgent\n"
        "host = ServiceHost()\nhost.path('/quiet')(QuietAgent)\nasyncio.run(host.run())\n"
    )
    processes = []
    try:
        lines = []
        for _ in range(2):
            processes.append(process := await run_of(program))
            assert process.stderr is not None
            lines.append("")
            while not lines[-1].startswith("meshhost:"):
                lines[-1] = (await soon(process.stderr.readline(), 30)).decode()
                assert lines[-1]
    finally:
        for process in processes:
            process.terminate()
            await soon(process.wait())
    first, second = [
        re.fullmatch(r"meshhost: service host listens at http://127.0.0.1:(\d+)(.*)\n", line) for line in lines
    ]
    assert first is not None, lines
    assert second is not None, lines
    assert second[1] != "8081"
    assert second[2] == " (port 8081 is taken), with /quiet"
    assert (first[1], first[2]) == ("8081", ", with /quiet") or first[2] == second[2]


async def test_a_second_signal_aborts_the_agents_at_once(
    server: RunningServer, http: aiohttp.ClientSession, running: Running
) -> None:
    class Draining(QuietAgent):
        draining = asyncio.Event()

        async def drain(self) -> None:
            self.draining.set()
            await asyncio.Event().wait()

    host = TellingHost(allowed_room_urls=[server.url], drain_seconds=60)
    host.add_path("/agent", cls=Draining)
    task = await running(host)
    spawn = await Hosted(host, server, http).started()
    await soon(spawn.wait_state(State.RUNNING))
    os.kill(os.getpid(), signal.SIGINT)
    await soon(Draining.draining.wait())
    os.kill(os.getpid(), signal.SIGINT)
    await soon(task)
    assert (spawn.state, spawn.aborted) == (State.STOPPED, True)
    assert Draining.made[0].stops == 1


async def test_a_host_whose_run_is_cancelled_stops_too(
    server: RunningServer, http: aiohttp.ClientSession, running: Running
) -> None:
    cls = quiet()
    host = TellingHost(allowed_room_urls=[server.url])
    host.add_path("/agent", cls=cls)
    task = await running(host)
    spawn = await Hosted(host, server, http).started()
    await soon(spawn.wait_state(State.RUNNING))
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    assert task.cancelled()
    assert (spawn.state, cls.made[0].stops) == (State.STOPPED, 1)


async def test_the_process_is_ended_when_an_agent_cannot_be(
    server: RunningServer, http: aiohttp.ClientSession, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stubborn(StubbornAgent):
        pass

    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    monkeypatch.setattr(service_host_module.logging, "shutdown", lambda: None)
    host = TellingHost(allowed_room_urls=[server.url], drain_seconds=0.05)
    host.tune(cleanup_seconds=0.1)
    host.add_path("/agent", cls=Stubborn)
    task = await running(host)
    spawn = await Hosted(host, server, http).started()
    await soon(spawn.wait_state(State.RUNNING))
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(task)
    assert exits == [0]
    Stubborn.made[0].release.set()
    await soon(spawn.wait_state(State.STOPPED, State.FAILED))


# Called by WebSocket upgrade


class TinyRoom:
    """The room's side of a socket that was opened towards a host: greets, and answers every request with {}."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._connection = RoomConnection()
        self.requests: list[str] = []

    async def greet(self) -> None:
        await self.tell(
            "room_ready", {"room_name": "room", "room_url": "ws://127.0.0.1:9/rooms/room", "session_id": "s"}
        )
        await self.tell("connected", {"type": "init", "participantId": "p1", "attributes": {"name": "agent"}})

    async def tell(self, type: str, header: dict[str, Any]) -> None:
        for packet in self._connection.notify(type, header)[1]:
            await self._socket.send_bytes(packet)

    async def serve(self) -> int | None:
        """Answer until the socket ends; returns the close code."""
        async for message in self._socket:
            event = self._connection.receive(message.data)
            if isinstance(event, MessageReceived):
                self.requests.append(event.type)
                body = JsonResponse(json={}) if event.type != "done" else EmptyResponse()
                for packet in self._connection.reply(event.id, body):
                    await self._socket.send_bytes(packet)
        return self._socket.close_code


@asynccontextmanager
async def upgraded(hosted: Hosted, event: str = "room.call", **data: Any) -> AsyncIterator[TinyRoom]:
    headers = {"Meshagent-Webhook": json.dumps({"event": event, "data": hosted.data(**data)})}
    async with hosted.http.ws_connect(hosted.url + "/agent", headers=headers) as socket:
        yield TinyRoom(socket)


async def test_a_room_server_may_open_the_connection_itself(serve: Serve) -> None:
    class Asking(QuietAgent):
        async def start(self, *, room: RoomClient) -> None:
            assert await room.send_request("room.ping", {}) == {}
            await super().start(room=room)

    hosted = await serve(Asking)
    async with upgraded(hosted, arguments={"a": 1}) as room, asyncio.TaskGroup() as tasks:
        await room.greet()
        serving = tasks.create_task(room.serve())
        agent = await Asking.wait_made()
        await soon(agent.started.wait())
        [spawn] = hosted.host.agents
        await soon(spawn.wait_state(State.RUNNING))
        assert agent.room.local_participant.id == "p1"
        assert ParticipantToken.from_jwt(agent.room.protocol.token, validate=False).name == "agent"
        assert agent.call.arguments == {"a": 1}
        await room.tell("messaging.send", {"from_participant_id": "x", "type": "dismiss", "message": {}})
        await soon(spawn.wait_state(State.STOPPED))
        await soon(serving)
    assert room.requests == ["room.ping"]
    assert spawn.reason == "dismissed"


async def test_an_agent_called_by_upgrade_ends_with_the_socket(serve: Serve) -> None:
    cls = quiet()
    hosted = await serve(cls)
    async with upgraded(hosted) as room:
        await room.greet()
        await soon((await cls.wait_made()).started.wait())
        [spawn] = hosted.host.agents
    await soon(spawn.wait_state(State.STOPPED))
    assert len(cls.made) == 1


async def test_a_socket_that_never_becomes_a_room_is_one_failed_agent(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosted = await serve(quiet())
    spawns: asyncio.Queue[SupervisedAgent] = asyncio.Queue()
    answer = HostedAgents.answer

    async def told(*args: Any, **options: Any) -> SupervisedAgent:
        spawn = await answer(*args, **options)
        spawns.put_nowait(spawn)
        return spawn

    monkeypatch.setattr(HostedAgents, "answer", told)
    async with upgraded(hosted):
        spawn = await soon(spawns.get())
    with contextlib.suppress(LifecycleError):
        await soon(spawn.wait_state(State.FAILED))
    assert (spawn.state, spawn.restarts) == (State.FAILED, 0)


async def test_an_upgrade_is_refused_before_it_happens(serve: Serve) -> None:
    hosted = await serve(quiet(), max_agents=1)
    await hosted.started()
    with pytest.raises(aiohttp.WSServerHandshakeError) as other_event:
        async with upgraded(hosted, "room.started"):
            pass
    with pytest.raises(aiohttp.WSServerHandshakeError) as full:
        async with upgraded(hosted, identity="second"):
            pass
    assert (other_event.value.status, full.value.status) == (400, 503)
    assert full.value.headers is not None
    assert full.value.headers["Retry-After"] == "5"


async def test_an_upgrade_that_finds_the_host_full_after_all_is_closed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any, **__: Any) -> SupervisedAgent:
        raise CallRefusedError("this host is full", status=503)

    hosted = await serve(quiet())
    monkeypatch.setattr(HostedAgents, "answer", refuse)
    async with upgraded(hosted) as room:
        assert await soon(room.serve()) == aiohttp.WSCloseCode.TRY_AGAIN_LATER


# What a host tells about itself


async def metrics(hosted: Hosted) -> str:
    async with hosted.http.get(hosted.url + "/metrics") as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        return await response.text()


async def test_the_metrics_have_names_labels_and_numbers(serve: Serve) -> None:
    hosted = await serve(quiet())
    spawn = await hosted.started()
    await soon(spawn.wait_state(State.RUNNING))
    await hosted.call(room_url="ws://evil.example/rooms/room")
    await hosted.get("/agent")
    text = await metrics(hosted)

    for line in (
        'meshhost_calls_total{path="/agent",status="200"} 1.0',
        'meshhost_calls_total{path="/agent",status="403"} 1.0',
        'meshhost_calls_total{path="/agent",status="405"} 1.0',
        'meshhost_agent_starts_total{path="/agent"} 1.0',
        'meshhost_agents{path="/agent",state="running"} 1.0',
        'meshhost_agent_start_seconds_count{path="/agent"} 1.0',
        "meshhost_drain_seconds_count 0.0",
    ):
        assert line in text
    await hosted.host.stop()
    text = hosted.host.parts.metrics.render().decode()
    assert 'meshhost_agent_ends_total{path="/agent",state="stopped"} 1.0' in text
    assert "meshhost_drain_seconds_count 1.0" in text
    assert 'state="running"' not in text


async def test_health_and_description_are_served(serve: Serve) -> None:
    hosted = await serve(quiet(), identity="poet")
    for path in ("/", "/readyz"):
        answer = await hosted.get(path)
        assert (answer.status, answer.json) == (200, {"ok": True})
    live = await hosted.get("/livez")
    assert (live.status, live.json.keys(), live.json["ok"]) == (200, {"ok", "lag_seconds"}, True)
    described = [await hosted.get(f"/.well-known/{name}-service.json") for name in ("meshhost", "meshagent")]
    assert described[0].json == described[1].json == hosted.host.get_service_spec()
    [port] = described[0].json["ports"]
    assert (port["num"], port["type"], described[0].json["metadata"]["name"]) == (hosted.host.port, "http", "tested")
    assert port["endpoints"] == [{"path": "/agent", "meshagent": {"identity": "poet", "api": None}, "mcp": None}]


_PARSE = """
import sys
from meshagent.api.specs.service import ServiceSpec
spec = ServiceSpec.model_validate_json(sys.stdin.read())
[port] = spec.ports
print(spec.metadata.name, port.num, *[(one.path, one.meshagent.identity, one.meshagent.api) for one in port.endpoints])
"""


async def test_the_meshagent_sdk_reads_the_description(serve: Serve, sdk_python: Path) -> None:
    hosted = await serve(quiet(), permissions=ApiScope.agent_default())
    process = await asyncio.create_subprocess_exec(
        sdk_python, "-c", _PARSE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    described = await hosted.get("/.well-known/meshagent-service.json")
    out, _ = await soon(process.communicate(json.dumps(described.json).encode()), 30)
    assert process.returncode == 0
    assert out.decode().startswith(f"tested {hosted.host.port} ('/agent', 'agent', ")


async def test_a_host_shows_where_it_is_and_who_lives_there(serve: Serve) -> None:
    hosted = await serve(quiet())
    await hosted.started()
    assert repr(hosted.host) == f"<ServiceHost 127.0.0.1:{hosted.host.port} paths=['/agent'] agents=1>"


async def test_metrics_tell_that_the_host_is_ready_and_whom_its_drain_aborted(serve: Serve) -> None:
    class Slow(SlowAgent):
        pass

    hosted = await serve(Slow, drain=0.05)
    await hosted.started()
    await soon((await Slow.wait_made()).starting.wait())
    assert "meshhost_ready 1.0" in hosted.host.parts.metrics.render().decode()
    await soon(hosted.host.stop())
    shown = hosted.host.parts.metrics.render().decode()
    assert "meshhost_ready 0.0" in shown
    assert "meshhost_drain_aborted_agents_total 1.0" in shown
