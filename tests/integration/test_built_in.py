"""The agents and toolkits that every room has: they come when they are wanted, work for those who may, and end when idle."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from meshhost.agents import TaskRunner
from meshhost.agents.schemas.gallery import gallery_schema
from meshhost.agents.utils import generate_json
from meshhost.app.built_in.process import BuiltInHost, BuiltInLimits
from meshhost.app.config_file import ServerFile
from meshhost.errors import AccessDeniedError, NotFoundError, RoomError, ToolError
from meshhost.gateway.provider import ProviderTable
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.identity.grants import AgentsGrant, ApiScope, StorageGrant, StoragePathGrant, SyncGrant, SyncPathGrant
from meshhost.protocol.messages import EmptyResponse, JsonResponse, TextResponse
from meshhost.room.requirements import RequiredToolkit
from meshhost.testing.scripted_upstream import ScriptedUpstream
from meshhost.testing.server import RunningServer, running_server
from meshhost.tools import RemoteToolkit, Tool, ToolContext
from meshhost.tools.tool import ToolContext as Context

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["words"],
    "properties": {"words": {"type": "integer"}},
}
CSV = b"name,age\nAnn,7\n"
TABLE = "| name | age |\n| --- | --- |\n| Ann | 7 |"


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as running:
        yield running


@asynccontextmanager
async def serving(home: Path, upstream: ScriptedUpstream, **built_in: Any) -> AsyncIterator[RunningServer]:
    provider = OpenAICompatibleProvider(name="scripted", base_url=upstream.base_url, api_key="key")
    file = ServerFile.model_validate({"built_in": built_in})
    async with running_server(home, providers=ProviderTable({"*": provider}), file=file) as server:
        yield server


@pytest.fixture
async def server(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[RunningServer]:
    async with serving(tmp_path, upstream) as running:
        yield running


def scope(**grants: Any) -> ApiScope:
    return ApiScope(agents=AgentsGrant(), **grants)


async def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what another process does tells no event
            await asyncio.sleep(0.02)


def processes() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [each for each in children if "meshhost.app.built_in.program" in each.cmdline()]


async def test_planners_answer_under_both_names_and_the_tenant_pays(
    server: RunningServer, upstream: ScriptedUpstream
) -> None:
    upstream.say('{"result": "three steps"}').say('{"words": 2}').say('{"words": 3}')
    async with server.client(name="ann") as room:
        answer = await room.agents.ask(agent="meshhost.planner", arguments={"prompt": "plan it"})
        assert answer == {"result": "three steps"}
        asked = {"prompt": "count", "output_schema": SCHEMA}
        assert await room.agents.ask(agent="meshagent.schema_planner", arguments=asked) == {"words": 2}
        assert await generate_json(room=room, prompt="count again", output_schema=SCHEMA) == {"words": 3}
        with pytest.raises(RoomError, match="output_schema"):
            await room.agents.ask(
                agent="meshhost.schema_planner", arguments={"prompt": "x", "output_schema": {"type": "nothing"}}
            )
        # Agents of one kind under two names are two; none of them keeps the room open or is a person's.
        names = {agent.name for agent in await room.agents.list_agents()}
        assert names == {"meshhost.planner", "meshagent.schema_planner", "meshhost.schema_planner"}
    assert [request.body["text"]["format"]["schema"] for request in upstream.requests][1:] == [SCHEMA, SCHEMA]
    assert len(processes()) == 1


async def test_a_planner_uses_the_tools_that_its_asker_names(server: RunningServer, upstream: ScriptedUpstream) -> None:
    class Weather(Tool):
        def __init__(self) -> None:
            super().__init__(name="weather", input_schema={"type": "object", "properties": {}})

        async def execute(self, context: Context) -> str:
            return "it rains"

    upstream.call_tool("weather", {}).say('{"result": "take an umbrella"}')
    async with server.client(name="ann") as room:
        kit = RemoteToolkit(name="sky", tools=[Weather()])
        await kit.start(room=room)
        answer = await room.agents.ask(
            agent="meshhost.planner", arguments={"prompt": "dress"}, requires=[RequiredToolkit(name="sky")]
        )
        assert answer == {"result": "take an umbrella"}
        await kit.stop()
    assert "it rains" in json.dumps(upstream.requests[1].body)


async def test_the_document_writer_writes_for_those_who_may_write(
    server: RunningServer, upstream: ScriptedUpstream
) -> None:
    upstream.say(
        json.dumps({"document": {"content": [{"heading": {"text": "Bread"}}, {"body": {"text": "Bake it."}}]}})
    )
    asked = {"path": "recipes/bread.document", "prompt": "how to bake bread"}
    async with server.client(name="ann") as room:
        assert await room.agents.ask(agent="meshhost.document-writer", arguments=asked) == {}
        document = await room.sync.open(path="recipes/bread.document", create=False)
        assert [child.get_attribute("text") for child in document.root.get_children()] == ["Bread", "Bake it."]
    read_only = scope(sync=SyncGrant(paths=[SyncPathGrant(path="recipes/*", read_only=True)]))
    async with server.client(name="bob", scope=read_only) as room:
        with pytest.raises(AccessDeniedError, match=r"recipes/bread\.document"):
            await room.agents.ask(agent="meshhost.document-writer", arguments=asked)
    assert len(upstream.requests) == 1


async def test_markitdown_reads_only_what_its_caller_may_read(server: RunningServer) -> None:
    async with server.client(name="ann") as room:
        await room.storage.upload(path="open/people.csv", data=CSV)
        await room.storage.upload(path="secret/people.csv", data=CSV)
        await room.storage.upload(path="open/cat.png", data=b"\x89PNG")
    grants = scope(storage=StorageGrant(paths=[StoragePathGrant(path="open", read_only=True)]))
    async with server.client(name="bob", scope=grants) as room:

        async def read(path: str) -> Any:
            return await room.agents.invoke_tool(
                toolkit="meshagent.markitdown", tool="markitdown_from_file", arguments={"path": path}
            )

        assert await read("open/people.csv") == TextResponse(text=TABLE)
        assert await read("open/cat.png") == EmptyResponse()
        for path in ("secret/people.csv", "open/../secret/people.csv"):
            with pytest.raises(RoomError):
                await read(path)
        with pytest.raises(RoomError, match="public internet"):
            await room.agents.invoke_tool(
                toolkit="meshagent.markitdown",
                tool="markitdown_from_url",
                arguments={"url": f"{server.url}/livez"},
            )


async def test_markitdown_asks_the_person_for_a_document(server: RunningServer) -> None:
    from meshhost.protocol.messages import FileResponse

    class Ask(Tool):
        def __init__(self) -> None:
            super().__init__(name="ask_user_for_file", input_schema={"type": "object"})

        async def execute(self, context: ToolContext, title: str, description: str) -> FileResponse:
            return FileResponse(data=CSV, name=f"{title}.csv", mime_type="text/csv")

    async with server.client(name="ann") as room:
        browser = RemoteToolkit(name="ui", tools=[Ask()], public=False)
        await browser.start(room=room)
        answer = await room.agents.invoke_tool(
            toolkit="meshhost.markitdown",
            tool="markitdown_from_user",
            arguments={"title": "people", "description": "a list"},
        )
        assert isinstance(answer, JsonResponse)
        assert answer.json == {"filename": "people.csv", "mime_type": "text/csv", "content": TABLE}
        await browser.stop()


async def test_a_required_toolkit_comes_rests_and_comes_again(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    class Reader(TaskRunner):
        async def ask(self, *, context: Any, arguments: Any) -> Any:
            answer = await context.toolkits[0].execute(
                context=Context(room=context.room, caller=context.caller),
                name="markitdown_from_file",
                arguments={"path": "people.csv"},
            )
            return answer.text

    async with (
        serving(tmp_path, upstream, idle_seconds=1.0) as server,
        server.client(name="ann") as user,
        server.client(name="reader", role="agent") as room,
    ):
        await user.storage.upload(path="people.csv", data=CSV)
        agent = Reader(
            name="reader", requires=[RequiredToolkit(name="meshhost.markitdown", tools=["markitdown_from_file"])]
        )
        await agent.start(room=room)
        assert await user.agents.ask(agent="reader", arguments={}) == TABLE
        [open_room] = server.server.rooms
        await until(lambda: [each.name for each in open_room.connected()] == ["ann", "reader"])
        await until(lambda: not processes())
        # It rests, but is listed, and an agent that requires it works on.
        assert "meshhost.markitdown" in [kit.name for kit in await user.agents.list_toolkits()]
        assert await user.agents.ask(agent="reader", arguments={}) == TABLE
        await agent.stop()


async def test_a_killed_process_is_started_again(server: RunningServer, upstream: ScriptedUpstream) -> None:
    upstream.say('{"result": "one"}').say('{"result": "two"}')
    async with server.client(name="ann") as room:
        assert await room.agents.ask(agent="meshhost.planner", arguments={"prompt": "1"}) == {"result": "one"}
        [process] = processes()
        process.kill()
        [open_room] = server.server.rooms
        await until(lambda: [each.name for each in open_room.connected()] == ["ann"])
        assert await room.agents.ask(agent="meshhost.planner", arguments={"prompt": "2"}) == {"result": "two"}
        assert processes() != [process]


async def test_a_tenant_has_only_so_many(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.say('{"result": "one"}')
    async with serving(tmp_path, upstream, max_agents_per_tenant=1) as server, server.client(name="ann") as room:
        await room.agents.ask(agent="meshhost.planner", arguments={"prompt": "1"})
        with pytest.raises(ToolError, match="max_agents: 1 agents of this tenant"):
            await room.agents.ask(agent="meshhost.schema_planner", arguments={"prompt": "1", "output_schema": SCHEMA})


async def test_rooms_without_them_say_so_at_once(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with serving(tmp_path, upstream, enabled=False) as server, server.client(name="ann") as room:
        with pytest.raises(NotFoundError, match=r"no agent 'meshhost\.planner'"):
            await room.agents.ask(agent="meshhost.planner", arguments={"prompt": "1"})
    assert not processes()


async def test_names_that_nobody_built_in_are_not_waited_for(server: RunningServer) -> None:
    async with server.client(name="ann") as room:
        for agent in ("meshhost.poet", "planner"):
            with pytest.raises(NotFoundError):
                await room.agents.ask(agent=agent, arguments={})
        with pytest.raises(NotFoundError):
            await room.agents.invoke_tool(toolkit="markitdown", tool="x", arguments={})
        # At MeshAgent's own address a plain name is one of these.
        await room.agents.make_call(name="storage", url="http://localhost:8080/toolkits/storage", arguments={})
        answer = await room.agents.invoke_tool(
            toolkit="storage", tool="write_file", arguments={"path": "a.txt", "text": "hi", "overwrite": False}
        )
        assert answer == TextResponse(text="the file was saved at a.txt")
    async with server.client(name="bob", scope=scope(storage=StorageGrant(paths=[]))) as room:
        with pytest.raises(AccessDeniedError):
            await room.agents.invoke_tool(toolkit="storage", tool="read_file", arguments={"path": "a.txt"})


async def test_every_room_has_the_schemas_that_we_ship(server: RunningServer) -> None:
    async with server.client(name="ann") as room:
        for extension in ("document", "gallery", "presentation", "superdoc", "thread", "transcript"):
            document = await room.sync.open(path=f"new.{extension}")
            assert document.root.tag_name
        await room.agents.make_call(name="gallery", url="http://localhost:8080/schemas/gallery", arguments={})
        stored = await room.storage.download(path=".schemas/gallery.json")
        assert json.loads(stored.data) == gallery_schema.to_json()
        with pytest.raises(NotFoundError, match="no schema for"):
            await room.sync.open(path="new.recipe")


async def test_the_process_ends_with_its_owner_and_when_nobody_needs_it() -> None:
    limits = BuiltInLimits(idle_seconds=0.5)
    host = BuiltInHost(room_server=lambda: "http://127.0.0.1:1", limits=limits, environment={})
    at = await host.address()
    assert await host.address() == at
    pid = host.pid
    assert pid is not None
    await until(lambda: host.pid is None)
    assert not psutil.pid_exists(pid)
    again = await host.address()
    assert again != at
    # Somebody could not reach it: it is started anew.
    third = await host.address(but=again)
    assert third != again
    pid = host.pid
    await host.stop()
    assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_a_process_that_cannot_start_is_not_started_over_and_over() -> None:
    host = BuiltInHost(
        room_server=lambda: "no url", limits=BuiltInLimits(), environment={"MESHHOST_LOG_LEVEL": "nonsense"}
    )
    with pytest.raises(ToolError, match="could not be started"):
        await host.address()
    with pytest.raises(ToolError, match="next try in"):
        await host.address()
    await host.stop()
