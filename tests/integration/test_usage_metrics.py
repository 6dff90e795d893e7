"""The work of real workers, in a task and in a process, as their host's /metrics shows it."""

import asyncio
import importlib.util
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from meshhost.hosting.processes.options import ProcessOptions, Program
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.webhooks import webhook_body
from meshhost.room.client import RoomClient
from meshhost.supervision.policy import RestartPolicy
from meshhost.testing.server import RunningServer, running_server

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="isolation 'process' needs Linux")
ISOLATIONS = ["task", pytest.param("process", marks=[pytest.mark.slow, needs_linux])]
PROGRAM = Path(__file__).parents[1] / "isolation_programs" / "counted.py"


def _class() -> Any:
    spec = importlib.util.spec_from_file_location("counted", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CountedWorker


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "data") as running:
        yield running


@dataclass
class Hosted:
    host: ServiceHost
    server: RunningServer
    http: aiohttp.ClientSession

    async def call(self) -> Any:
        token = self.server.token("room", name="worker", role="agent")
        url = self.server.server.room_url("room")
        body = webhook_body("room.call", {"room_name": "room", "room_url": url, "token": token, "arguments": {}})
        async with self.http.post(f"http://127.0.0.1:{self.host.port}/CountedWorker", data=body) as response:
            return response.status, await response.json()

    async def numbers(self) -> dict[str, float]:
        """Each series by its name and the values of its labels, without path and tenant."""
        async with self.http.get(f"http://127.0.0.1:{self.host.port}/metrics") as response:
            text = await response.text()
        found = {}
        for line in text.splitlines():
            if line[:1] != "#":
                series, _, value = line.rpartition(" ")
                name, _, labels = series.partition("{")
                rest = re.findall(r'(?:outcome|kind|le|status)="([^"]*)"', labels)
                found[" ".join([name, *rest])] = float(value)
        return found

    async def shows(self, **expected: float) -> dict[str, float]:
        """The numbers once these are among them."""
        async with asyncio.timeout(15):
            while True:
                numbers = await self.numbers()
                if all(numbers.get(name.replace("__", " ")) == value for name, value in expected.items()):
                    return numbers
                await asyncio.sleep(0.02)  # a scrape is a question: nothing tells when the answer changes


async def nothing_waits(room: RoomClient) -> None:
    """Return when each message of the queue is settled."""
    async with asyncio.timeout(15):
        while True:
            [queue] = await room.queues.list()
            if not queue.ready and not queue.leased:
                return
            await asyncio.sleep(0.02)  # no event tells of a settled message


@asynccontextmanager
async def hosting(server: RunningServer, isolation: str, *, look_seconds: float = 0.1) -> AsyncIterator[Hosted]:
    program = Program(str(PROGRAM), is_module=False)
    options = ProcessOptions(size=0, program=program, look_seconds=look_seconds)
    host = ServiceHost(port=0, webhook_secret="", allowed_room_urls=[server.url], process_pool=options)
    host.add_path("/CountedWorker", cls=_class(), isolation=isolation, restart=RestartPolicy(kind="temporary"))
    await host.start()
    async with aiohttp.ClientSession() as http:
        try:
            yield Hosted(host, server, http)
        finally:
            await host.stop()


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_a_host_shows_what_its_workers_did(server: RunningServer, isolation: str) -> None:
    async with hosting(server, isolation) as hosted, server.client("room") as room:
        await room.queues.send(name="jobs", message="hello")
        assert (await hosted.call())[0] == 200
        numbers = await hosted.shows(meshhost_messages_total__done=1, meshhost_llm_tokens_total__input=70)
        assert numbers["meshhost_llm_tokens_total output"] == 7
        assert numbers["meshhost_message_wait_seconds_count"] == numbers["meshhost_message_work_seconds_count"] == 1
        # It was sent before the worker was called.
        assert 0 < numbers["meshhost_message_wait_seconds_sum"] < 30
        assert numbers["meshhost_tenant_messages_total done"] == numbers["meshhost_tenant_calls_total 200"] == 1
        assert numbers["meshhost_tenant_llm_tokens_total input"] == 70
        assert numbers["meshhost_tenant_agents"] == 1

        # The process reports about once a second: a retry must not come within.
        await room.queues.configure("jobs", retry_seconds=1000)
        await room.queues.send(name="jobs", message="fail")
        numbers = await hosted.shows(meshhost_messages_total__failed=1)
        assert numbers["meshhost_messages_total done"] == 1


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_what_a_worker_did_up_to_its_end_is_counted(server: RunningServer, isolation: str) -> None:
    # The process is never pinged, so only its last message can report the usage.
    async with hosting(server, isolation, look_seconds=600.0) as hosted, server.client("room") as room:
        assert (await hosted.call())[0] == 200
        await room.queues.send(name="jobs", message="hello")
        await nothing_waits(room)
        [agent] = hosted.host.agents
        await hosted.host.parts.supervisor.stop(agent)
        numbers = await hosted.shows(meshhost_messages_total__done=1)
        assert numbers["meshhost_llm_tokens_total input"] == 70
        assert "meshhost_tenant_agents" not in numbers


@pytest.mark.slow
@needs_linux
async def test_of_a_killed_process_what_it_told_before_stays_counted(server: RunningServer) -> None:
    async with hosting(server, "process") as hosted, server.client("room") as room:
        await hosted.call()
        await room.queues.send(name="jobs", message="tokens only")
        await hosted.shows(meshhost_llm_tokens_total__input=1000)
        [process] = hosted.host.parts.pool.running
        os.kill(process.pid, signal.SIGKILL)
        numbers = await hosted.shows(meshhost_tenant_crashes_total=1)
        assert numbers["meshhost_llm_tokens_total input"] == 1000
        assert numbers["meshhost_messages_total done"] == 0


async def test_a_refused_caller_gives_no_tenant_a_label(server: RunningServer) -> None:
    host = ServiceHost(port=0, webhook_secret="theirs", allowed_room_urls=[server.url])
    host.add_path("/CountedWorker", cls=_class())
    await host.start()
    try:
        async with aiohttp.ClientSession() as http:
            hosted = Hosted(host, server, http)
            assert (await hosted.call())[0] == 401
            numbers = await hosted.numbers()
    finally:
        await host.stop()
    assert numbers["meshhost_calls_total 401"] == 1
    assert not [name for name in numbers if name.startswith("meshhost_tenant_calls")]
