"""Tools that misbehave, callers that leave, neighbours that flood: what the others notice."""

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshhost.errors import (
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    RequestTimeoutError,
    RoomError,
    ToolError,
)
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.frames import Limits
from meshhost.protocol.messages import FileResponse, JsonResponse, TextResponse
from meshhost.room.client import RoomClient
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.room.services.agents import AgentDescription
from meshhost.server.services.agents import registry
from meshhost.server.services.agents.service import AgentsService
from meshhost.server.wire.connection import MESSAGES_A_TURN
from meshhost.server.wire.dialect import Handshake
from meshhost.server.wire.sdk06 import SDK_06
from meshhost.stores.queues import QueueStats
from meshhost.testing.server import RunningServer
from meshhost.tools.hosting import RemoteToolkit
from meshhost.tools.tool import Tool, ToolContext

FLOODING = Path(__file__).parent / "flooding.py"


class Does(Tool):
    """Returns or raises what it was given."""

    def __init__(self, result: Any = None, schema: dict[str, Any] | None = None) -> None:
        super().__init__(name="do", input_schema=schema or {"type": "object"})
        self.result = result

    async def execute(self, *, context: ToolContext, **arguments: Any) -> Any:
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


class Never(Tool):
    """Does not return; it tells when it is called and how that ended."""

    def __init__(self) -> None:
        super().__init__(name="never", input_schema={"type": "object"})
        self.called: asyncio.Queue[ToolContext] = asyncio.Queue()
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.release = asyncio.Event()

    async def execute(self, *, context: ToolContext) -> str:
        self.called.put_nowait(context)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.ended.put_nowait("cancelled")
            raise
        return "released"


@asynccontextmanager
async def offered(
    server: RunningServer, *tools: Tool, reconnect: ReconnectPolicy | None = None, **options: Any
) -> AsyncIterator[RoomClient]:
    kit = RemoteToolkit(**{"name": "kit", "tools": tools} | options)
    async with server.client(name="provider", role="tool", reconnect=reconnect) as room:
        await kit.start(room=room)
        try:
            yield room
        finally:
            await kit.stop()


async def invoke(room: RoomClient, tool: str = "do", **arguments: Any) -> Any:
    return await room.agents.invoke_tool(toolkit="kit", tool=tool, arguments=arguments)


async def error_of(awaitable: Awaitable[Any]) -> RoomError:
    with pytest.raises(RoomError) as caught:
        await awaitable
    return caught.value


@pytest.fixture
async def user(server: RunningServer) -> AsyncIterator[RoomClient]:
    async with server.client() as room:
        yield room


# Bad input


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, "n: is required"),
        ({"n": "x"}, "n: expected integer"),
        ({"n": 1, "m": 2}, "m: is not a known field"),
        ({"n": 1, "context": 1}, "context: is not a known field"),
    ],
)
async def test_arguments_that_break_the_schema_are_refused_by_their_field(
    server: RunningServer, user: RoomClient, arguments: dict[str, Any], error: str
) -> None:
    number = {"n": {"type": "integer"}}
    schema = {"type": "object", "required": ["n"], "additionalProperties": False, "properties": number}
    async with offered(server, Does("ok", schema)):
        raised = await error_of(invoke(user, **arguments))
        assert isinstance(raised, InvalidRequestError)
        assert str(raised) == error
        assert await invoke(user, n=1) == TextResponse(text="ok")


@pytest.mark.parametrize(
    ("result", "kind", "text"),
    [
        (NotFoundError("no such book"), NotFoundError, "no such book"),
        (ValueError("a secret"), ToolError, "tool 'do' failed; the log of its provider says why"),
        (asyncio.CancelledError(), ToolError, "tool 'do' was cancelled"),
        (SystemExit(2), ToolError, "tool 'do' failed; the log of its provider says why"),
        (KeyboardInterrupt(), ToolError, "tool 'do' failed; the log of its provider says why"),
        (BaseException("a panic"), ToolError, "tool 'do' failed; the log of its provider says why"),
        (5, RoomError, "a tool must return a response, a text, a dict or None, not int"),
        (object(), RoomError, "a tool must return a response, a text, a dict or None, not object"),
        ({("a", "tuple"): 1}, ToolError, "the tool's answer is not JSON"),
    ],
)
async def test_a_tool_that_fails_or_returns_junk_fails_its_caller_only(
    server: RunningServer, user: RoomClient, result: Any, kind: type[RoomError], text: str
) -> None:
    tool = Does(result)
    async with offered(server, tool):
        error = await error_of(invoke(user))
        assert type(error) is kind
        assert str(error) == text
        tool.result = "ok"
        assert await invoke(user) == TextResponse(text="ok")


async def test_a_json_that_holds_itself_is_an_error(server: RunningServer, user: RoomClient) -> None:
    endless: dict[str, Any] = {}
    endless["self"] = endless
    async with offered(server, Does(endless)):
        assert "not JSON" in str(await error_of(invoke(user)))


async def test_an_answer_over_the_providers_limit_is_a_clear_error(server: RunningServer, user: RoomClient) -> None:
    tool = Does(FileResponse(data=bytes(65 * 1024 * 1024), name="x", mime_type="x/y"))
    async with offered(server, tool):
        error = await error_of(invoke(user))
        assert isinstance(error, LimitExceededError)
        assert "at most 67108864" in str(error)
        tool.result = FileResponse(data=bytes(50 * 1024 * 1024), name="x", mime_type="x/y")
        answer = await invoke(user)
        assert len(answer.data) == 50 * 1024 * 1024


async def test_an_answer_over_the_rooms_limit_is_a_clear_error(serve: Any) -> None:
    wide = Limits(message_bytes=50_000_000)
    tool = Does("x" * 2_000_000)
    async with (
        serve(wire=Limits(message_bytes=1_000_000)) as server,
        server.client() as user,
        server.client(name="provider", role="tool", limits=wide) as provider,
    ):
        await RemoteToolkit(name="kit", tools=[tool]).start(room=provider)
        error = await error_of(invoke(user))
        assert isinstance(error, LimitExceededError)
        assert str(error).startswith("the answer cannot be passed on: message of ")
        tool.result = "ok"
        assert await invoke(user) == TextResponse(text="ok")
        assert provider.is_open


async def test_an_asks_answer_over_the_rooms_limit_is_a_clear_error_while_it_is_the_only_one(serve: Any) -> None:
    asked: asyncio.Queue[MessageReceived] = asyncio.Queue()
    async with (
        serve(wire=Limits(message_bytes=1_000_000), call_seconds=1.0) as server,
        server.client() as user,
        server.client(name="other") as other,
    ):
        provider = server.client(name="provider", role="agent", limits=Limits(message_bytes=50_000_000))
        async with provider, asyncio.TaskGroup() as tasks:
            await provider.agents.register_agent(AgentDescription(name="helper"), asked.put_nowait)
            first = tasks.create_task(error_of(user.agents.ask(agent="helper", arguments={})))
            await provider.agents.answer_ask(await asked.get(), "x" * 2_000_000)
            assert isinstance(await first, LimitExceededError)
            # Of two nobody knows which one it was: the deadline ends both.
            both = [
                tasks.create_task(error_of(room.agents.ask(agent="helper", arguments={}))) for room in (user, other)
            ]
            await provider.agents.answer_ask(await asked.get(), "x" * 2_000_000)
            assert [type(await task) for task in both] == [RequestTimeoutError, RequestTimeoutError]


async def test_a_tool_with_a_schema_that_is_none_is_refused_when_it_is_offered(user: RoomClient) -> None:
    kit = RemoteToolkit(name="kit", tools=[Does("ok"), Does("ok", {"properties": {"n": {"type": "nonsense"}}})])
    with pytest.raises(InvalidRequestError, match=r"input_schema of tool 'do': properties\.n\.type: is not valid"):
        await kit.start(room=user)


@pytest.mark.parametrize(
    ("request_type", "body", "field"),
    [
        ("toolkit", {"name": "k", "tools": {"t": {"input_schema": "x"}}}, "tools.t.input_schema"),
        ("toolkit", {"name": "k", "tools": {"t": {"title": 1}}}, "tools.t.title"),
        ("toolkit", {"name": "k", "tools": []}, "tools"),
        ("toolkit", {"name": "k", "tools": {}, "title": []}, "title"),
        ("agent", {"name": "a", "requires": [{}]}, "requires.0"),
        ("agent", {"name": "a", "requires": [{"toolkit": "x", "tools": "y"}]}, "requires.0"),
        ("agent", {"name": "a", "input_schema": []}, "input_schema"),
        ("agent", {"name": "a", "labels": "x"}, "labels"),
    ],
)
async def test_a_description_that_others_could_not_read_is_refused(
    server: RunningServer, user: RoomClient, request_type: str, body: dict[str, Any], field: str
) -> None:
    error = await error_of(user.send_request(f"agent.register_{request_type}", body))
    assert isinstance(error, InvalidRequestError)
    assert str(error).startswith(f"{field}: ")
    assert (await user.agents.list_toolkits(), await user.agents.list_agents()) == ([], [])


async def test_descriptions_have_a_limit_altogether(server: RunningServer, user: RoomClient) -> None:
    long = "x" * (registry.MAX_DESCRIPTIONS * 6 // 10)
    await user.send_request("agent.register_agent", {"name": "a", "description": long})
    error = await error_of(user.send_request("agent.register_toolkit", {"name": "k", "tools": {}, "title": long}))
    assert isinstance(error, LimitExceededError)
    await user.send_request("agent.register_toolkit", {"name": "k", "tools": {}, "title": long[: len(long) // 6]})


async def test_a_requirement_without_its_list_of_tools_is_completed(server: RunningServer, user: RoomClient) -> None:
    await user.send_request("agent.register_agent", {"name": "a", "requires": [{"toolkit": "x"}, {"schema": "y"}]})
    [card] = (await user.send_request("agent.list_agents", {}))["agents"]
    assert card["requires"] == [{"toolkit": "x", "tools": None}, {"schema": "y"}]


# The end of a call


async def test_a_tool_that_never_returns_is_cancelled_at_the_deadline(serve: Any) -> None:
    tool = Never()
    async with serve(call_seconds=0.1) as server, server.client() as user, offered(server, tool):
        error = await error_of(invoke(user, "never"))
        assert isinstance(error, RequestTimeoutError)
        assert str(error) == "tool 'never' of toolkit 'kit' did not answer within 0.1 s"
        assert await tool.ended.get() == "cancelled"
        tool.release.set()
        assert await invoke(user, "never") == TextResponse(text="released")


async def test_a_tool_is_cancelled_when_its_caller_leaves(server: RunningServer) -> None:
    tool = Never()
    async with offered(server, tool), server.client(name="leaver") as leaver, asyncio.TaskGroup() as tasks:
        calling = tasks.create_task(error_of(invoke(leaver, "never")))
        await tool.called.get()
        await leaver.close()
        assert await tool.ended.get() == "cancelled"
        await calling
        assert not server.server.service(AgentsService).in_room(server.server.rooms[0]).calls


async def test_a_tool_is_cancelled_when_its_callers_connection_breaks(server: RunningServer) -> None:
    tool = Never()
    async with offered(server, tool), server.client(name="unlucky") as unlucky, asyncio.TaskGroup() as tasks:
        calling = tasks.create_task(error_of(invoke(unlucky, "never")))
        await tool.called.get()
        server.cut(unlucky)
        assert await tool.ended.get() == "cancelled"
        await calling


async def test_a_tool_is_cancelled_when_its_caller_no_longer_waits(server: RunningServer, user: RoomClient) -> None:
    tool = Never()
    async with offered(server, tool):
        async with asyncio.TaskGroup() as tasks:
            calling = tasks.create_task(invoke(user, "never"))
            another = tasks.create_task(invoke(user, "never"))
            await tool.called.get()
            await tool.called.get()
            calling.cancel()
            assert await tool.ended.get() == "cancelled"
            tool.release.set()
            assert await another == TextResponse(text="released")
        assert tool.ended.empty()


async def test_nobody_abandons_the_call_of_another(server: RunningServer, user: RoomClient) -> None:
    tool = Never()
    async with offered(server, tool) as provider, asyncio.TaskGroup() as tasks:
        request = {"toolkit": "kit", "tool": "never", "call": "key"}
        calling = tasks.create_task(user.send_request("agent.invoke_tool", request))
        await tool.called.get()
        await provider.notify("agent.abandon", {"call": "key"})
        await user.notify("agent.abandon", {"call": "other"})
        await user.notify("agent.abandon", {})
        # What names no call of ours, or nothing at all, is ignored.
        for key in (10_000, "x", None, []):
            provider.agents._cancel(key)
        await user.queues.list()
        await provider.queues.list()
        tool.release.set()
        assert await calling == "released"


async def test_a_server_without_the_extension_is_not_told(server: RunningServer, user: RoomClient) -> None:
    tool = Never()
    async with offered(server, tool):
        user.extensions["extensions"].remove("cancel")
        user.extensions["extensions"].remove("cancel_request")
        assert user._keeper.session is not None
        user._keeper.session.can_cancel = False
        async with asyncio.TaskGroup() as tasks:
            calling = tasks.create_task(invoke(user, "never"))
            await tool.called.get()
            calling.cancel()
        await user.queues.list()
        assert tool.ended.empty()


async def test_a_client_that_is_not_meshhosts_is_not_told_of_cancelled_calls(serve: Any) -> None:
    heard: list[str] = []
    async with serve(call_seconds=0.05) as server, server.client() as user, server.client(name="p") as provider:
        [one] = [member for member in server.server.rooms[0].members.values() if member.name == "p"]
        one.peer._translator = SDK_06.translator(Handshake({}, {}))
        provider.register_handler("agent.tool_call_cancelled", lambda _: heard.append("cancelled"))
        tools = {"t": {"input_schema": {"type": "object"}}}
        await provider.send_request("agent.register_toolkit", {"name": "kit", "public": True, "tools": tools})
        assert isinstance(await error_of(invoke(user, "t")), RequestTimeoutError)
        await provider.queues.list()
        assert heard == []


async def test_the_answer_of_a_lost_connection_is_not_taken_for_another_calls(
    server: RunningServer, user: RoomClient, heard: Any
) -> None:
    tool = Never()
    at_once = ReconnectPolicy(first_delay=0.0)
    async with offered(server, tool, reconnect=at_once) as provider, asyncio.TaskGroup() as tasks:
        reconnected = heard(provider, "reconnected")
        calling = tasks.create_task(error_of(invoke(user, "never")))
        await tool.called.get()
        server.cut(provider)
        assert isinstance(await calling, ToolError)
        # Ids begin anew with the connection: were the first call still running, it would answer the second.
        assert await tool.ended.get() == "cancelled"
        await reconnected.get()
        tool.release.set()
        assert await invoke(user, "never") == TextResponse(text="released")


# Visibility


async def test_of_public_toolkits_the_newest_answers_and_private_ones_shadow(
    server: RunningServer, user: RoomClient
) -> None:
    async with offered(server, Does("old")), server.client(name="mine") as mine:
        await RemoteToolkit(name="kit", tools=[Does("private")], public=False).start(room=mine)
        async with offered(server, Does("new")):
            assert (await invoke(user), await invoke(mine)) == (TextResponse("new"), TextResponse("private"))
            assert [kit.name for kit in await user.agents.list_toolkits()] == ["kit"]
        assert (await invoke(user), await invoke(mine)) == (TextResponse("old"), TextResponse("private"))


# Floods


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("messaging.broadcast", {"type": "x", "message": {"a": 1}}),
        ("agent.list_toolkits", {}),
        ("agent.invoke_tool", {"toolkit": "kit", "tool": "do"}),
        ("queues.send", {"name": "flood", "message": 1, "create": True}),
        ("no.such.request", {}),
    ],
)
async def test_a_participant_that_floods_does_not_keep_its_neighbours_waiting(
    server: RunningServer, user: RoomClient, kind: str, header: dict[str, Any]
) -> None:
    arguments = (server.server.room_url("room"), server.token("room", name="flooder"), kind, json.dumps(header))
    async with offered(server, Does("ok")):
        flooder = await asyncio.create_subprocess_exec(
            sys.executable, FLOODING, *arguments, stdout=asyncio.subprocess.PIPE
        )
        assert flooder.stdout is not None
        try:
            assert await flooder.stdout.readline() == b"flooding\n"
            overtaken = []
            for _ in range(30):
                before = handled(server)
                await user.agents.list_agents()
                overtaken.append(handled(server) - before)
        finally:
            with contextlib.suppress(ProcessLookupError):
                flooder.kill()
            await flooder.communicate()
    # A connection handles 16 messages before others get a turn; a request of the user takes a few turns. Without turns, all
    # that has arrived is handled first, which is thousands.
    assert max(overtaken) < 10 * MESSAGES_A_TURN, overtaken


def handled(server: RunningServer) -> int:
    """How many requests the server has handled; all of them but those of the user are the flooder's."""
    text = server.server.parts.metrics.render([], [], QueueStats("", 0, 0, 0, 0, None)).decode()
    return sum(int(float(count)) for count in re.findall(r"^meshhost_room_requests_total.* (\S+)$", text, re.MULTILINE))


async def test_a_json_answer_is_a_json_answer(server: RunningServer, user: RoomClient) -> None:
    async with offered(server, Does({"a": [1, None]})):
        assert await invoke(user) == JsonResponse(json={"a": [1, None]})
