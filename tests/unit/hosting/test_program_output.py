"""What a program with a host writes to stderr by itself: its log, and what is wrong with it, each in a line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshhost.agents.worker import Worker
from meshhost.errors import SettingsError
from meshhost.hosting.agents.life import _construct
from meshhost.testing.scripted_llm import ScriptedLLM

MADE = """
import asyncio, logging, os, signal
from meshhost.api.services import ServiceHost

class Quiet:
    async def start(self, *, room): ...
    async def stop(self): ...

host = ServiceHost()
host.add_path("/quiet", cls=Quiet)
"""
RUN = """
async def main():
    asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
    await host.run()

asyncio.run(main())
"""


def said(folder: Path, program: str, *arguments: str, **variables: str) -> str:
    file = folder / "main.py"
    file.write_text(program)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MESH")}
    done = subprocess.run(
        [sys.executable, str(file), *arguments],
        env={**kept, "MESHHOST_PORT": "0", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == ""
    return done.stderr


def test_a_host_that_is_run_logs_readable_lines(tmp_path: Path) -> None:
    lines = said(tmp_path, MADE + RUN).splitlines()

    ready = next(line for line in lines if "service host ready" in line)
    assert ready[8:].startswith(" INFO    meshhost.hosting.assembly: service host ready host=127.0.0.1 port=")
    assert any("WARNING meshhost.hosting.calls.guard: no webhook secret" in line for line in lines)


def test_a_host_that_is_run_logs_json_by_a_setting(tmp_path: Path) -> None:
    records = [json.loads(line) for line in said(tmp_path, MADE + RUN, MESHHOST_LOG_FORMAT="json").splitlines()]

    assert {"INFO", "WARNING"} == {record["level"] for record in records}
    assert ["/quiet"] in [record.get("paths") for record in records]


@pytest.mark.parametrize(
    "chosen", ["logging.basicConfig()", "logging.getLogger('meshhost').addHandler(logging.NullHandler())"]
)
def test_a_program_that_configured_logging_keeps_its_own(tmp_path: Path, chosen: str) -> None:
    assert "service host ready" not in said(tmp_path, f"{MADE}\n{chosen}\n{RUN}")


def test_a_program_that_never_runs_its_host_is_told(tmp_path: Path) -> None:
    text = "meshhost: the program ended and never ran its host: end it with asyncio.run(host.run())\n"

    assert said(tmp_path, MADE) == text


def test_nothing_is_said_of_a_host_after_help_or_an_error(tmp_path: Path) -> None:
    assert said(tmp_path, MADE, "--help") == ""
    assert "never ran its host" not in said(tmp_path, MADE + "\nraise ValueError")


class WithoutQueue(Worker):
    def __init__(self) -> None:
        super().__init__(name="w", llm_adapter=ScriptedLLM())  # type: ignore[call-arg]


class WithFault(Worker):
    def __init__(self) -> None:
        super().__init__(queue="q", name="w", llm_adapter=ScriptedLLM())
        len(5)  # type: ignore[arg-type]


def test_a_constructor_without_a_queue_says_the_line_of_the_program() -> None:
    with pytest.raises(
        SettingsError, match=r"^WithoutQueue cannot be made: .*'queue' \(test_program_output\.py, line \d+\)$"
    ):
        _construct(WithoutQueue, None)  # type: ignore[arg-type]


def test_another_fault_in_a_constructor_is_raised_as_it_is() -> None:
    with pytest.raises(TypeError, match="has no len"):
        _construct(WithFault, None)  # type: ignore[arg-type]
