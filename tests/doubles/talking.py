"""Programs of other languages or Pythons that take part in rooms: they talk with a test by JSON lines in both directions."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from meshhost.testing.server import RunningServer

LINE_TIMEOUT = 30.0


class TalkingProgram:
    """A program that runs: it takes and tells JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self._process = process
        self._errors = errors

    async def line(self) -> dict[str, Any]:
        """What it tells next."""
        stdout = self._process.stdout
        assert stdout is not None
        async with asyncio.timeout(LINE_TIMEOUT):
            line = b"-"
            while line and not line.startswith(b"{"):  # libraries print, too
                line = await stdout.readline()
        assert line, f"the program ended:\n{self.errors}"
        told: dict[str, Any] = json.loads(line)
        return told

    async def until(self, **fields: Any) -> dict[str, Any]:
        """The next line that has these members; those before are passed over."""
        while True:
            line = await self.line()
            if fields.items() <= line.items():
                return line

    def tell(self, value: Any = True) -> None:
        """Give it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value).encode() + b"\n")

    async def rest(self) -> list[dict[str, Any]]:
        """Give it nothing more; what it told until it ended well."""
        async with asyncio.timeout(LINE_TIMEOUT):
            output, _ = await self._process.communicate(b"")
        assert self._process.returncode == 0, self.errors
        return [json.loads(line) for line in output.splitlines()]

    async def ended(self) -> int:
        """Wait until it ended by itself; its exit code."""
        await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode

    async def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()
        await self._process.communicate()

    @property
    def errors(self) -> str:
        """What it wrote to its error output."""
        return self._errors.read_text()


class TalkingPrograms:
    """Starts programs of a folder with an interpreter; what they write to their error output is kept in `directory`."""

    def __init__(
        self,
        interpreter: Path | str,
        directory: Path,
        folder: Path,
        *,
        ending: str = "py",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._interpreter = interpreter
        self._directory = directory
        self._folder = folder
        self._ending = ending
        self._environment = dict(environment or {})
        self._count = 0

    @asynccontextmanager
    async def run(
        self,
        program: str,
        server: RunningServer | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        **given: Any,
    ) -> AsyncIterator[TalkingProgram]:
        """A running program; its input is `given`, and by default the URL of a room and a token for it."""
        if server is not None:
            given = {"url": server.server.room_url("room"), "token": server.token("room", name="sdk"), **given}
        self._count += 1
        errors = self._directory / f"{program}-{self._count}.log"
        own = {name: value for name, value in os.environ.items() if not name.startswith(("MESHAGENT_", "MESHHOST_"))}
        with errors.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                self._interpreter,
                self._folder / f"{program}.{self._ending}",
                json.dumps(given),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env={**own, "PYTHONDONTWRITEBYTECODE": "1", **self._environment, **(environment or {})},
                limit=64 * 1024 * 1024,
            )
        running = TalkingProgram(process, errors)
        try:
            yield running
        finally:
            if process.returncode is None:
                await running.kill()

    async def lines(self, program: str, server: RunningServer, **given: Any) -> dict[str, Any]:
        """All that a program tells until it ends, as one object."""
        async with self.run(program, server, **given) as running:
            return {name: value for line in await running.rest() for name, value in line.items()}
