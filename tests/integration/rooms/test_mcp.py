"""A room as an MCP server, over real sockets: what is offered to whom, calls, sessions, streams, and what is refused."""

import asyncio
import base64
import hashlib
import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from doubles.mcp_client import McpWire, messages_of
from doubles.mcp_tools import PIXEL

from meshhost.agents.context import AgentCallContext
from meshhost.agents.task_runner import TaskRunner
from meshhost.errors import ToolError
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.grants import AgentsGrant, ApiScope
from meshhost.identity.keys import ApiKey, encode_api_key
from meshhost.protocol.frames import Limits
from meshhost.protocol.messages import FileResponse, JsonResponse, LinkResponse
from meshhost.server.config import CallTimes, ConfiguredService, ServicePath
from meshhost.server.http import access as access_module
from meshhost.server.mcp import catalog, results, sessions
from meshhost.testing.agents import QuietAgent
from meshhost.testing.server import RunningServer
from meshhost.tools.remote import RemoteToolkit
from meshhost.tools.tool import Tool, ToolContext

Until = Callable[[Callable[[], bool]], Awaitable[None]]
ANYTHING: dict[str, Any] = {"type": "object"}
SECRET = "webhook-secret-of-more-than-32-characters"


class Returns(Tool):
    """Returns or raises what it was given; a function is called with the arguments."""

    def __init__(self, name: str, result: Any = "done", schema: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__(name=name, input_schema=schema or ANYTHING, **options)
        self.result = result

    async def execute(self, *, context: ToolContext, **arguments: Any) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result(context, arguments) if callable(self.result) else self.result


class Waits(Tool):
    """Waits until it is released; tells when it began and how it ended."""

    def __init__(self) -> None:
        super().__init__(name="wait", input_schema=ANYTHING)
        self.began: asyncio.Queue[ToolContext] = asyncio.Queue()
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.release = asyncio.Event()

    async def execute(self, *, context: ToolContext) -> str:
        self.began.put_nowait(context)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.ended.put_nowait("cancelled")
            raise
        return "released"


class Adder(TaskRunner):
    """Adds two numbers."""

    def __init__(self) -> None:
        number = {"type": "integer"}
        super().__init__(
            name="adder",
            description="Adds",
            input_schema={"type": "object", "properties": {"a": number, "b": number}, "required": ["a", "b"]},
            output_schema={"type": "object", "properties": {"sum": number}, "required": ["sum"]},
        )

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        return {"sum": arguments["a"] + arguments["b"]}


@asynccontextmanager
async def offered(server: RunningServer, *tools: Tool, name: str = "kit", public: bool = True) -> AsyncIterator[Any]:
    """A participant that offers a toolkit."""
    kit = RemoteToolkit(name=name, tools=tools, public=public)
    async with server.client(name="provider", role="tool") as room:
        await kit.start(room=room)
        yield room


@pytest.fixture
def mcp(server: RunningServer, http: aiohttp.ClientSession) -> Callable[..., McpWire]:
    """Clients of MCP for a room; by default with a token that grants everything."""

    def make(room: str = "room", *, bearer: str | None = None, query: str = "", **token: Any) -> McpWire:
        own = bearer or server.token(room, **({"name": "ide"} | token))
        return McpWire(http, f"{server.url}/rooms/{room}/mcp{query}", own)

    return make


# --- What is offered, and to whom


async def test_tools_have_the_names_of_toolkit_and_tool_and_their_schemas(server: RunningServer, mcp: Any) -> None:
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/number"}}, "required": ["x"]}
    tool = Returns("add", schema=schema, title="Add", description="Adds one", defs={"number": {"type": "integer"}})
    async with offered(server, tool, Returns("say it, loudly!"), name="my kit"):
        (add, say) = (await mcp().ask("tools/list"))["tools"]
    assert add["name"].startswith("my_kit__add_")
    assert (add["title"], add["description"]) == ("Add", "Adds one")
    assert add["inputSchema"] == schema | {"$defs": {"number": {"type": "integer"}}}
    assert re.fullmatch(r"my_kit__say_it__loudly__[0-9a-f]{8}", say["name"])


async def test_long_names_are_bounded_and_still_called(server: RunningServer, mcp: Any) -> None:
    tools = [Returns("x" * 90 + end, result=end) for end in ("one", "two")]
    async with offered(server, *tools):
        names = await mcp().names()
        assert [len(name) for name in names] == [64, 64]
        said = {(await mcp().call(name))["content"][0]["text"] for name in names}
    assert said == {"one", "two"}


async def test_one_toolkit_is_offered_alone_under_the_tools_own_names(server: RunningServer, mcp: Any) -> None:
    async with offered(server, Returns("go")), offered(server, Returns("stay"), name="other"):
        alone = mcp(query="?toolkit=kit")
        assert await alone.names() == ["go"]
        assert (await alone.call("go"))["content"] == [{"type": "text", "text": "done"}]
        assert await mcp().names() == ["kit__go", "other__stay"]
        assert await mcp(query="?toolkit=none").names() == []


async def test_private_toolkits_of_others_are_not_there(server: RunningServer, mcp: Any) -> None:
    async with offered(server, Returns("go"), public=False):
        assert await mcp().names() == []
        # Nor for another connection under the provider's own name.
        assert await mcp(name="provider", role="tool").names() == []
        status, answer = await mcp().post(*mcp().stateless("tools/call", {"name": "kit__go"}))
        assert (status, answer["error"]["code"]) == (400, -32602)


async def test_an_agent_is_asked_and_its_answer_is_structured(server: RunningServer, mcp: Any) -> None:
    agent = Adder()
    async with server.client(name="adder", role="agent") as room:
        await agent.start(room=room)
        (tool,) = (await mcp().ask("tools/list"))["tools"]
        assert (tool["name"], tool["description"]) == ("agents__adder", "Adds")
        assert tool["outputSchema"]["required"] == ["sum"]
        assert (await mcp().call("agents__adder", a=2, b=3))["structuredContent"] == {"sum": 5}
        wrong = await mcp().call("agents__adder", a=2)
        await agent.stop()
    assert wrong["isError"]
    assert "b" in wrong["content"][0]["text"]


async def test_grants_say_what_is_listed_and_are_checked_for_each_call(server: RunningServer, mcp: Any) -> None:
    only_b = ApiScope(agents=AgentsGrant(allowed_toolkits=["b"], use_agents=False))
    agent = Adder()
    async with (
        offered(server, Returns("go"), name="a"),
        offered(server, Returns("go"), name="b"),
        server.client(name="adder", role="agent") as room,
    ):
        await agent.start(room=room)
        limited = mcp(scope=only_b)
        assert await limited.names() == ["b__go"]
        assert await limited.call("b__go")
        for name in ("a__go", "agents__adder"):
            status, answer = await limited.post(*limited.stateless("tools/call", {"name": name}))
            assert (status, answer["error"]["code"]) == (400, -32602)
        assert await mcp(scope=ApiScope(agents=AgentsGrant(use_tools=False))).names() == ["agents__adder"]
        for scope in (ApiScope(), ApiScope(agents=AgentsGrant(use_tools=False, use_agents=False))):
            nothing = mcp(scope=scope)
            assert (await nothing.post(*nothing.stateless("tools/list")))[0] == 403
        await agent.stop()


async def test_the_provider_sees_who_calls(server: RunningServer, mcp: Any) -> None:
    def caller(context: ToolContext, _: Any) -> str:
        return f"{context.caller.id}"

    async with offered(server, Returns("who", caller)) as provider:
        first = (await mcp().call("kit__who"))["content"][0]["text"]
        second = (await mcp().call("kit__who"))["content"][0]["text"]
        assert first != second  # each call is a participant of its own
        assert [member.name for member in server.server.rooms[0].connected()] == ["provider"]
        assert provider.is_open


async def test_long_lists_come_in_pages(server: RunningServer, mcp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "PAGE", 2)
    async with offered(server, *(Returns(name) for name in "abcde")):
        names, cursor = [], None
        for _ in range(3):
            page = await mcp().ask("tools/list", {} if cursor is None else {"cursor": cursor})
            names += [tool["name"] for tool in page["tools"]]
            cursor = page.get("nextCursor")
    assert names == [f"kit__{name}" for name in "abcde"]
    assert cursor is None


async def test_two_tenants_with_a_room_of_one_name_see_only_their_own(
    server: RunningServer, mcp: Any, http: aiohttp.ClientSession, other_key: ApiKey
) -> None:
    other = RunningServer(server.server, other_key)
    async with offered(server, Returns("go", "mine")), offered(other, Returns("go", "theirs")):
        own = mcp(bearer=server.api_key)
        theirs = mcp(bearer=encode_api_key(other_key))
        assert (await own.call("kit__go"))["content"][0]["text"] == "mine"
        assert (await theirs.call("kit__go"))["content"][0]["text"] == "theirs"
        # A session of one is none for the other, with a key as with a token.
        session = await own.begin()
        listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        assert (await own.post(session, listing))[0] == 200
        assert (await theirs.post(session, listing))[0] == 404
        assert (await mcp(bearer=other.token("room", name="ide")).post(session, listing))[0] == 404
        assert (await mcp().post(session, listing))[0] == 404
        async with http.delete(own.url, headers={**theirs.headers, **session}) as response:
            assert response.status == 404


# --- Calls


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("text", {"content": [{"type": "text", "text": "text"}]}),
        (None, {"content": []}),
        (
            JsonResponse(json={"a": [1]}),
            {"content": [{"type": "text", "text": '{"a": [1]}'}], "structuredContent": {"a": [1]}},
        ),
        (JsonResponse(json=[1, "ä"]), {"content": [{"type": "text", "text": '[1, "ä"]'}]}),
        (
            LinkResponse(name="report", url="https://example.com/r"),
            {"content": [{"type": "resource_link", "name": "report", "uri": "https://example.com/r"}]},
        ),
        (
            FileResponse(data=PIXEL, name="p.png", mime_type="image/png"),
            {"content": [{"type": "image", "data": base64.b64encode(PIXEL).decode(), "mimeType": "image/png"}]},
        ),
        (
            FileResponse(data=b"\xff\x00", name="a b.bin", mime_type="application/x-b"),
            {
                "content": [
                    {
                        "type": "resource",
                        "resource": {
                            "uri": "urn:meshhost:file:a%20b.bin",
                            "mimeType": "application/x-b",
                            "blob": "/wA=",
                        },
                    }
                ]
            },
        ),
        (ToolError("no paper"), {"content": [{"type": "text", "text": "no paper"}], "isError": True}),
    ],
    ids=["text", "nothing", "object", "list", "link", "image", "file", "error"],
)
async def test_what_a_tool_returns_becomes_content(
    server: RunningServer, mcp: Any, returned: Any, expected: dict[str, Any]
) -> None:
    async with offered(server, Returns("go", returned)):
        result = await mcp().call("kit__go")
    assert {key: result[key] for key in result if key not in ("resultType", "_meta")} == expected
    assert result["resultType"] == "complete"


async def test_a_client_of_the_first_version_gets_no_content_that_it_does_not_know(
    server: RunningServer, mcp: Any
) -> None:
    link = LinkResponse(name="report", url="https://example.com/r")
    async with offered(server, Returns("link", link), Returns("json", {"a": 1})):
        client = mcp()
        session = await client.begin("2025-03-26")
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "kit__link"}}
        _, answer = await client.post(session, body)
        assert answer["result"]["content"] == [{"type": "text", "text": "report: https://example.com/r"}]
        _, answer = await client.post(session, body | {"params": {"name": "kit__json"}})
        assert "structuredContent" not in answer["result"]


async def test_a_secret_in_a_bug_of_a_tool_does_not_reach_the_client(server: RunningServer, mcp: Any) -> None:
    async with offered(server, Returns("go", ValueError("password=hunter2"))):
        result = await mcp().call("kit__go")
    assert result["isError"]
    assert "hunter2" not in json.dumps(result)


async def test_wrong_arguments_are_a_result_that_the_model_can_read(server: RunningServer, mcp: Any) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    async with offered(server, Returns("go", schema=schema)):
        result = await mcp().call("kit__go", n="many")
    assert result["isError"]
    assert "n" in result["content"][0]["text"]


async def test_a_result_that_is_too_large_is_an_error_that_says_what_to_do(
    server: RunningServer, mcp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "MAX_RESULT_BYTES", 1000)
    large = FileResponse(data=b"x" * 1001, name="x", mime_type="text/plain")
    async with offered(server, Returns("text", "x" * 1001), Returns("file", large), Returns("json", {"x": "x" * 1001})):
        for name in ("text", "file", "json"):
            result = await mcp().call(f"kit__{name}")
            assert result["isError"]
            assert "save it as a file" in result["content"][0]["text"]
            assert "structuredContent" not in result


async def test_a_call_of_a_client_that_hangs_up_is_cancelled_at_its_tool(
    server: RunningServer, mcp: Any, until: Until
) -> None:
    tool = Waits()
    async with offered(server, tool):
        client = mcp()
        async with aiohttp.ClientSession() as other:
            hanging = McpWire(other, client.url, server.token("room", name="ide"))
            call = asyncio.get_running_loop().create_task(hanging.call("kit__wait"))
            await tool.began.get()
            call.cancel()
            await asyncio.wait([call])
        assert await tool.ended.get() == "cancelled"
        await until(lambda: len(server.server.rooms[0].connected()) == 1)


async def test_a_call_of_a_session_is_cancelled_by_its_client_only(
    server: RunningServer, mcp: Any, http: aiohttp.ClientSession
) -> None:
    tool = Waits()
    async with offered(server, tool):
        client, other = mcp(), mcp(name="somebody")
        session, theirs = await client.begin(), await other.begin()
        body = {"jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": {"name": "kit__wait"}}
        call = asyncio.get_running_loop().create_task(client.post(session, body))
        await tool.began.get()
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "c"}}
        assert (await other.post(theirs, cancel))[0] == 202
        assert (await other.post(session, cancel))[0] == 404
        twice = await client.post(session, body)
        assert twice[1]["error"]["code"] == -32600
        assert not call.done()
        assert (await client.post(session, cancel))[0] == 202
        assert await tool.ended.get() == "cancelled"
        assert (await call)[0] == 202
        # One that is over, and one that never was, are no error.
        assert (await client.post(session, cancel))[0] == 202


async def test_a_call_ends_when_its_key_is_revoked(
    server: RunningServer, mcp: Any, http: aiohttp.ClientSession
) -> None:
    tool = Waits()
    async with offered(server, tool):
        project = f"{server.url}/accounts/projects/{server.key.project_id}/api-keys"
        own = {"Authorization": f"Bearer {server.api_key}"}
        async with http.post(project, headers=own, json={"name": "ide"}) as response:
            made = await response.json()
        client = mcp(bearer=made["value"])
        session = await client.begin()
        listening = asyncio.get_running_loop().create_task(_all_of(http, client, session))
        call = asyncio.get_running_loop().create_task(
            client.post(*client.stateless("tools/call", {"name": "kit__wait"}))
        )
        await tool.began.get()
        async with http.delete(f"{project}/{made['id']}", headers=own) as response:
            assert response.status == 204
        assert await tool.ended.get() == "cancelled"
        _, answer = await call
        assert answer["result"]["isError"]
        assert "revoked" in answer["result"]["content"][0]["text"]
        await listening
        assert (await client.post(session, {"jsonrpc": "2.0", "id": 1, "method": "ping"}))[0] == 401


async def test_changes_are_not_told_to_who_may_listen_no_more(
    server: RunningServer, mcp: Any, http: aiohttp.ClientSession
) -> None:
    project = f"{server.url}/accounts/projects/{server.key.project_id}/api-keys"
    own = {"Authorization": f"Bearer {server.api_key}"}
    async with http.post(project, headers=own, json={"name": "ide"}) as response:
        made = await response.json()
    client = mcp(bearer=made["value"])
    session = await client.begin()
    async with http.get(client.url, headers={**client.headers, **session}) as response:
        messages = messages_of(response)
        async with offered(server, Returns("go")):
            assert (await anext(messages))["method"] == "notifications/tools/list_changed"
        await anext(messages)
        async with http.delete(f"{project}/{made['id']}", headers=own) as gone:
            assert gone.status == 204
        async with offered(server, Returns("go")):
            with pytest.raises((StopAsyncIteration, aiohttp.ClientError)):
                await anext(messages)


async def _all_of(http: aiohttp.ClientSession, client: McpWire, session: dict[str, str]) -> list[Any]:
    """The messages of a session's stream until it ends, in order or not."""
    found: list[Any] = []
    try:
        async with http.get(client.url, headers={**client.headers, **session}) as response:
            assert response.status == 200
            found += [message async for message in messages_of(response)]
    except aiohttp.ClientError:
        pass
    return found


async def test_progress_is_reported_in_order_to_those_who_want_it(server: RunningServer, mcp: Any) -> None:
    class Reports(Tool):
        def __init__(self) -> None:
            super().__init__(name="go", input_schema=ANYTHING)

        async def execute(self, *, context: ToolContext) -> str:
            for done in (1, 3, 2):  # what goes back is not passed on
                await context.report_progress(done, message=f"step {done}")
            return "done"

    async with offered(server, Reports()):
        client = mcp()
        params = {"name": "kit__go", "_meta": {"progressToken": "p"}}
        async with client.sending(*client.stateless("tools/call", params)) as response:
            assert response.content_type == "text/event-stream"
            first, second, last = [message async for message in messages_of(response)]
        assert first["params"] == {"progressToken": "p", "progress": 1, "message": "step 1"}
        assert second["params"]["progress"] == 3
        assert last["result"]["content"][0]["text"] == "done"
        assert await client.call("kit__go")  # and without a token as JSON
        async with client.sending(
            {"Accept": "application/json", **client.stateless("tools/call", params)[0]},
            client.stateless("tools/call", params)[1],
        ) as response:
            assert response.content_type == "application/json"


# --- Rooms that sleep


@asynccontextmanager
async def _configured(serve: Any, port: int, **config: Any) -> AsyncIterator[RunningServer]:
    """A server with a service whose agent brings the toolkit `late`."""

    class Brings(QuietAgent):
        async def start(self, *, room: Any) -> None:
            await super().start(room=room)
            self.kit = RemoteToolkit(name="late", tools=[Returns("go", "here")])
            await self.kit.start(room=room)

    host = ServiceHost(port=0, webhook_secret=SECRET, allowed_room_urls=[f"http://127.0.0.1:{port}"])
    host.add_path("/brings", cls=Brings, identity="brings")
    await host.start()
    try:
        service = ConfiguredService(
            f"http://127.0.0.1:{host.port}", [ServicePath("/brings", "brings")], webhook_secret=SECRET
        )
        times = CallTimes(first_delay=0.01)
        async with serve(port=port, services=[service], call_times=times, **config) as server:
            yield server
    finally:
        await host.stop()


async def test_a_first_call_and_a_first_list_wake_the_room_and_wait_for_its_agents(
    serve: Any, http: aiohttp.ClientSession, until: Until, unused_tcp_port: int
) -> None:
    async with _configured(serve, unused_tcp_port, linger_seconds=0.05) as server:
        client = McpWire(http, f"{server.url}/rooms/room/mcp", server.token("room", name="ide"))
        assert (await client.call("late__go"))["content"][0]["text"] == "here"
        await until(lambda: not server.server.rooms)  # nobody holds it open
        assert await client.names() == ["late__go"]
        await until(lambda: not server.server.rooms)
        params = {"name": "late__go", "_meta": {"progressToken": 7}}
        async with client.sending(*client.stateless("tools/call", params)) as response:
            waits, *_, last = [message async for message in messages_of(response)]
        assert "on its way" in waits["params"]["message"]
        assert last["result"]["content"][0]["text"] == "here"


# --- Changes


async def test_changes_are_told_to_sessions_and_to_stateless_listeners(
    server: RunningServer, mcp: Any, http: aiohttp.ClientSession, until: Until
) -> None:
    client = mcp()
    session = await client.begin()
    listen = client.stateless("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    async with (
        http.get(client.url, headers={**client.headers, **session}) as old,
        client.sending(*listen) as new,
    ):
        old_messages, new_messages = messages_of(old), messages_of(new)
        acknowledged = await anext(new_messages)
        assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
        assert acknowledged["params"]["notifications"] == {"toolsListChanged": True}
        assert not server.server.rooms  # who listens wakes nobody
        for _ in range(2):  # also in a room that ended and began again
            async with offered(server, Returns("go")):
                told = [await anext(old_messages), await anext(new_messages)]
                assert {message["method"] for message in told} == {"notifications/tools/list_changed"}
                assert told[1]["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": 1}
            await anext(old_messages)
            await anext(new_messages)


async def test_who_asks_for_no_changes_hears_none(server: RunningServer, mcp: Any) -> None:
    client = mcp()
    async with client.sending(*client.stateless("subscriptions/listen", {"notifications": {}})) as response:
        messages = messages_of(response)
        assert (await anext(messages))["params"]["notifications"] == {}
        async with offered(server, Returns("go")):
            assert await client.names() == ["kit__go"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anext(messages)


async def test_a_stream_ends_with_its_session_and_with_the_server(serve: Any, http: aiohttp.ClientSession) -> None:
    async with serve() as server:
        client = McpWire(http, f"{server.url}/rooms/room/mcp", server.token("room", name="ide"))
        session = await client.begin()
        async with http.get(client.url, headers={**client.headers, **session}) as stream:
            async with http.delete(client.url, headers={**client.headers, **session}) as response:
                assert response.status == 204
            assert [message async for message in messages_of(stream)] == []
        again = await client.begin()
        other = await http.get(client.url, headers={**client.headers, **again})
    async with other:
        assert [message async for message in messages_of(other)] == []


async def test_sessions_are_bounded_and_end_by_themselves(
    server: RunningServer, mcp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    client = mcp()
    made = [await client.begin() for _ in range(3)]
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert [(await client.post(session, ping))[0] for session in made] == [404, 200, 200]
    monkeypatch.setattr(sessions, "IDLE_SECONDS", 0.0)
    assert (await client.post(made[2], ping))[0] == 404


# --- What is refused


def _message(**changes: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "ping", **changes}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, -32700),
        (b"\xff", 400, -32700),
        (b"[" * 100_000, 400, -32700),
        (b"", 400, -32700),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": NaN}}', 400, -32700),
        ([_message()], 400, -32600),
        ("null", 400, -32600),
        (_message(jsonrpc="1.0"), 400, -32600),
        (_message(method=7), 400, -32600),
        (_message(method=""), 400, -32600),
        (_message(id=True), 400, -32600),
        (_message(id=None), 400, -32600),
        (_message(id=1.5), 400, -32600),
        (_message(params=[]), 400, -32602),
        (_message(method="prompts/list"), 200, -32601),
        (_message(method="server/discover"), 200, -32601),
        (_message(method="initialize"), 200, -32602),
        (_message(method="initialize", params={"protocolVersion": 5}), 200, -32602),
        (_message(method="tools/list", params={"cursor": 5}), 200, -32602),
        (_message(method="tools/call"), 200, -32602),
        (_message(method="tools/call", params={"name": ["x"]}), 200, -32602),
        (_message(method="tools/call", params={"name": "kit__go", "arguments": []}), 200, -32602),
        (_message(method="tools/call", params={"name": "nothing"}), 200, -32602),
    ],
)
async def test_bad_messages_get_an_error_that_says_what_is_wrong(
    server: RunningServer, mcp: Any, body: Any, status: int, code: int
) -> None:
    given, answer = await mcp().post({}, body)
    assert (given, answer["error"]["code"]) == (status, code), answer
    assert len(answer["error"]["message"]) > 10


@pytest.mark.parametrize(
    ("headers", "params", "code"),
    [
        ({"Mcp-Method": "tools/call"}, {}, -32020),
        ({"Mcp-Method": "=?base64?!?="}, {}, -32020),
        ({"MCP-Protocol-Version": "2027-01-01"}, {}, -32020),
        ({}, {"_meta": {"io.modelcontextprotocol/clientCapabilities": []}}, -32602),
        ({}, {"_meta": {"io.modelcontextprotocol/protocolVersion": 7}}, -32020),
        ({}, {"cursor": {}}, -32602),
    ],
)
async def test_stateless_requests_must_agree_with_their_headers(
    server: RunningServer, mcp: Any, headers: dict[str, str], params: dict[str, Any], code: int
) -> None:
    own, body = mcp().stateless("tools/list", params)
    status, answer = await mcp().post({**own, **headers}, body)
    assert (status, answer["error"]["code"], answer["id"]) == (400, code, 1)


async def test_listening_needs_to_say_for_what(server: RunningServer, mcp: Any) -> None:
    status, answer = await mcp().post(*mcp().stateless("subscriptions/listen", {"notifications": True}))
    assert (status, answer["error"]["code"]) == (400, -32602)


async def test_http_that_is_not_mcp_is_refused(
    server: RunningServer, mcp: Any, http: aiohttp.ClientSession, serve: Any
) -> None:
    client = mcp()
    assert (await client.post({"Content-Type": "text/plain"}, _message()))[0] == 400
    assert (await client.post({"Mcp-Session-Id": "none"}, _message()))[0] == 404
    for method in ("GET", "DELETE"):
        async with http.request(method, client.url, headers=client.headers) as response:
            assert response.status == 405
    async with http.request("PUT", client.url, headers=client.headers) as response:
        assert response.status == 405
    async with http.post(f"{server.url}/rooms/{'x' * 300}/mcp", headers=client.headers, json=_message()) as response:
        assert response.status == 400


async def test_a_body_that_is_too_large_or_compressed_is_refused(serve: Any, http: aiohttp.ClientSession) -> None:
    async with serve(wire=Limits(message_bytes=100_000)) as server:
        client = McpWire(http, f"{server.url}/rooms/room/mcp", server.token("room"))
        status, answer = await client.post({}, _message(params={"x": "x" * 100_000}))
        assert (status, answer["error"]) == (413, "the body is too large: at most 100000 bytes are taken")
        assert (await client.post({"Content-Encoding": "gzip"}, _message()))[0] in (400, 415)


async def test_a_body_that_is_much_more_when_it_is_read_is_refused(
    server: RunningServer, http: aiohttp.ClientSession
) -> None:
    body = json.dumps(_message(params={"x": [[]] * 450_000})).encode()
    headers = {"Authorization": f"Bearer {server.token('room')}", "Content-Type": "application/json"}
    async with http.post(f"{server.url}/rooms/room/mcp", headers=headers, data=io.BytesIO(body)) as response:
        assert (response.status, "too many parts" in await response.text()) == (413, True)


async def test_a_call_that_waits_for_its_tool_ends_with_the_server(
    serve: Any, http: aiohttp.ClientSession, unused_tcp_port: int
) -> None:
    async with serve(services=[_nobody_there(unused_tcp_port)]) as server:
        client = McpWire(http, f"{server.url}/rooms/room/mcp", server.token("room", name="ide"))
        params = {"name": "late__go", "_meta": {"progressToken": 1}}
        waiting = await http.post(
            client.url,
            headers={**client.headers, **client.stateless("tools/call", params)[0]},
            json=client.stateless("tools/call", params)[1],
        )
        messages = messages_of(waiting)
        assert "on its way" in (await anext(messages))["params"]["message"]
    last = await anext(messages)
    assert last["result"]["isError"]
    assert "stopping" in last["result"]["content"][0]["text"]


def _nobody_there(port: int) -> ConfiguredService:
    """A service whose host cannot be reached."""
    return ConfiguredService(f"http://127.0.0.1:{port}", [ServicePath("/x", "x")], webhook_secret=SECRET)


async def test_pages_of_other_servers_may_not_ask(server: RunningServer, mcp: Any) -> None:
    client = mcp()
    for origin in ("http://evil.example.com", "null", "http://localhost.evil.example", "http://[bad"):
        assert (await client.post({"Origin": origin}, _message()))[0] == 403
    for origin in ("http://localhost:6274", "http://127.0.0.1", server.url):
        assert (await client.post({"Origin": origin}, _message()))[0] == 200


# --- Tokens by OAuth


async def test_a_client_without_a_token_gets_one_by_the_login_of_this_machine(
    server: RunningServer, http: aiohttp.ClientSession, mcp: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{server.url}/rooms/room/mcp"
    async with http.post(url, json=_message()) as response:
        assert response.status == 401
        challenge = re.fullmatch(
            r'Bearer realm="meshhost", resource_metadata="(.*)"', response.headers["WWW-Authenticate"]
        )
    assert challenge is not None
    async with http.get(challenge[1]) as response:
        resource = await response.json()
    assert resource["resource"] == url
    async with http.get(f"{resource['authorization_servers'][0]}/.well-known/oauth-authorization-server") as response:
        described = await response.json()
    redirect = "http://127.0.0.1:8123/callback"
    async with http.post(described["registration_endpoint"], json={"redirect_uris": [redirect]}) as response:
        client = await response.json()
        assert response.status == 201
    verifier = "v" * 50
    asked = {
        "response_type": "code",
        "client_id": client["client_id"],
        "redirect_uri": redirect,
        "code_challenge": _challenge(verifier),
        "code_challenge_method": "S256",
        "state": "s",
        "resource": url,
    }
    async with http.get(described["authorization_endpoint"], params=asked) as response:
        login = re.search(r'name="login" value="([^"]+)"', await response.text())
    assert login is not None
    code = re.search(r"its code is ([0-9-]+)", capsys.readouterr().err)
    assert code is not None
    form = {"login": login[1], "console_code": code[1]}
    async with http.post(described["authorization_endpoint"], data=form, allow_redirects=False) as response:
        location = aiohttp.client.URL(response.headers["Location"])
    assert (location.query["state"], location.query["iss"]) == ("s", described["issuer"])
    form = {
        "grant_type": "authorization_code",
        "code": location.query["code"],
        "redirect_uri": redirect,
        "client_id": client["client_id"],
        "code_verifier": verifier,
        "resource": url,
    }
    async with http.post(described["token_endpoint"], data=form) as response:
        token = (await response.json())["access_token"]
    async with offered(server, Returns("go")):
        assert await mcp(bearer=token).names() == ["kit__go"]
    # The token is good for nothing else.
    assert (await mcp("elsewhere", bearer=token).post({}, _message()))[0] == 401
    bearer = {"Authorization": f"Bearer {token}"}
    for other in ("/accounts/projects", "/rooms/room/queues"):
        async with http.get(f"{server.url}{other}", headers=bearer) as response:
            assert response.status == 401


async def test_a_token_of_the_login_ends_with_its_room_and_its_time(
    server: RunningServer, mcp: Any, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    access, project = server.server.parts.access, server.key.project_id
    token = access.sign_mcp(project, "room")
    assert await mcp(bearer=token).names() == []
    await access.identity.create_room(project, "room", metadata="{}", if_not_exists=True)
    own = {"Authorization": f"Bearer {server.api_key}"}
    async with http.delete(f"{server.url}/tenants/{project}/rooms/room", headers=own) as response:
        assert response.status < 300, await response.text()
    assert (await mcp(bearer=token).post({}, _message()))[0] == 401
    later = access.sign_mcp(project, "room")
    assert await mcp(bearer=later).names() == []
    monkeypatch.setattr(access_module, "OAUTH_SECONDS", -1)
    assert (await mcp(bearer=access.sign_mcp(project, "room")).post({}, _message()))[0] == 401


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


@pytest.mark.parametrize(
    "resource", ["", "http://elsewhere/rooms/room/mcp", "{url}/rooms/room", "{url}/rooms/a/b/mcp", "{url}/rooms//mcp"]
)
async def test_a_login_for_another_resource_is_refused(
    server: RunningServer, http: aiohttp.ClientSession, resource: str
) -> None:
    asked = {
        "redirect_uri": "http://127.0.0.1:1/",
        "code_challenge": "x" * 43,
        "code_challenge_method": "S256",
        "resource": resource.format(url=server.url),
    }
    async with http.get(f"{server.url}/oauth/authorize", params=asked) as response:
        assert response.status == 400


@pytest.mark.parametrize(
    "body", [{}, {"redirect_uris": []}, {"redirect_uris": [7]}, {"redirect_uris": ["https://example.com/"]}, []]
)
async def test_a_client_that_is_sent_back_elsewhere_is_not_registered(
    server: RunningServer, http: aiohttp.ClientSession, body: Any
) -> None:
    async with http.post(f"{server.url}/oauth/register", json=body) as response:
        assert response.status == 400


async def test_behind_a_public_url_no_authorization_server_is_claimed(serve: Any, http: aiohttp.ClientSession) -> None:
    async with serve(public_url="https://rooms.example.com") as server:
        local = f"http://127.0.0.1:{server.server.port}"
        async with http.post(f"{local}/rooms/room/mcp", json=_message()) as response:
            assert (response.status, response.headers["WWW-Authenticate"]) == (401, 'Bearer realm="meshhost"')
        for path in ("/.well-known/oauth-protected-resource/rooms/room/mcp", "/.well-known/oauth-authorization-server"):
            async with http.get(f"{local}{path}") as response:
                assert response.status == 404
