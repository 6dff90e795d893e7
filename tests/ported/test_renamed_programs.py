"""Programs written for the MeshAgent SDK do their work here once `meshagent` is called `meshhost` in them.

`programs/*.py` are such programs, of the kinds that its public documentation shows. That they are written for the SDK is
proven with the SDK: it imports them unrenamed, and constructs what their hosts serve.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshhost.agents.chat.log import ThreadLog, new_thread, text_of
from meshhost.agents.thread_schema import ensure_thread_schema
from meshhost.errors import RoomError
from meshhost.gateway.provider import ProviderTable
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.room.client import RoomClient
from meshhost.room.services.agents import AgentDescription
from meshhost.room.services.messaging import RoomMessage
from meshhost.testing.scripted_upstream import ScriptedUpstream
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(720)]

PROGRAMS = Path(__file__).parent / "programs"
SERVICES = ("word_counter", "recipe_writer", "simple_chatbot", "chatbot_with_tool", "units_toolkit")
SCRIPTS = ("use_units", "notes")
SECONDS = 60.0

# Imports a program under the SDK, and makes one of each class that its host serves.
CHECK = """
import asyncio, runpy, sys

async def main():
    names = runpy.run_path(sys.argv[1], run_name="program")
    own = [value for value in names.values() if isinstance(value, type) and value.__module__ == "program"]
    print(sorted(type(made()).__name__ for made in own), sys.modules["meshagent.api"].__version__)

asyncio.run(main())
"""


class Programs:
    """Renames programs into a directory of their own, and runs them there against a room server."""

    def __init__(self, home: Path, server: RunningServer) -> None:
        self.home = home
        foreign = ("MESHAGENT_", "MESHHOST_", "OPENAI_", "OTEL_", "COVERAGE_")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {
            "HOME": str(home),
            "MESHHOST_API_URL": server.url,
            "MESHHOST_API_KEY": server.api_key,
            "MESHHOST_CONFIG_DIR": str(home / "config"),
            "MESHHOST_DATA_DIR": str(home / "data"),
            "MESHHOST_DRAIN_SECONDS": "2",
            "MESHHOST_ROOM": "room",
            "PYTHONUNBUFFERED": "1",
        }

    def renamed(self, name: str) -> Path:
        source = (PROGRAMS / f"{name}.py").read_text()
        path = self.home / f"{name}.py"
        path.write_text(source.replace("meshagent", "meshhost").replace("MESHAGENT", "MESHHOST"))
        return path

    async def spawn(self, *arguments: str | Path) -> asyncio.subprocess.Process:
        with (self.home / "stderr").open("ab") as stderr:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, *arguments),
                env=self.environment,
                cwd=self.home,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
            )

    async def run(self, name: str) -> list[str]:
        """A script, to its end; the lines it printed."""
        process = await self.spawn(self.renamed(name))
        try:
            async with asyncio.timeout(SECONDS):
                out, _ = await process.communicate()
        finally:
            await end(process)
        assert process.returncode == 0, self.told()
        return out.decode().splitlines()

    @asynccontextmanager
    async def serving(self, name: str) -> AsyncIterator[None]:
        """`meshhost service run` of a program, from when its agent has joined until it is stopped in order."""
        run = ("-m", "meshhost.cli.main", "service", "run", str(self.renamed(name)), "--room", "room", "--json")
        process = await self.spawn(*run)
        try:
            async with asyncio.timeout(SECONDS):
                await self.joined(process)
            yield
            process.terminate()
            async with asyncio.timeout(SECONDS):
                await process.communicate()
            assert process.returncode == 0, self.told()
        finally:
            await end(process)

    async def joined(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            if json.loads(line)["step"] == "joined":
                return
        pytest.fail(self.told())

    def told(self) -> str:
        return (self.home / "stderr").read_text()


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()


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
def programs(tmp_path: Path, server: RunningServer) -> Programs:
    home = tmp_path / "home"
    home.mkdir()
    return Programs(home, server)


@pytest.fixture
async def user(server: RunningServer) -> AsyncIterator[RoomClient]:
    async with server.client(name="ann") as room:
        yield room


async def until_asked(user: RoomClient, name: str) -> AgentDescription:
    """The agent, when it can be asked: it joins a moment before."""
    async with asyncio.timeout(SECONDS):
        while not (found := [agent for agent in await user.agents.list_agents() if agent.name == name]):  # noqa: ASYNC110 - asks a server
            await asyncio.sleep(0.02)
    return found[0]


@pytest.mark.parametrize("name", [*SERVICES, *SCRIPTS])
async def test_the_sdk_itself_imports_the_program_as_it_is_written(meshagent: Path, name: str, tmp_path: Path) -> None:
    python = meshagent.with_name("python")
    process = await asyncio.create_subprocess_exec(
        *(python, "-c", CHECK, PROGRAMS / f"{name}.py"),
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate()
    finally:
        await end(process)
    assert process.returncode == 0, err.decode()
    made, _, version = out.decode().strip().rpartition(" ")
    assert version == "0.6.13"
    assert (made == "[]") is (name in SCRIPTS)


async def test_an_agent_with_schemas_answers(programs: Programs, user: RoomClient) -> None:
    async with programs.serving("word_counter"):
        agent = await until_asked(user, "word-counter")
        assert (agent.name, agent.title) == ("word-counter", "Word counter")
        answer = await user.agents.ask(agent="word-counter", arguments={"text": "one three two"})
        assert answer == {"words": 3, "longest": "three"}
        with pytest.raises(RoomError, match="text: is required"):
            await user.agents.ask(agent="word-counter", arguments={})


async def test_an_agent_lets_the_model_answer_in_its_shape(
    programs: Programs, user: RoomClient, upstream: ScriptedUpstream
) -> None:
    upstream.say('{"title": "Egg on toast", "minutes": 7}')
    async with programs.serving("recipe_writer"):
        await until_asked(user, "recipe-writer")
        answer = await user.agents.ask(agent="recipe-writer", arguments={"prompt": "eggs, bread"})
    assert answer == {"title": "Egg on toast", "minutes": 7}
    [request] = upstream.requests
    assert "Use only what the prompt names." in json.dumps(request.body)
    assert request.body["text"]["format"]["type"] == "json_schema"


class Thread:
    """A thread in which `ann` and a bot talk."""

    def __init__(self, room: RoomClient, log: ThreadLog, bot: str) -> None:
        self._room = room
        self._log = log
        self._bot = bot

    async def ask(self, text: str) -> str:
        """Say something; what the bot's answer is once it is complete."""
        self._log.add(text, author="ann")
        await self._room.sync.flush("a.thread")
        [to] = [each for each in self._room.messaging.remote_participants if each.get_attribute("name") == self._bot]
        ended = asyncio.get_running_loop().create_future()

        def on_message(message: RoomMessage) -> None:
            if message.type == "thinking" and not message.message["thinking"] and not ended.done():
                ended.set_result(None)

        self._room.messaging.on("message", on_message)
        await self._room.messaging.send_message(to=to, type="chat", message={"path": "a.thread", "text": text})
        async with asyncio.timeout(SECONDS):
            await ended
            await until(lambda: self._log.messages()[-1].get_attribute("author_name") == self._bot)
        self._room.messaging.off("message", on_message)
        return text_of(self._log.messages()[-1])


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 - what others do in the room tells no event
        await asyncio.sleep(0.01)


@asynccontextmanager
async def talking(room: RoomClient, bot: str) -> AsyncIterator[Thread]:
    await ensure_thread_schema(room)
    await room.sync.create(path="a.thread", json=new_thread(members=[bot, "ann"]))
    log = ThreadLog(await room.sync.open(path="a.thread", create=False))
    await room.messaging.enable()
    async with asyncio.timeout(SECONDS):
        await until(lambda: room.messaging.remote_participants)
    yield Thread(room, log, bot)
    await room.sync.close(path="a.thread")


async def test_a_chat_bot_answers(programs: Programs, user: RoomClient, upstream: ScriptedUpstream) -> None:
    upstream.say("Hello Ann.").say("It is a room.")
    async with programs.serving("simple_chatbot"), talking(user, "simple-chatbot") as thread:
        assert await thread.ask("Hello") == "Hello Ann."
        assert await thread.ask("Where are we?") == "It is a room."


async def test_a_chat_bot_uses_its_own_tool(programs: Programs, user: RoomClient, upstream: ScriptedUpstream) -> None:
    upstream.call_tool("add_task", {"task": "buy bread"}).say("It is on the list.")
    async with programs.serving("chatbot_with_tool"), talking(user, "task-chatbot") as thread:
        assert await thread.ask("We need bread") == "It is on the list."
    first, second = upstream.requests
    assert "add_task" in json.dumps(first.body["tools"])
    [output] = [item for item in second.body["input"] if item.get("type") == "function_call_output"]
    assert "buy bread" in json.dumps(output)


async def test_tools_of_a_host_are_called_from_code(programs: Programs, user: RoomClient) -> None:
    async with programs.serving("units_toolkit"), asyncio.timeout(SECONDS):
        while not await user.agents.list_toolkits():  # noqa: ASYNC110 - asks a server
            await asyncio.sleep(0.02)
        said = [json.loads(line) for line in await programs.run("use_units")]
    assert said[:3] == [
        {"toolkit": "units", "tools": ["to_fahrenheit", "to_miles"]},
        {"miles": 6.214},
        {"text": "68 °F"},
    ]
    assert "kilometres" in said[3]["refused"]


async def test_a_script_keeps_files_and_talks_with_others(programs: Programs, user: RoomClient) -> None:
    heard: asyncio.Queue[RoomMessage] = asyncio.Queue()
    user.messaging.on("message", lambda message: heard.put_nowait(message))  # noqa: PLW0108 - events name their fields
    await user.messaging.enable()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(programs.run("notes"))
        await stack.enter_async_context(asyncio.timeout(SECONDS))
        note = await heard.get()
        assert (note.type, note.message) == ("note", {"path": "notes/today.txt"})
        [writer] = user.messaging.remote_participants
        await until(lambda: writer.get_attribute("state") == "writing")
        await user.messaging.send_message(to=writer, type="read", message={})
        assert (await heard.get()).type == "thanks"
    assert running.result() == [
        "exists: True",
        "files: ['today.txt']",
        "text: Buy bread.",
        "read by: ann",
        "in the room: room notes",
    ]
    assert not await user.storage.exists(path="notes/today.txt")
