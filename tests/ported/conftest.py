"""The MeshAgent command line 0.6.13, pointed at a room server of ours."""

import asyncio
import os
import runpy
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doubles.talking import TalkingPrograms

from meshhost.testing.server import RunningServer, running_server

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
PROGRAMS = ROOT / "tests" / "ported" / "sdk056_programs"
OLDER_PROGRAMS = ROOT / "tests" / "integration" / "sdk_programs"


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


class Cli:
    """Runs `meshagent` in a home of its own."""

    def __init__(self, command: Path, home: Path, server: RunningServer) -> None:
        self.command = command
        self.home = home
        self.project = server.key.project_id
        own = {name: value for name, value in os.environ.items() if not name.startswith(("MESHAGENT_", "MESHHOST_"))}
        self.environment = own | {
            "HOME": str(home),
            "COLUMNS": "400",
            # `service run` runs the `python3` that it finds.
            "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
            "MESHAGENT_API_URL": server.url,
            "MESHAGENT_API_KEY": server.api_key,
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    async def spawn(self, *command: str | Path) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *command, env=self.environment, cwd=self.home, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )

    async def __call__(self, *arguments: str) -> Said:
        """`meshagent` with these arguments, to its end."""
        process = await self.spawn(self.command, *arguments)
        try:
            async with asyncio.timeout(SECONDS):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Said(process.returncode or 0, out.decode(), err.decode())

    async def in_room(self, group: str, command: str, *arguments: str) -> Said:
        """A command about the room `room`."""
        return await self(group, command, "--project-id", self.project, "--room", "room", *arguments)


@pytest.fixture(scope="session")
def meshagent() -> Path:
    """The `meshagent` command; skips where it cannot be had, in CI that is a failure."""
    make: Any = runpy.run_path(str(ROOT / "bench" / "sdk.py"))["sdk_cli"]
    try:
        command = make()
        reason = "the MeshAgent command line needs Python 3.13 (pyenv, or python3.13 on the PATH)"
    except subprocess.SubprocessError as error:
        command, reason = None, f"the MeshAgent command line could not be installed: {error}"
    if isinstance(command, Path):
        return command
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str | None:
    """Where the room server keeps its data: SQLite, unless a test asks for `postgresql` by an indirect parameter."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return None
    return str(request.getfixturevalue("postgres_server").new_database())


@pytest.fixture
async def server(tmp_path: Path, database_url: str | None) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "server", database_url=database_url) as running:
        yield running


@pytest.fixture
def cli(meshagent: Path, tmp_path: Path, server: RunningServer) -> Cli:
    home = tmp_path / "home"
    home.mkdir()
    return Cli(meshagent, home, server)


def made(name: str, what: str) -> Path:
    """What a function of `bench/sdk.py` made; skips where it cannot be made, in CI that is a failure."""
    make: Callable[[], Path | None] = runpy.run_path(str(ROOT / "bench" / "sdk.py"))[name]
    try:
        found, reason = make(), f"needs {what}"
    except subprocess.SubprocessError as error:
        found, reason = None, f"{what}: {error}"
    if found is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def newer_python() -> Path:
    return made("newer_sdk_python", "Python 3.13 with the MeshAgent SDK 0.56")


@pytest.fixture(scope="session")
def node_modules() -> Path:
    return made("javascript_sdk", "Node with the MeshAgent SDK for JavaScript")


@pytest.fixture
def newer(newer_python: Path, tmp_path: Path) -> TalkingPrograms:
    return TalkingPrograms(newer_python, tmp_path, PROGRAMS)


@pytest.fixture
def javascript(node_modules: Path, tmp_path: Path) -> TalkingPrograms:
    return TalkingPrograms("node", tmp_path, PROGRAMS, ending="js", environment={"NODE_PATH": str(node_modules)})


@pytest.fixture
def older(tmp_path: Path) -> TalkingPrograms:
    python = made("sdk_python", "Python 3.13 with the MeshAgent SDK 0.6.13")
    return TalkingPrograms(python, tmp_path, OLDER_PROGRAMS)


@pytest.fixture(scope="session")
def newer_meshagent() -> Path:
    """The `meshagent` command of 0.56."""
    return made("newer_sdk_cli", "Python 3.13 with the MeshAgent command line 0.56")


@pytest.fixture
def newer_cli(newer_meshagent: Path, tmp_path: Path, server: RunningServer) -> Cli:
    home = tmp_path / "newer-home"
    home.mkdir()
    return Cli(newer_meshagent, home, server)
