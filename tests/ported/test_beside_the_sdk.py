"""A program does the same here, renamed, as under the real SDK, unrenamed, beside it in a room of the same server.

Each program of `programs/` is one of a kind that public MeshAgent programs are of. `Ours` renames it and runs it with meshhost,
`Theirs` runs it as it is with the SDK 0.6.13. Both get the same script of the model, and each test asserts the same of both.
Programs of newer generations, and those whose words with the model differ on purpose, run here only.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from doubles.ports import free_port

from meshhost.agents.chat.log import ThreadLog, new_thread, text_of
from meshhost.app.host_api import endpoints_of, get_json
from meshhost.app.room_calls import RoomCalls
from meshhost.errors import CallRefusedError
from meshhost.gateway.provider import ProviderTable
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.room.client import RoomClient
from meshhost.room.services.messaging import RoomMessage
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.testing.scripted_upstream import ScriptedUpstream
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(720)]

PROGRAMS = Path(__file__).parent / "programs"
SECONDS = 40.0
CSV = b"title,year\nOn Rooms,2025\n"
TABLE = "| title | year |\n| --- | --- |\n| On Rooms | 2025 |"


class Ours:
    """Runs programs renamed, with meshhost."""

    name = "meshhost"

    def __init__(self, home: Path, server: RunningServer, python: Path) -> None:
        self.home = home
        self.server = server
        self.python = python
        foreign = ("MESHAGENT_", "MESHHOST_", "OPENAI_", "OTEL_", "COVERAGE_")
        prefix = self.name.upper()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {
            "HOME": str(home),
            f"{prefix}_API_URL": server.url,
            f"{prefix}_API_KEY": server.api_key,
            f"{prefix}_PROJECT_ID": server.key.project_id,
            # What the SDK signs tokens with where it knows no API keys yet.
            f"{prefix}_KEY_ID": server.key.id,
            f"{prefix}_SECRET": server.key.secret,
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def written(self, name: str) -> Path:
        source = (PROGRAMS / f"{name}.py").read_text()
        path = self.home / f"{name}.py"
        path.write_text(source.replace("meshagent", self.name).replace("MESHAGENT", self.name.upper()))
        return path

    @asynccontextmanager
    async def started(self, name: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """The program, while the block runs; then it is asked to end, and must."""
        with (self.home / "stderr").open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(self.python, self.written(name)),
                env=self.environment | environment,
                cwd=self.home,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(10):
                        await process.wait()
                except TimeoutError:  # the SDK notices a signal only when something happens
                    process.kill()
            await process.communicate()

    async def run(self, name: str) -> list[Any]:
        """A script, to its end; the JSON lines that it printed."""
        async with self.started(name) as process, asyncio.timeout(SECONDS):
            assert process.stdout is not None
            out = await process.stdout.read()
            assert await process.wait() == 0, self.told()
        return [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]

    @asynccontextmanager
    async def serving(self, name: str) -> AsyncIterator[None]:
        """A host, called into the room as a room server would."""
        port = free_port()
        variable = f"{self.name.upper()}_PORT"
        async with self.started(name, **{variable: str(port)}), aiohttp.ClientSession() as session:
            calls = RoomCalls(
                session, api_url=self.server.url, room="room", api_key=self.server.api_key, webhook_secret=None
            )
            async with asyncio.timeout(SECONDS):
                described = f"http://127.0.0.1:{port}/.well-known/{self.name}-service.json"
                for endpoint in endpoints_of(await until(lambda: get_json(session, described))):
                    await calls.call(f"http://127.0.0.1:{port}", endpoint)
            yield

    def told(self) -> str:
        return (self.home / "stderr").read_text()


class Theirs(Ours):
    """Runs programs as they are, with the SDK."""

    name = "meshagent"


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as running:
        yield running


@pytest.fixture
async def server(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[RunningServer]:
    provider = OpenAICompatibleProvider(name="scripted", base_url=upstream.base_url, api_key="key")
    async with running_server(tmp_path / "server", providers=ProviderTable({"*": provider})) as running:
        yield running


@pytest.fixture
async def user(server: RunningServer) -> AsyncIterator[RoomClient]:
    async with server.client(name="ann") as room:
        yield room


@pytest.fixture
def ours(tmp_path: Path, server: RunningServer) -> Ours:
    (tmp_path / "ours").mkdir()
    return Ours(tmp_path / "ours", server, Path(sys.executable))


@pytest.fixture(params=["meshhost", "sdk"])
def each(request: pytest.FixtureRequest, tmp_path: Path, server: RunningServer, ours: Ours) -> Ours:
    """Either of the two: what a test asserts holds for both."""
    if request.param == "meshhost":
        return ours
    meshagent: Path = request.getfixturevalue("meshagent")
    (tmp_path / "theirs").mkdir()
    return Theirs(tmp_path / "theirs", server, meshagent.with_name("python"))


async def until(find: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(SECONDS):
        while not (found := await find()):  # noqa: ASYNC110 - asks a server
            await asyncio.sleep(0.05)
    return found


async def asked(user: RoomClient, agent: str, arguments: dict[str, Any]) -> Any:
    """The answer of an agent, once it is there."""

    async def is_there() -> bool:
        return agent in [found.name for found in await user.agents.list_agents()]

    await until(is_there)
    return await user.agents.ask(agent=agent, arguments=arguments)


def outputs(upstream: ScriptedUpstream) -> list[str]:
    """What tools answered the model, in the last request."""
    found = [item for item in upstream.requests[-1].body["input"] if item.get("type") == "function_call_output"]
    return [item["output"] for item in found]


async def test_an_agent_reads_documents_by_the_toolkit_that_every_room_has(
    each: Ours, user: RoomClient, upstream: ScriptedUpstream
) -> None:
    await user.storage.upload(path="papers/rooms.csv", data=CSV)
    # The SDK's own toolkit reads office files only; the built-in one is ours for both.
    upstream.call_tool("markitdown_from_file", {"path": "papers/rooms.csv"}).say('{"about": "rooms"}')
    async with each.serving("paper_reader"):
        assert await asked(user, "paper-reader", {"prompt": "what is it about?"}) == {"about": "rooms"}
    assert outputs(upstream) == [TABLE]
    assert await user.storage.exists(path=".schemas/document.json")


async def test_an_agent_writes_into_a_document(each: Ours, user: RoomClient) -> None:
    asking = {"path": "note.document", "prompt": "Water the plants."}
    async with each.serving("note_writer"):
        # The schema is there without being stored: every room has it.
        assert await asked(user, "note-writer", asking) == {}
    document = await user.sync.open(path="note.document", create=False)
    assert document.root.to_json() == {
        "document": {"content": [{"heading": {"text": "Note"}}, {"body": {"text": "Water the plants."}}]}
    }


async def test_a_host_brings_its_schema(each: Ours, user: RoomClient) -> None:
    async with each.serving("schema_host"):
        await until(lambda: user.storage.exists(path=".schemas/menu.json"))
    document = await user.sync.open(path="today.menu")
    document.root.append_child("dish", {"name": "soup"})
    await user.sync.flush("today.menu")


async def test_the_provider_calls_a_server_of_mcp(each: Ours, user: RoomClient, upstream: ScriptedUpstream) -> None:
    upstream.say("42")
    async with each.serving("mcp_runner"):
        assert await asked(user, "wiki-runner", {"prompt": "why?"}) == {"answer": "42"}
    assert upstream.requests[0].body["tools"] == [
        {
            "type": "mcp",
            "server_label": "wiki",
            "server_url": "https://mcp.example.com/mcp",
            "allowed_tools": ["ask"],
            "headers": {"Authorization": "Bearer example"},
            "require_approval": "never",
        }
    ]


async def test_a_script_asks_the_agents_that_every_room_has(each: Ours, upstream: ScriptedUpstream) -> None:
    written = {"document": {"content": [{"body": {"text": "Along the river."}}]}}
    upstream.say('{"result": "walk"}').say('{"first": "Jane", "last": "Austen"}').say(json.dumps(written))
    assert await each.run("ask_built_ins") == [
        {"plan": "walk"},
        {"name": ["Jane", "Austen"]},
        {"written": written},
    ]


async def test_a_script_manages_rooms_and_mailboxes(each: Ours) -> None:
    assert await each.run("rest_calls") == [
        {"project": True, "room": ["garden", {"open": True}]},
        {"boxes": [["me@example.com", "garden", "mail"]]},
        {"joining": ["garden", 2]},
        {"status": 409},
    ]


async def test_a_toolkit_joins_a_room_by_itself(each: Ours, user: RoomClient) -> None:
    async with each.started("adder_toolkit"):
        await until(user.agents.list_toolkits)
        [kit] = await user.agents.list_toolkits()
        assert (kit.name, kit.title, sorted(tool.name for tool in kit.tools)) == ("adder", "Adder", ["add", "both"])
        numbers = {"a": 2, "b": 3}
        answer = await user.agents.invoke_tool(toolkit="adder", tool="add", arguments=numbers)
        assert answer.to_json()["json"] == {"sum": 5}
        both = {"add": numbers, "multiply": numbers}
        answer = await user.agents.invoke_tool(toolkit="adder", tool="both", arguments=both)
        results = answer.to_json()["json"]
        assert [results[name]["json"] for name in ("add", "multiply")] == [{"sum": 5}, {"product": 6}]


async def test_a_server_of_webhooks_is_told_of_calls(each: Ours) -> None:
    port = free_port()
    data = {"room_name": "room", "room_url": "ws://127.0.0.1:1/rooms/room", "token": "t", "arguments": {"n": 1}}
    async with each.started("webhook_listener", **{f"{each.name.upper()}_PORT": str(port)}) as process:

        async def is_told() -> bool:
            try:
                async with WebhookSender() as sender:
                    await sender.send(f"http://127.0.0.1:{port}/webhook", "room.call", data, secret=None)
            except CallRefusedError:
                return False
            return True

        await until(is_told)
        assert process.stdout is not None
        async with asyncio.timeout(SECONDS):
            while not (line := await process.stdout.readline()).startswith(b"{"):
                assert line, each.told()
        assert json.loads(line) == {"room": "room", "arguments": {"n": 1}}


async def test_a_planner_answers_in_its_form(ours: Ours, user: RoomClient, upstream: ScriptedUpstream) -> None:
    # MeshAgent asks the model for each step in a form of its own, so its words with the model are others.
    upstream.say('{"story": "All was well."}')
    async with ours.serving("story_planner"):
        assert await asked(user, "story-planner", {"prompt": "tell me a story"}) == {"story": "All was well."}
    assert "Stories end well." in upstream.requests[0].body["instructions"]


async def test_a_chat_bot_searches_the_web(ours: Ours, user: RoomClient, upstream: ScriptedUpstream) -> None:
    upstream.say("It is sunny.")
    async with ours.serving("web_search_chatbot"):
        await user.sync.create(path="a.thread", json=new_thread(members=["news-chatbot", "ann"]))
        log = ThreadLog(await user.sync.open(path="a.thread", create=False))
        await user.messaging.enable()

        async def bot() -> Any:
            return user.messaging.remote_participants

        [to] = await until(bot)
        ended = asyncio.get_running_loop().create_future()

        def on_message(message: RoomMessage) -> None:
            if message.type == "thinking" and not message.message["thinking"] and not ended.done():
                ended.set_result(None)

        user.messaging.on("message", on_message)
        log.add("What is the weather?", author="ann")
        await user.sync.flush("a.thread")
        await user.messaging.send_message(
            to=to, type="chat", message={"path": "a.thread", "text": "What is the weather?"}
        )
        async with asyncio.timeout(SECONDS):
            await ended

        async def answered() -> bool:
            return text_of(log.messages()[-1]) == "It is sunny."

        await until(answered)
    assert {"type": "web_search"} in upstream.requests[0].body["tools"]


async def test_tools_of_newer_programs_are_offered(ours: Ours, user: RoomClient) -> None:
    async with ours.serving("newer_tools"):
        await until(user.agents.list_toolkits)
        greeting = await user.agents.invoke_tool(toolkit="newer", tool="greet", arguments={})
        place = await user.agents.invoke_tool(toolkit="newer", tool="where_am_i", arguments={})
    assert (greeting.to_json()["text"], place.to_json()["json"]) == ("hello", {"room": "room"})
