"""A toolkit that one participant offers and another uses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshhost.errors import AccessDeniedError, ConnectionLostError, NotFoundError, RoomError
from meshhost.identity.grants import ApiScope
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import ErrorResponse, JsonResponse, TextResponse
from meshhost.room.client import RoomClient
from meshhost.room.participants import RemoteParticipant
from meshhost.testing.server import RunningServer, running_server
from meshhost.tools.remote import RemoteToolkit
from meshhost.tools.tool import BaseTool, Tool, ToolContext

NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


class Tell(Tool):
    """Tells the circumstances of its call."""

    def __init__(self) -> None:
        super().__init__(name="tell", input_schema=NOTHING, supports_context=True, defs={"X": {"type": "string"}})
        self.contexts: list[ToolContext] = []

    async def execute(self, *, context: ToolContext, attachment: bytes = b"") -> dict[str, Any]:
        self.contexts.append(context)
        return {"caller": context.caller.id, "attached": attachment.decode(), "about": context.caller_context}


class Wait(Tool):
    """Answers when it is released."""

    def __init__(self) -> None:
        super().__init__(name="wait", input_schema=NOTHING)
        self.entered = asyncio.Event()
        self.release = asyncio.Event()

    async def execute(self, *, context: ToolContext) -> str:
        self.entered.set()
        await self.release.wait()
        return "released"


class Fail(Tool):
    """Raises what it was given."""

    def __init__(self, error: Exception) -> None:
        super().__init__(name="fail", input_schema=NOTHING)
        self._error = error

    async def execute(self, *, context: ToolContext) -> None:
        raise self._error


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with asyncio.timeout(30), running_server(tmp_path) as running:
        yield running


@pytest.fixture
async def user(server: RunningServer) -> AsyncIterator[RoomClient]:
    async with server.client("room") as room:
        yield room


@asynccontextmanager
async def offered(server: RunningServer, *tools: BaseTool, **options: Any) -> AsyncIterator[RemoteToolkit]:
    kit = RemoteToolkit(name="kit", tools=tools, **options)  # type: ignore[arg-type]
    async with server.client("room", name="provider", role="tool") as room:
        await kit.start(room=room)
        try:
            yield kit
        finally:
            await kit.stop()


async def invoke(user: RoomClient, tool: str, **options: Any) -> Any:
    return await user.agents.invoke_tool(toolkit="kit", tool=tool, arguments={}, **options)


async def test_a_toolkit_is_described_and_called_with_the_circumstances(
    server: RunningServer, user: RoomClient
) -> None:
    tell = Tell()
    kit = offered(server, tell, BaseTool(name="bare"), title="Kit", description="Tells", thumbnail_url="http://x/y.png")
    async with kit as running:
        [described] = await user.agents.list_toolkits()
        assert (described.name, described.title, described.description) == ("kit", "Kit", "Tells")
        assert described.thumbnail_url == "http://x/y.png"
        [tool] = described.tools  # one without arguments cannot be called from afar
        assert (tool.name, tool.supports_context, tool.defs) == ("tell", True, {"X": {"type": "string"}})
        me = user.local_participant.id
        answer = await invoke(user, "tell", attachment=b"file", caller_context={"chat": 1}, on_behalf_of_id=me)
        own = await running.room.agents.invoke_tool(toolkit="kit", tool="tell", arguments={})

    assert answer == JsonResponse({"caller": me, "attached": "file", "about": {"chat": 1}})
    context = tell.contexts[0]
    assert context.on_behalf_of.id == me
    assert tell.contexts[1].on_behalf_of is None
    assert own.json["caller"] == tell.contexts[1].caller.id
    assert tell.contexts[1].caller is not None


async def test_a_caller_who_is_known_comes_with_attributes(server: RunningServer, user: RoomClient) -> None:
    tell, added = Tell(), asyncio.Event()
    async with offered(server, tell) as kit:
        kit.room.messaging.on("participant_added", lambda **_: added.set())
        await kit.room.messaging.enable()
        await user.messaging.enable()
        await added.wait()
        await invoke(user, "tell")
    assert tell.contexts[0].caller.get_attribute("name") == "tester"


async def test_calls_run_side_by_side(server: RunningServer, user: RoomClient) -> None:
    wait = Wait()
    async with offered(server, wait, Tell()), asyncio.TaskGroup() as tasks:
        slow = tasks.create_task(invoke(user, "wait"))
        await wait.entered.wait()
        await invoke(user, "tell")
        assert not slow.done()
        wait.release.set()
        assert await slow == TextResponse("released")


async def test_a_room_error_of_a_tool_reaches_its_caller(server: RunningServer, user: RoomClient) -> None:
    async with offered(server, Fail(NotFoundError("no such poem"))):
        with pytest.raises(RoomError, match="no such poem"):
            await invoke(user, "fail")


async def test_any_other_error_is_for_the_providers_log(
    server: RunningServer, user: RoomClient, caplog: pytest.LogCaptureFixture
) -> None:
    async with offered(server, Fail(ValueError("a secret"))):
        with pytest.raises(RoomError, match="tool 'fail' failed; the log of its provider says why") as error:
            await invoke(user, "fail")
    assert "a secret" not in str(error.value)
    assert "tool failed" in caplog.messages
    assert "a secret" in caplog.text


async def test_wrong_arguments_are_named(server: RunningServer, user: RoomClient) -> None:
    tool = Tell()
    tool.input_schema = {"type": "object", "required": ["path"], "properties": {"path": {"type": "string"}}}
    async with offered(server, tool):
        with pytest.raises(RoomError, match="path"):
            await invoke(user, "tell")


class Recorder:
    """Takes the answers that a toolkit gives."""

    def __init__(self) -> None:
        self.agents = self
        self.answers: list[Any] = []

    async def register_toolkit(self, *_: Any, **__: Any) -> str:
        return "1"

    def add_restorer(self, _: Any) -> None:
        pass

    async def answer_tool_call(self, _: Any, response: Any) -> None:
        self.answers.append(response)


@pytest.mark.parametrize(
    "header", [{}, {"name": "tell"}, {"name": 1, "arguments": {}}, {"name": "tell", "arguments": []}]
)
async def test_a_malformed_call_is_answered(header: dict[str, Any]) -> None:
    kit, room = RemoteToolkit(name="kit", tools=[Tell()]), Recorder()
    await kit.start(room=room)  # type: ignore[arg-type]
    await kit._on_call(MessageReceived(1, "agent.tool_call.kit", header, b"", {}))
    [answer] = room.answers
    assert str(answer) == "arguments: expected the name of a tool and an object of arguments"


async def test_a_call_that_comes_when_it_has_stopped_is_dropped() -> None:
    kit = RemoteToolkit(name="kit", tools=[Tell()])
    await kit._on_call(MessageReceived(1, "agent.tool_call.kit", {"name": "tell", "arguments": {}}, b"", {}))


async def test_a_private_toolkit_is_seen_by_agents_that_its_owner_asked(server: RunningServer) -> None:
    async with offered(server, Tell(), public=False) as kit, server.client("room", name="agent", role="agent") as agent:
        owner = kit.room.local_participant.id
        to = RemoteParticipant(id=agent.local_participant.id)
        await kit.room.messaging.send_message(to=to, type="chat", message={})
        assert await agent.agents.list_toolkits() == []
        assert [one.name for one in await agent.agents.list_toolkits(participant_id=owner)] == ["kit"]
        with pytest.raises(NotFoundError):
            await invoke(agent, "tell")
        assert isinstance(await invoke(agent, "tell", participant_id=owner), JsonResponse)


async def test_it_is_offered_again_after_a_reconnect(server: RunningServer, user: RoomClient) -> None:
    async with offered(server, Tell()) as kit:
        back = asyncio.Event()
        kit.room.on("reconnected", back.set)
        server.cut(kit.room)
        await back.wait()
        assert isinstance(await invoke(user, "tell"), JsonResponse)


async def test_it_is_offered_from_start_to_stop(server: RunningServer, user: RoomClient) -> None:
    async with offered(server, Tell()) as kit:
        with pytest.raises(RoomError, match="the toolkit is started already"):
            await kit.start(room=user)
        room = kit.room
        await kit.stop()
        await kit.stop()
        assert await user.agents.list_toolkits() == []
        with pytest.raises(RoomError, match="the toolkit is not started"):
            kit.room  # noqa: B018
        await kit.start(room=room)
        assert len(await user.agents.list_toolkits()) == 1
        await room.close()
        await kit.stop()


async def test_a_start_that_is_refused_can_be_repeated(server: RunningServer) -> None:
    kit = RemoteToolkit(name="kit")
    scope = ApiScope.full().model_copy(update={"agents": None})
    async with server.client("room", scope=scope) as room:
        with pytest.raises(AccessDeniedError):
            await kit.start(room=room)
    async with server.client("room") as room:
        await kit.start(room=room)
        await kit.stop()


async def test_a_call_ends_when_its_provider_leaves(server: RunningServer, user: RoomClient) -> None:
    wait = Wait()
    async with asyncio.TaskGroup() as tasks:
        async with offered(server, wait):
            calling = tasks.create_task(_error_of(invoke(user, "wait")))
            await wait.entered.wait()
        assert "has left the room" in await calling


async def _error_of(call: Any) -> str:
    try:
        answer = await call
    except (RoomError, ConnectionLostError) as error:
        return str(error)
    return str(answer) if isinstance(answer, ErrorResponse) else ""
