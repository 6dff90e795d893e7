"""What programs for MeshAgent serve and ask besides agents: webhooks, single agents, REST."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from meshhost.agents import RemoteTaskRunnerServer, TaskRunner
from meshhost.api import CallEvent, Meshagent, RoomEndedEvent, RoomStartedEvent, WebhookServer
from meshhost.api.client import KeysSecret, NotFoundError, RestError
from meshhost.api.services import ServiceHost, ServicePath
from meshhost.errors import CallRefusedError, ConnectionLostError, RequestTimeoutError, RoomError, SettingsError
from meshhost.hosting.single import RemoteAgentServer, RemoteToolkitServer
from meshhost.identity.webhooks import sign_webhook, webhook_body
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.testing.server import RunningServer, running_server
from meshhost.tools import Tool, ToolContext, Toolkit

SECRET = "a-webhook-secret-of-more-than-32-bytes"
CALL = {"room_name": "room", "room_url": "ws://127.0.0.1:1/rooms/room", "token": "t", "arguments": {"n": 1}}


class Listener(WebhookServer):
    """Keeps what it is told."""

    def __init__(self, **options: Any) -> None:
        super().__init__(port=0, **options)
        self.events: list[Any] = []
        self.error: Exception | None = None

    async def on_room_started(self, event: RoomStartedEvent) -> None:
        self.events.append(("started", event.room_name, event.room_url))

    async def on_room_ended(self, event: RoomEndedEvent) -> None:
        self.events.append(("ended", event.room_name))

    async def on_call(self, event: CallEvent) -> None:
        if self.error is not None:
            raise self.error
        self.events.append(("call", event.room_name, event.token, event.arguments))


async def send(listener: WebhookServer, event: str, data: Any, *, secret: str | None = SECRET) -> None:
    async with WebhookSender() as sender:
        await sender.send(f"http://127.0.0.1:{listener.port}/webhook", event, data, secret=secret)


async def test_webhooks_reach_the_method_of_their_event() -> None:
    async with Listener(webhook_secret=SECRET) as listener:
        await send(listener, "room.started", {"room_name": "room", "room_url": "ws://x"})
        await send(listener, "room.call", CALL)
        await send(listener, "room.ended", {"room_name": "room"})
        await send(listener, "room.danced", {})
        assert listener.events == [("started", "room", "ws://x"), ("call", "room", "t", {"n": 1}), ("ended", "room")]


async def test_webhooks_that_nobody_signed_or_that_come_again_do_nothing() -> None:
    async with Listener(webhook_secret=SECRET) as listener:
        for secret in (None, "another-secret-of-more-than-32-bytes"):
            with pytest.raises(CallRefusedError) as refused:
                await send(listener, "room.call", CALL, secret=secret)
            assert refused.value.status == 401
        body = webhook_body("room.call", CALL)
        headers = {"Meshhost-Signature": sign_webhook(body, secret=SECRET, now=time.time())}
        async with aiohttp.ClientSession() as session:
            for _ in range(2):
                url = f"http://127.0.0.1:{listener.port}/webhook"
                async with session.post(url, data=body, headers=headers) as response:
                    assert response.status == 200
        assert listener.events == [("call", "room", "t", {"n": 1})]


async def test_a_webhook_that_is_wrong_or_fails_is_answered() -> None:
    async with Listener(validate_webhook_secret=False) as listener:
        with pytest.raises(CallRefusedError, match=r"data\.token: is required") as refused:
            await send(listener, "room.call", {"room_name": "r", "room_url": "u"}, secret=None)
        assert refused.value.status == 400
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{listener.port}/webhook"
            async with session.post(url, data=b"nonsense") as response:
                assert response.status == 400
        listener.error = ValueError("a secret text")
        with pytest.raises(CallRefusedError) as refused:
            await send(listener, "room.call", CALL, secret=None)
        assert refused.value.status == 500
        assert "a secret text" not in str(refused.value)


async def test_a_server_of_webhooks_needs_its_secret_and_its_port() -> None:
    with pytest.raises(SettingsError, match="webhook_secret"):
        WebhookServer(validate_webhook_secret=True)
    async with Listener() as listener:
        with pytest.raises(SettingsError, match="cannot listen"):
            await WebhookServer(port=listener.port).start()
    app = web.Application()
    inside = WebhookServer(app=app, path="/hooks")
    assert inside.app is app
    with pytest.raises(SettingsError, match="serve that"):
        await inside.start()


@pytest.fixture
async def server(tmp_path: Any) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path) as running:
        yield running


class Echo(TaskRunner):
    def __init__(self, word: str = "none") -> None:
        super().__init__(name="echo")
        self.word = word

    async def ask(self, *, context: Any, arguments: Any) -> Any:
        return {"word": self.word}


class Greet(Tool):
    def __init__(self, greeting: str) -> None:
        super().__init__(name="greet", input_schema={"type": "object"})
        self.greeting = greeting

    async def execute(self, context: ToolContext) -> str:
        return self.greeting


async def call(server: RunningServer, single: RemoteAgentServer, identity: str, arguments: Any) -> None:
    data = {
        "room_name": "room",
        "room_url": server.server.room_url("room"),
        "token": server.token("room", name=identity, role="agent"),
        "arguments": arguments,
    }
    async with WebhookSender() as sender:
        await sender.send(f"http://127.0.0.1:{single.host.port}/webhook", "room.call", data, secret=None)


async def until(find: Any) -> Any:
    async with asyncio.timeout(20):
        while not (found := await find()):  # noqa: ASYNC110 - asks a server
            await asyncio.sleep(0.02)
    return found


async def test_one_agent_and_one_toolkit_are_served_with_the_arguments_of_their_call(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHHOST_API_URL", server.url)
    agent = RemoteTaskRunnerServer(cls=Echo, port=0, validate_webhook_secret=False)
    toolkit = RemoteToolkitServer(
        create_toolkit=lambda arguments: Toolkit(name="greeter", tools=[Greet(arguments["greeting"])]),
        port=0,
        validate_webhook_secret=False,
    )
    await agent.start()
    await toolkit.start()
    async with server.client() as room:
        await call(server, agent, "echo", {"word": "hello"})
        await call(server, toolkit, "greeter", {"greeting": "good day"})
        await until(room.agents.list_agents)
        await until(room.agents.list_toolkits)
        assert await room.agents.ask(agent="echo", arguments={}) == {"word": "hello"}
        answer = await room.agents.invoke_tool(toolkit="greeter", tool="greet", arguments={})
        assert answer.to_json()["text"] == "good day"
    await agent.stop()
    await toolkit.stop()
    with pytest.raises(SettingsError, match="cls"):
        RemoteAgentServer()


def test_paths_are_appended_as_in_meshagent() -> None:
    host = ServiceHost(port=0)
    host.paths.append(ServicePath(path="/echo", identity="echo", cls=Echo))
    assert [(path.path, path.identity) for path in host.paths] == [("/echo", "echo")]
    with pytest.raises(SettingsError, match="bound already"):
        host.paths.append(ServicePath(path="/echo", cls=Echo))


async def test_programs_manage_a_project_by_rest(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHHOST_API_URL", server.url)
    monkeypatch.setenv("MESHHOST_API_KEY", server.api_key)
    project = server.key.project_id
    async with Meshagent() as client:
        assert (await client.get_project(project))["id"] == project
        with pytest.raises(RoomError, match="no project"):
            await client.get_project("other")
        made = await client.create_api_key(project, "ci", "for tests")
        assert [key["name"] for key in (await client.list_api_keys(project))["keys"]] == ["ci"]
        await client.delete_api_key(project, made["id"])
        room = await client.create_room(project_id=project, name="garden")
        assert [each.name for each in await client.list_rooms(project)] == ["garden"]
        with pytest.raises(RestError) as taken:
            await client.create_room(project_id=project, name="garden")
        assert (taken.value.status, isinstance(taken.value, aiohttp.ClientResponseError)) == (409, True)
        with pytest.raises(NotFoundError):
            await client.get_room(project_id=project, name="desert")
        with pytest.raises(RoomError, match="permissions"):
            await client.create_room(project_id=project, name="x", permissions={"a": 1})
        async with server.client("garden"):
            sessions = await client.list_recent_sessions(project)
        assert [session.room_name for session in sessions] == ["garden"]
        await client.delete_room(project_id=project, room_id=room.id)
        assert await client.list_rooms(project) == []


async def test_rest_says_what_is_wrong() -> None:
    with pytest.raises(RoomError, match="no API key"):
        await Meshagent(base_url="http://127.0.0.1:1").list_projects()
    client = Meshagent(base_url="http://127.0.0.1:1", token="t")
    with pytest.raises(ConnectionLostError, match="cannot be reached"):
        await client.list_projects()
    await client.close()
    await client.close()


async def test_what_is_configured_is_sent_as_meshagent_sends_it() -> None:
    seen: list[tuple[str, str, Any]] = []
    hang = asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        body = json.loads(await request.text() or "null")
        seen.append((request.method, request.path.removeprefix("/accounts/projects/p/"), body))
        if request.path.endswith("/services/slow"):
            await hang.wait()
        return web.json_response(
            {
                "id": "1",
                "services": [{"id": "1"}],
                "secrets": [{"id": "1", "name": "s", "type": "keys"}],
                "webhooks": [],
                "mailboxes": [],
            }
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with Meshagent(base_url=f"http://127.0.0.1:{runner.addresses[0][1]}/", token="t", timeout=0.5) as client:
        spec = {"kind": "Service"}
        assert await client.create_service(project_id="p", service=spec) == "1"
        await client.update_service(project_id="p", service_id="1", service=spec)
        assert await client.list_services(project_id="p") == [{"id": "1"}]
        assert (await client.get_service(project_id="p", service_id="1"))["id"] == "1"
        await client.delete_service(project_id="p", service_id="1")
        await client.create_webhook("p", "hook", "http://x", ["room.started"])
        assert (await client.list_webhooks("p"))["webhooks"] == []
        await client.delete_webhook("p", "1")
        secret = KeysSecret(name="s", data={"A": "b"})
        assert await client.create_secret(project_id="p", secret=secret) == "1"
        await client.update_secret(project_id="p", secret=KeysSecret(id="1", name="s"))
        assert [each.name for each in await client.list_secrets("p")] == ["s"]
        assert "b" not in repr(secret).replace("KeysSecret", "")
        await client.delete_secret(project_id="p", secret_id="1")
        await client.update_mailbox(project_id="p", address="a@b.c", room="r", queue="q", public=True)
        await client.update_room(project_id="p", room_id="1", name="n", metadata={"a": 1})
        await client.get_usage("p", start="2026-01-01")
        with pytest.raises(RequestTimeoutError):
            await client.get_service(project_id="p", service_id="slow")
    hang.set()
    await runner.cleanup()
    assert ("PUT", "mailboxes/a@b.c", {"room": "r", "queue": "q", "public": True}) in seen
    assert ("POST", "secrets", {"name": "s", "type": "keys", "data": {"A": "b"}}) in seen
    assert ("PUT", "rooms/1", {"name": "n", "metadata": {"a": 1}}) in seen
