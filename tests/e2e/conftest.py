"""Real processes in a home of their own: room server, service run, commands."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from doubles.ports import free_port

_PREFIXES = ("MESHHOST_", "MESHAGENT_", "OPENAI_", "OTEL_")
_SECONDS = 60
_REPOSITORY = Path(__file__).parents[2]


class Running:
    """A process whose output is collected line by line, and may be waited for."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._came = asyncio.Condition()
        self._readers = [
            asyncio.get_running_loop().create_task(self._read(stream))
            for stream in (process.stdout, process.stderr)
            if stream is not None
        ]

    async def line(self, part: str, *, after: int = 0) -> str:
        """The first line (from the index `after` on) that contains `part`."""
        async with asyncio.timeout(_SECONDS), self._came:
            while True:
                found = next((line for line in self.lines[after:] if part in line), None)
                if found is not None:
                    return found
                if all(reader.done() for reader in self._readers):
                    raise AssertionError(f"ended without {part!r}:\n" + "\n".join(self.lines))
                await self._came.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def exit_code(self) -> int:
        async with asyncio.timeout(_SECONDS):
            return await self.process.wait()

    async def end(self) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        await asyncio.wait(self._readers, timeout=5)
        for reader in self._readers:
            reader.cancel()

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            async with self._came:
                self.lines.append(line.decode(errors="replace").rstrip())
                self._came.notify_all()
        async with self._came:
            self._came.notify_all()


class Home:
    """A user's machine: configuration, data and environment of their own, one room server address."""

    def __init__(self, directory: Path, *, python: str = sys.executable) -> None:
        self.directory = directory
        self.python = python
        self.port = free_port()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIXES)}
        self.environment = inherited | {
            "MESHHOST_API_URL": f"http://127.0.0.1:{self.port}",
            "MESHHOST_CONFIG_DIR": str(directory / "config"),
            "MESHHOST_DATA_DIR": str(directory / "data"),
            "WORKER_QUEUE": "test",
        }

    async def spawn(self, *command: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            self.python, *command, env=self.environment, cwd=self.directory, stdout=pipe, stderr=pipe
        )

    @asynccontextmanager
    async def running(self, *command: str) -> AsyncIterator[Running]:
        running = Running(await self.spawn(*command))
        try:
            yield running
        finally:
            await running.end()

    def meshhost(self, *arguments: str) -> contextlib.AbstractAsyncContextManager[Running]:
        return self.running("-m", "meshhost.cli.main", *arguments)

    @asynccontextmanager
    async def room_server(self) -> AsyncIterator[Running]:
        async with self.meshhost("room", "serve", "--port", str(self.port)) as server:
            await server.line("room server ready")
            yield server

    @asynccontextmanager
    async def service(self, program: str = "main.py", *, room: str = "queue-test") -> AsyncIterator[Running]:
        async with self.meshhost("service", "run", program, f"--room={room}") as service:
            await service.line("joined room")
            yield service

    async def run(self, *command: str) -> str:
        """The output of a program that must succeed."""
        process = await self.spawn(*command)
        async with asyncio.timeout(_SECONDS):
            output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode()

    async def cli(self, *arguments: str) -> str:
        """The output of a meshhost command that must succeed."""
        return await self.run("-m", "meshhost.cli.main", *arguments)

    async def send(self, instructions: str = "save a poem about ai to poem.txt") -> str:
        message = json.dumps({"instructions": instructions})
        return await self.cli("queue", "send", "--room=queue-test", "--queue=test", "--json", message)

    async def depth(self) -> dict[str, Any]:
        queues: list[dict[str, Any]] = json.loads(await self.cli("queue", "list", "--room=queue-test", "--json"))
        return next((queue for queue in queues if queue["name"] == "test"), {})

    async def until_settled(self) -> dict[str, Any]:
        """Ask until nothing is ready, leased or waiting in the queue; returns what the queue holds then."""
        async with asyncio.timeout(_SECONDS):
            while True:
                depth = await self.depth()
                if not (depth["ready"] or depth["leased"] or depth["delayed"]):
                    return depth

    async def file(self, path: str) -> str:
        return await self.cli("storage", "cat", "--room=queue-test", path)

    def copy_example(self) -> None:
        """The example's programs, as a user has them in a folder of their own."""
        for name in ("main.py", "push_queue.py"):
            source = _REPOSITORY / "agents" / "storage_worker" / name
            (self.directory / name).write_text(source.read_text())


@pytest.fixture
def database_url() -> str | None:
    """Where a home keeps its data; None: in files of its own. A module that runs on several engines overrides this."""
    return None


@pytest.fixture
async def home(tmp_path: Path, database_url: str | None) -> Home:
    made = Home(tmp_path)
    made.copy_example()
    if database_url is not None:
        made.environment["MESHHOST_DATABASE_URL"] = database_url
    made.environment["MESHHOST_API_KEY"] = json.loads(await made.cli("setup", "--json"))["api_key"]
    return made


@pytest.fixture
def home_with() -> Callable[[Path, str], Home]:
    """Makes a home whose programs run under another interpreter."""
    return lambda directory, python: Home(directory, python=python)
