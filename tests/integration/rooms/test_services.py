"""Calls to service hosts, and the webhooks that tell of a room's life."""

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from meshhost.errors import AccessDeniedError, RoomError
from meshhost.identity.grants import ApiScope, MessagingGrant, QueuesGrant
from meshhost.identity.keys import ApiKey, encode_api_key
from meshhost.room.participants import RemoteParticipant
from meshhost.server.config import CallTimes, ConfiguredService, ServicePath
from tests.integration.rooms.called_host import SECRET, CalledHost, agent_of, called_host

QUICK = CallTimes(first_delay=0.01)


@pytest.fixture
async def host() -> AsyncIterator[CalledHost]:
    async with called_host() as host:
        yield host


@pytest.fixture
def serve(serve: Any) -> Any:
    """Make room servers that call services again soon."""
    return functools.partial(serve, call_times=QUICK)


def _service(host: CalledHost, **options: Any) -> ConfiguredService:
    path = ServicePath("/worker", "worker", arguments={"a": 1})
    return ConfiguredService(url=host.url + "/", paths=[path], webhook_secret=SECRET, **options)


async def test_a_configured_service_is_called_and_called_again(serve: Any, host: CalledHost) -> None:
    async with AsyncExitStack() as agents, serve(services=[_service(host)]) as server, server.client():
        path, event, data = await host.events.get()
        assert (path, event) == ("/worker", "room.call")
        assert (data["room_name"], data["room_url"]) == ("room", server.server.room_url("room"))
        assert data["arguments"] == {"a": 1}
        first = await agents.enter_async_context(agent_of(data))
        assert first.local_participant.get_attribute("name") == "worker"
        assert host.events.empty()
        await first.close()
        _, _, data = await host.events.get()
        second = await agents.enter_async_context(agent_of(data))
        await second.close()


async def test_a_service_is_called_into_its_rooms_only(serve: Any, host: CalledHost) -> None:
    services = [_service(host, rooms="work-*")]
    async with serve(services=services) as server, server.client("play") as play, server.client("work-1"):
        assert (await host.events.get())[2]["room_name"] == "work-1"
        await play.queues.list()
        assert host.events.empty()


async def test_a_host_that_refuses_is_called_again(
    serve: Any, host: CalledHost, caplog: pytest.LogCaptureFixture
) -> None:
    host.answers = [
        web.Response(status=503, headers={"Retry-After": "0"}, text="busy"),
        web.Response(status=429, headers={"Retry-After": "soon"}),
        web.Response(status=302, headers={"Location": "http://elsewhere.invalid"}),
    ]
    async with serve(services=[_service(host)]) as server, server.client():
        for _ in range(4):
            await host.events.get()
    reasons = [getattr(record, "reason", "") for record in caplog.records if "service call failed" in record.message]
    assert reasons[0] == f"{host.url}/worker answered 503: busy"
    assert len(reasons) == 3


async def test_an_agent_that_does_not_join_is_called_again(serve: Any, host: CalledHost) -> None:
    async with serve(services=[_service(host)], call_times=replace(QUICK, join=0.02)) as server, server.client():
        await host.events.get()
        await host.events.get()


async def test_a_room_without_a_signing_key_calls_once_there_is_one(
    serve: Any, host: CalledHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(services=[_service(host)]) as server:
        identity = server.server.engines.identity
        signing_key = identity.signing_key
        tries: asyncio.Queue[str] = asyncio.Queue()

        def none(project_id: str, _: str | None) -> None:
            tries.put_nowait(project_id)

        monkeypatch.setattr(identity, "signing_key", none)
        async with server.client():
            await tries.get()
            await tries.get()
            monkeypatch.setattr(identity, "signing_key", signing_key)
            assert (await host.events.get())[1] == "room.call"
    assert "service call not signed" in caplog.text


async def test_a_room_tells_of_its_start_and_its_end(serve: Any, host: CalledHost) -> None:
    urls = ["http://127.0.0.1:1/gone", f"{host.url}/hook"]
    async with serve(webhook_urls=urls, webhook_secret=SECRET, linger_seconds=0.02) as server:
        async with server.client("lobby"):
            path, event, data = await host.events.get()
            assert (path, event) == ("/hook", "room.started")
            url, tenant = server.server.room_url("lobby"), server.key.project_id
            named = {"tenant": tenant, "tenant_name": "default"}
            assert data == {"room_name": "lobby", "room_url": url, **named}
        assert (await host.events.get())[1:] == ("room.ended", {"room_name": "lobby", **named})
        assert server.server.rooms == []


async def test_a_room_waits_a_little_for_its_participants(serve: Any, host: CalledHost) -> None:
    hooks = {"webhook_urls": [f"{host.url}/hook"], "webhook_secret": SECRET}
    async with serve(**hooks, linger_seconds=0.2) as server:
        async with server.client() as a:
            session = a.session_id
        async with server.client() as b:
            assert b.session_id == session
            await asyncio.sleep(0.3)  # past the lingering of the first
            await b.queues.list()
        assert [(await host.events.get())[1] for _ in range(2)] == ["room.started", "room.ended"]


async def test_called_agents_keep_a_room_only_while_there_is_work(serve: Any, host: CalledHost, until: Any) -> None:
    services, hook = [_service(host)], [f"{host.url}/hook"]
    async with serve(services=services, webhook_urls=hook, webhook_secret=SECRET, linger_seconds=0.02) as server:
        user = server.client()
        async with user:
            await host.events.get()
            _, _, data = await host.events.get()
            async with agent_of(data) as agent:
                await user.queues.send(name="q", message=1)
                leased = await agent.queues.lease(name="q")
                assert leased is not None
                await user.close()
                await asyncio.sleep(0.1)  # several times the lingering
                assert agent.is_open
                await leased.ack()
                reason = await agent.wait_closed()
                assert reason.error is not None
        assert (await host.events.get())[1] == "room.ended"


async def test_a_participant_calls_an_agent_in(serve: Any, host: CalledHost) -> None:
    async with serve(call_urls=[f"{host.url}/agents"], webhook_secret=SECRET) as server:
        scope = ApiScope.full()
        scope = scope.model_copy(update={"queues": QueuesGrant(send=["a"]), "storage": None})
        async with server.client(scope=scope) as a:
            wanted = ApiScope(queues=QueuesGrant(), storage=scope.storage, messaging=MessagingGrant())
            await a.agents.make_call(name="bot", url=f"{host.url}/agents/bot", arguments={"x": 1}, api=wanted)
            path, _, data = await host.events.get()
            assert (path, data["arguments"]) == ("/agents/bot", {"x": 1})
            async with agent_of(data) as bot:
                assert bot.local_participant.get_attribute("name") == "bot"
                await bot.queues.send(name="a", message=1)
                for refused in (bot.queues.send(name="b", message=1), bot.storage.list(path="")):
                    with pytest.raises(AccessDeniedError):
                        await refused
            await a.agents.make_call(name="bot", url=f"{host.url}/agents", arguments={})


@pytest.mark.parametrize(
    "path",
    [
        "/admin",
        "/agents2",
        "/agents/../admin",
        "/agents/%2e%2e/admin",
        "/agents/a/../../admin",
        "/agents/..%2fx",
        "/agents/..;/admin",
        "/agents/..;x=y/admin",
        "/agents/%2e%2e;/admin",
        "/agents/%252e%252e/admin",
        "/agents/%25252e%25252e%25252fadmin",
        "/agents/%5c..%5cadmin",
        "/agents/%2525252525252525252e./admin",
        "?/agents",
        "@h",
    ],
)
async def test_only_permitted_urls_are_called(serve: Any, host: CalledHost, path: str) -> None:
    async with serve(call_urls=[f"{host.url}/agents"], webhook_secret=SECRET) as server, server.client() as a:
        for url in (host.url + path, "http://[", "file:///etc/passwd", ""):
            with pytest.raises(AccessDeniedError):
                await a.agents.make_call(name="bot", url=url, arguments={})
        assert host.events.empty()


async def test_a_failed_call_is_told(serve: Any, host: CalledHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host.answers = [web.Response(status=500, text="oh")]
    async with serve(call_urls=[host.url], webhook_secret=SECRET) as server, server.client() as a:
        with pytest.raises(RoomError, match="answered 500: oh"):
            await a.agents.make_call(name="bot", url=f"{host.url}/x", arguments={})
        monkeypatch.setattr(server.server.engines.identity, "signing_key", lambda *_: None)
        with pytest.raises(RoomError, match="the API key was revoked"):
            await a.agents.make_call(name="bot", url=f"{host.url}/x", arguments={})


async def test_an_agent_of_a_service_can_be_dismissed_and_comes_back(serve: Any, host: CalledHost, heard: Any) -> None:
    async with serve(services=[_service(host)]) as server, server.client() as user:
        _, _, data = await host.events.get()
        async with agent_of(data) as agent:
            messages = heard(agent.messaging, "message", "message")
            to = RemoteParticipant(id=agent.local_participant.id)
            await user.messaging.send_message(to=to, type="dismiss", message={})
            assert (await messages.get()).type == "dismiss"
        assert (await host.events.get())[1] == "room.call"


async def test_what_became_of_a_rooms_services_is_told_to_its_project_only(
    serve: Any, host: CalledHost, http: aiohttp.ClientSession, other_key: ApiKey, until: Any
) -> None:
    gone = "http://user:hush@127.0.0.1:1"
    service = ConfiguredService(
        url=gone, other_urls=[host.url], paths=[ServicePath("/worker", "worker")], webhook_secret=SECRET
    )

    async with serve(services=[service]) as server, server.client():
        project = f"{server.url}/accounts/projects/{server.key.project_id}"

        async def ask(room: str = "room", key: str = server.api_key) -> tuple[int, Any]:
            headers = {"Authorization": f"Bearer {key}"}
            async with http.get(f"{project}/rooms/{room}/calls", headers=headers) as response:
                return response.status, await response.json()

        _, _, data = await host.events.get()
        async with agent_of(data):
            joined = server.server.parts.caller.calls
            [room] = server.server.rooms
            await until(lambda: joined(room)[0]["outcome"] == "joined")
            status, answer = await ask()
        [call] = answer["calls"]
        assert (status, call["url"], call["identity"]) == (200, f"{host.url}/worker", "worker")
        assert (call["is_present"], call["total"]) == (True, 2)
        assert [one["outcome"] for one in call["attempts"]] == ["unreachable", "joined"]
        assert call["attempts"][0]["url"] == "http://127.0.0.1:1/worker"
        assert "hush" not in str(answer)
        assert (await ask(key=encode_api_key(other_key)))[0] == 404
        assert (await ask(room="unknown"))[0] == 404
        assert (await ask(room="N%20o"))[0] == 400
        headers = {"Authorization": f"Bearer {server.api_key}"}
        async with http.post(f"{project}/rooms", json={"name": "closed"}, headers=headers) as response:
            assert response.status == 200
        assert await ask(room="closed") == (200, {"calls": []})
