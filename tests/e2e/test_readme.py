"""The README's program and commands, run as they stand there."""

import asyncio
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from meshhost.cli.main import app
from meshhost.testing.scripted_upstream import ScriptedUpstream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[list[str]]:
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


async def test_the_ten_lines_run_with_the_commands_below_them(home: Any) -> None:
    (home.directory / "main.py").write_text(blocks("python")[0])
    setup, service = commands(blocks("bash")[0])
    send, cat = commands(blocks("bash")[1])
    async with ScriptedUpstream() as upstream:
        home.environment |= {"OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": "key"}
        upstream.call_tool("write_file", {"path": "poem.txt", "text": "a poem", "overwrite": False}).say("done")
        await home.cli(*setup[1:])
        async with home.meshhost(*service[1:]) as running:
            await running.line("joined room")
            await home.cli(*send[1:])
            async with asyncio.timeout(30):
                while "poem.txt" not in await home.cli("storage", "ls", "--room=my-room"):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert await home.cli(*cat[1:]) == "a poem"


def test_every_command_the_readme_names_exists(capsys: pytest.CaptureFixture[str]) -> None:
    command = get_command(app)
    line = next(line for line in README.split("\n\n") if line.startswith("`meshhost setup` ·"))
    for words in re.findall(r"`meshhost ([^`]+)`", line):
        group, _, names = words.partition(" ")
        for name in names.split("|"):
            path = [group, *([name] if name else [])]
            command.main([*path, "--help"], prog_name="meshhost", standalone_mode=False)  # raises for an unknown one
            assert f"Usage: meshhost {' '.join(path)}" in capsys.readouterr().out


def test_every_path_the_readme_names_exists() -> None:
    root = Path(__file__).parents[2]
    for path in re.findall(r"`((?:config|agents)/[^`]+)`", README):
        assert (root / path).exists(), path
