"""The README, the tutorial and what else can be run of the documentation, run as it stands there; and its build."""

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from doubles.ports import free_port
from page_reader.blocks import ROOT, steps_of, steps_under
from page_reader.runner import Reader, path_with_our_commands

from meshhost.testing.scripted_upstream import ScriptedUpstream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def shell(tmp_path: Path, home_with: Callable[[Path, str], Any]) -> Any:
    """A home in which commands are run by a shell, as a reader types them; without a project yet."""
    home = home_with(tmp_path, "/bin/sh")
    del home.environment["WORKER_QUEUE"]
    home.environment |= {"PATH": path_with_our_commands(os.environ["PATH"]), "PYTHONUNBUFFERED": "1"}
    return home


@asynccontextmanager
async def reading(shell: Any) -> AsyncIterator[tuple[Reader, ScriptedUpstream]]:
    """A reader, and the model that its programs use."""
    async with ScriptedUpstream() as upstream, AsyncExitStack() as stack:
        shell.environment |= {"OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": "key"}
        yield Reader(shell, stack, ports={"8080": str(shell.port), "8081": str(free_port())}), upstream


def test_the_programs_of_the_first_pages_are_typed(tmp_path: Path) -> None:
    """They are what users begin with, and some begin with `mypy --strict`."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for page in (ROOT / "README.md", ROOT / "docs" / "tutorial.md", ROOT / "docs" / "how-to" / "run.md"):
        for number, step in enumerate(step for step in steps_of(page) if step.language == "python"):
            (folder / f"{page.stem.lower()}_{number}.py").write_text(step.text)
    programs = sorted(str(file) for file in folder.iterdir())
    assert len(programs) == 4

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path / "cache"), *programs],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def write(upstream: ScriptedUpstream, path: str, text: str) -> None:
    """The model's next two answers: it writes this file, and is done."""
    upstream.call_tool("write_file", {"path": path, "text": text, "overwrite": False}).say("done")


async def test_the_readme_does_what_it_says(shell: Any) -> None:
    async with reading(shell) as (reader, upstream):
        write(upstream, "poem.txt", "a poem")
        await reader.follow(steps_of(ROOT / "README.md"))
        assert len(upstream.requests) == 2


async def test_the_tutorial_does_what_it_says(shell: Any) -> None:
    names = ("Ada", "everybody", "Grace")
    async with reading(shell) as (reader, upstream):
        for name in names:
            write(upstream, f"{name}.txt", f"Dear {name}, all is well.")
        await reader.follow(steps_of(ROOT / "docs" / "tutorial.md"))
        asked = [str(request.body["input"]) for request in upstream.requests[::2]]
        assert [f"a letter to {name}" in text for name, text in zip(names, asked, strict=True)] == [True] * 3


async def test_the_page_about_testing_has_a_test_that_passes(shell: Any) -> None:
    async with reading(shell) as (reader, _):
        await reader.follow(steps_of(ROOT / "docs" / "how-to" / "test-your-agents.md"))


async def test_the_page_about_agents_has_workers_without_a_model_and_a_chat_bot_that_work(shell: Any) -> None:
    page = ROOT / "docs" / "how-to" / "write-an-agent.md"
    async with reading(shell) as (reader, upstream):
        await shell.run("-c", "meshhost setup")
        await reader.follow(steps_under(page, "A worker without a model"))
        await reader.follow(steps_under(page, "A function is enough"))
        assert upstream.requests == []
        upstream.say("Hello!")
        await reader.follow(steps_under(page, "A chat bot"))


async def test_the_page_about_tools_has_a_toolkit_that_can_be_called(shell: Any) -> None:
    async with reading(shell) as (reader, _):
        await shell.run("-c", "meshhost setup")
        await reader.follow(steps_under(ROOT / "docs" / "how-to" / "write-a-tool.md", "Offer it"))


async def test_the_page_about_tools_makes_them_of_functions(shell: Any) -> None:
    async with reading(shell) as (reader, _):
        await shell.run("-c", "meshhost setup")
        await reader.follow(steps_under(ROOT / "docs" / "how-to" / "write-a-tool.md", "Write a function"))


async def test_the_page_about_sending_work_sends_and_follows_it(shell: Any) -> None:
    async with reading(shell) as (reader, upstream):
        await shell.run("-c", "meshhost setup")
        await reader.follow(steps_of(ROOT / "docs" / "how-to" / "send-work.md"))
        assert upstream.requests == []


async def test_the_page_about_backups_copies_what_a_running_server_keeps_and_puts_it_back(home: Any) -> None:
    page = (ROOT / "docs" / "how-to" / "back-up.md").read_text()
    back_up, restore = "meshhost db backup backup-$(date +%F).tar", "meshhost db restore backup-2026-11-30.tar"
    assert back_up in page
    assert restore in page
    async with home.room_server():
        await home.send()
        await home.cli("db", "backup", "backup.tar")
        await home.send("after the backup")
    home.environment["MESHHOST_DATA_DIR"] = str(home.directory / "restored")
    await home.cli("db", "restore", "backup.tar")
    async with home.room_server():
        assert (await home.depth())["ready"] == 1


def test_the_documentation_builds_without_a_warning_and_without_the_network(tmp_path: Path) -> None:
    # Whatever would be fetched goes to an address where nobody listens.
    environment = os.environ | dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = "".join(page.read_text() for page in tmp_path.rglob("*.html"))
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"?https?:", pages)
