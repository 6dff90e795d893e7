"""Rooms that wake for their work, with real processes and kill -9: each job is done once, by one agent of its identity."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from doubles.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SECRET = "a-webhook-secret-of-more-than-32-bytes"
PROGRAM = """
import asyncio
import logging

from meshhost.agents.worker import Worker
from meshhost.api.services import ServiceHost
from meshhost.openai.tools import OpenAIResponsesAdapter

logging.basicConfig(level=logging.INFO)
host = ServiceHost()


@host.path("/worker", identity="worker")
class Jobs(Worker):
    def __init__(self):
        super().__init__(queue="jobs", name="worker", llm_adapter=OpenAIResponsesAdapter())

    async def process_message(self, *, chat_context, room, message, toolkits):
        with open("done.txt", "a") as file:
            file.write(f"{message}\\n")


asyncio.run(host.run())
"""


class Site:
    """A home with a room server that calls one service, and the hosts of that service."""

    def __init__(self, home: Any, ports: list[int], *, linger_seconds: float = 2.0) -> None:
        self.home = home
        self.ports = ports
        directory: Path = home.directory
        (directory / "jobs.py").write_text(PROGRAM)
        (directory / "secret").write_text(SECRET)
        urls = json.dumps([f"http://127.0.0.1:{port}" for port in ports])
        (directory / "meshhost.toml").write_text(
            f"[server]\nlinger_seconds = {linger_seconds}\nresume_seconds = 3.0\n"
            f'[[services]]\nurls = {urls}\nsecret_file = "{directory / "secret"}"\n'
            'paths = [{ path = "/worker", identity = "worker" }]\n'
        )

    @asynccontextmanager
    async def server(self) -> AsyncIterator[Any]:
        file, port = str(self.home.directory / "meshhost.toml"), str(self.home.port)
        async with self.home.meshhost("room", "serve", "--port", port, "--config", file) as server:
            await server.line("room server ready")
            yield server

    @asynccontextmanager
    async def host(self, number: int, *, ledger: bool = False) -> AsyncIterator[Any]:
        before = dict(self.home.environment)
        self.home.environment |= {"MESHHOST_PORT": str(self.ports[number]), "MESHHOST_WEBHOOK_SECRET": SECRET}
        if ledger:
            self.home.environment["MESHHOST_LEDGER"] = str(self.home.directory / f"ledger-{number}.db")
        running = self.home.running("jobs.py")
        try:
            host = await running.__aenter__()
        finally:
            self.home.environment = before
        try:
            await host.line("service host ready")
            yield host
        finally:
            await running.__aexit__(None, None, None)

    async def send(self, job: int) -> None:
        await self.home.cli("queue", "send", "--room=works", "--queue=jobs", "--json", str(job))

    def rewrite(self, change: Callable[[str], str]) -> str:
        """Change the room server's file; returns its new text."""
        file: Path = self.home.directory / "meshhost.toml"
        file.write_text(changed := change(file.read_text()))
        return changed

    async def until_done(self, *jobs: int) -> None:
        async with asyncio.timeout(60):
            while self.done() != list(jobs):  # noqa: ASYNC110 - a file of another process
                await asyncio.sleep(0.1)

    def done(self) -> list[int]:
        file: Path = self.home.directory / "done.txt"
        return sorted(int(line) for line in file.read_text().split()) if file.exists() else []

    async def agents(self, number: int) -> int:
        url = f"http://127.0.0.1:{self.ports[number]}"
        return len(json.loads(await self.home.cli("host", "ps", "--url", url, "--json")))


async def _kill(process: Any) -> None:
    process.signal(signal.SIGKILL)
    await process.exit_code()


@pytest.fixture
def ports() -> list[int]:
    """Two free ports for hosts."""
    return [free_port(), free_port()]


async def test_a_killed_room_server_wakes_rooms_with_work_when_it_is_back(home: Any, ports: list[int]) -> None:
    site = Site(home, ports[:1])
    async with site.server() as server:
        await site.send(1)  # nobody can be called
        await _kill(server)
    async with site.host(0), site.server() as server:
        await site.until_done(1)
        assert await site.agents(0) == 1
        await site.send(2)
        await site.until_done(1, 2)
        await _kill(server)
        async with site.server():
            await site.send(3)
            await site.until_done(1, 2, 3)
            assert await site.agents(0) == 1
    assert site.done() == [1, 2, 3]


async def test_the_services_of_the_file_are_read_again_at_a_hangup(home: Any, ports: list[int]) -> None:
    site = Site(home, ports[:1], linger_seconds=120.0)
    whole = site.rewrite(lambda text: text)
    async with site.host(0), site.server() as server:
        await site.send(1)
        await site.until_done(1)

        site.rewrite(lambda text: text.replace("path =", "pfad ="))
        server.signal(signal.SIGHUP)
        refusal = await server.line("services are not read again: those of before stay")
        assert "meshhost.toml: services.0.paths.0." in refusal
        assert await site.agents(0) == 1

        site.rewrite(lambda _: "[server]\nlinger_seconds = 1.0\n")
        server.signal(signal.SIGHUP)
        await server.line("services are read again")
        assert "server" in await server.line("needs a restart of the room server")
        async with asyncio.timeout(60):
            while await site.agents(0):  # asks another process
                pass

        site.rewrite(lambda _: whole)
        server.signal(signal.SIGHUP)
        await site.send(2)
        await site.until_done(1, 2)
        assert await site.agents(0) == 1


async def test_two_hosts_of_a_service_have_one_agent_whoever_is_killed(home: Any, ports: list[int]) -> None:
    # The room outlives its jobs, so that there is an agent to lose and to bring back.
    site = Site(home, ports, linger_seconds=120.0)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(site.server())
        first = await stack.enter_async_context(site.host(0, ledger=True))
        await stack.enter_async_context(site.host(1))
        await site.send(1)
        await site.until_done(1)
        assert [await site.agents(number) for number in (0, 1)] == [1, 0]

        await _kill(first)
        await site.send(2)
        await site.until_done(1, 2)
        again = await stack.enter_async_context(site.host(0, ledger=True))
        await again.line("agent is not wanted in its room")
        assert [await site.agents(number) for number in (0, 1)] == [0, 1]

        await _kill(server)
        await stack.enter_async_context(site.server())
        for job in (3, 4):
            await site.send(job)
        await site.until_done(1, 2, 3, 4)
        assert sum([await site.agents(number) for number in (0, 1)]) == 1
    assert site.done() == [1, 2, 3, 4]
