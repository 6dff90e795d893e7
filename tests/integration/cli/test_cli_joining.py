"""`meshhost taskrunner join` and its like as processes: an agent of flags is in the room, and leaves it in order."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from meshhost.cli.main import run
from meshhost.testing.server import RunningServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("chatbot", ("--storage", "--web-search", "--channel", "chat")),
        ("taskrunner", ("--model", "small", "--toolkit", "ui")),
        ("voicebot", ("--model", "small", "--auto-greet-message", "hello", "--storage")),
    ],
)
async def test_an_agent_of_flags_joins_and_leaves(
    server: RunningServer, tmp_path: Path, kind: str, options: tuple[str, ...]
) -> None:
    rules = tmp_path / "rules.txt"
    rules.write_text("be brief\n\nanswer in French, it's nicer\n")
    given = ("--room", "works", "--agent-name", "bo't", "--rule", 'say "hello"', "--rules-file", str(rules), "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "meshhost.cli.main", kind, "join", *given, *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=dict(os.environ),
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            async for line in process.stdout:
                if json.loads(line)["step"] == "joined":
                    break
        [room] = server.server.rooms
        assert [member.name for member in room.connected()] == ["bo't"]
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(40):
            await process.stdout.read()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_another_channel_says_which_command_is_for_it(
    server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code = await asyncio.to_thread(
        run, ("process", "join", "--room", "r", "--agent-name", "a", "--channel", "mail:a@b")
    )
    assert (code, "`meshhost mailbot join`" in capsys.readouterr().err) == (2, True)
    code = await asyncio.to_thread(run, ("process", "join", "--room", "r", "--backend", "codex"))
    assert (code, "--backend: meshhost runs no other programs" in capsys.readouterr().err) == (2, True)
