"""People on the MeshAgent SDK 0.6.13 talk with our chat bot, and ours with the SDK's."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshhost.agents.chat import ChatBot
from meshhost.app.config_file import ServerFile
from meshhost.cli.commands.chat_session import ask_once
from meshhost.testing.scripted_llm import ScriptedLLM, wait_until
from meshhost.testing.server import running_server

# Making the SDK's environment takes a while, once.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(720)]

PROGRAMS = Path(__file__).parent / "sdk_programs"
PATH = "talks/a.thread"


class Program:
    """A program in the SDK's Python; it takes and tells JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.process = process
        self.errors = errors

    async def until(self, **fields: Any) -> dict[str, Any]:
        """The next line that has these members; those before are passed over."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            async for line in self.process.stdout:
                told: dict[str, Any] = json.loads(line)
                if fields.items() <= told.items():
                    return told
        raise AssertionError(f"the program ended:\n{self.errors.read_text()}")

    def tell(self, **order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")


@pytest.fixture
def sdk(sdk_python: Path, tmp_path: Path) -> Any:
    @asynccontextmanager
    async def start(program: str, **given: Any) -> AsyncIterator[Program]:
        errors = tmp_path / f"{program}.log"
        own = {name: value for name, value in os.environ.items() if not name.startswith(("MESHAGENT_", "MESHHOST_"))}
        pipe = asyncio.subprocess.PIPE
        with errors.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sdk_python, PROGRAMS / f"{program}.py", json.dumps(given)),
                stdin=pipe,
                stdout=pipe,
                stderr=stderr,
                env={**own, "PYTHONDONTWRITEBYTECODE": "1"},
                limit=64 * 1024 * 1024,
            )
        try:
            yield Program(process, errors)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    return start


async def test_a_person_on_the_sdk_talks_with_our_bot(sdk: Any, tmp_path: Path) -> None:
    never = wait_until(asyncio.Event())
    llm = ScriptedLLM(["hello", never, "and good bye"])
    async with running_server(tmp_path / "data") as server, server.client("room", name="bot", role="agent") as room:
        bot = ChatBot(name="bot", llm_adapter=llm, auto_greet_message="Welcome!")
        await bot.start(room=room)
        url, token = server.server.room_url("room"), server.token("room", name="sdk")
        async with sdk("chatter", url=url, token=token, path=PATH) as person:
            await person.until(ready=True)
            person.tell(type="opened")
            await person.until(message="chat", body={"path": PATH, "text": "Welcome!"})
            person.tell(type="chat", text="hi")
            await person.until(message="thinking", body={"path": PATH, "thinking": True})
            said = [["bot", "Welcome!"], ["sdk", "hi"], ["bot", "hello"]]
            await person.until(thread=said)
            await person.until(message="thinking", body={"path": PATH, "thinking": False})
            person.tell(type="chat", text="think", attachments=[{"path": "none.txt"}])
            await asyncio.wait_for(never.reached.wait(), 30)
            person.tell(type="cancel")
            said += [["sdk", "think"], ["bot", "(cancelled)"]]
            await person.until(thread=said)
            await person.until(message="thinking", body={"path": PATH, "thinking": False})
            person.tell(type="chat", text="bye")
            await person.until(thread=[*said, ["sdk", "bye"], ["bot", "and good bye"]])
            person.tell(type="get_thread_toolkit_builders")
            await person.until(message="set_thread_tool_providers", body={"path": PATH, "tool_providers": []})
            person.tell(type="clear")
            await person.until(thread=[])
        await bot.stop()
    heard = [message["content"] for message in llm.calls[2].context.conversation]
    assert heard[:4] == ["Welcome!", "hi", "hello", "think"]
    assert heard[-2:] == ["(cancelled)", "bye"]


async def test_our_client_talks_with_a_bot_of_the_sdk_in_the_sdks_host(sdk: Any, tmp_path: Path) -> None:
    async with sdk("chatbot") as host:
        url = f"http://127.0.0.1:{(await host.until())['port']}/chat"
        file = ServerFile.model_validate({"server": {"call_urls": [url]}})
        async with running_server(tmp_path / "data", file=file) as server, server.client("room", name="cli") as user:
            await user.agents.make_call(name="bot", url=url, arguments={})
            await host.until(started="bot")
            answer = await ask_once(user, agent="bot", path=PATH, text="hi", quiet=True)
            assert answer["text"] == "you said hi"
            answer = await ask_once(user, agent="bot", path=PATH, text="ho", quiet=True)
            assert answer["text"] == "you said ho"
