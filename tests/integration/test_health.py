"""What a host answers about its health while it starts, works, and is held; with real sockets and processes."""

import asyncio
import json
import logging
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from doubles.ports import free_port

from meshhost.app.service_runner import run_service
from meshhost.errors import SettingsError, StorageFullError
from meshhost.hosting.agents.current import acting_for
from meshhost.hosting.processes.options import ProcessOptions, Program
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.tenant import AgentKey, RoomKey, TenantId
from meshhost.identity.webhooks import webhook_body
from meshhost.logs import log_context
from meshhost.stores.disk import space as disk_space
from meshhost.supervision.policy import RestartPolicy
from meshhost.supervision.state import State
from meshhost.testing.agents import QuietAgent
from meshhost.testing.server import RunningServer, running_server

linux = pytest.mark.skipif(sys.platform != "linux", reason="isolation 'process' needs Linux")


def ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """From any thread; no event loop is needed."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


@dataclass
class Hosted:
    """A host, and how it is asked."""

    host: ServiceHost
    server: RunningServer
    http: aiohttp.ClientSession

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        async with self.http.get(f"http://127.0.0.1:{self.host.port}{path}") as response:
            return response.status, await response.json()

    async def call(self, path: str, identity: str = "agent") -> tuple[int, dict[str, Any], str | None]:
        data = {
            "room_name": "room",
            "room_url": self.server.server.room_url("room"),
            "token": self.server.token("room", name=identity, role="agent"),
        }
        url = f"http://127.0.0.1:{self.host.port}{path}"
        async with self.http.post(url, data=webhook_body("room.call", data)) as response:
            return response.status, await response.json(), response.headers.get("Retry-After")

    async def until(self, path: str, wanted: Callable[[dict[str, Any]], bool]) -> tuple[int, dict[str, Any]]:
        """What is answered once it is as wanted: a process is no event of this one."""
        async with asyncio.timeout(20):
            while not wanted((answer := await self.get(path))[1]):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
        return answer


Serve = Callable[..., Awaitable[Hosted]]


@pytest.fixture
async def serve(server: RunningServer, http: aiohttp.ClientSession) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def make(host: ServiceHost) -> Hosted:
            await host.start()
            stack.push_async_callback(host.stop)
            return Hosted(host, server, http)

        yield make


def a_host(server: RunningServer, **options: Any) -> ServiceHost:
    host = ServiceHost(port=0, webhook_secret="", allowed_room_urls=[server.url], drain_seconds=1.0, **options)
    host.add_path("/task", cls=QuietAgent, restart=RestartPolicy(kind="temporary"))
    return host


# The health port


async def test_a_held_loop_is_told_with_its_agent_and_a_stop_leaves_nothing(
    server: RunningServer, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MESHHOST_BLOCK_SECONDS", "0.1")
    monkeypatch.setenv("MESHHOST_LIVE_SECONDS", "0.4")
    port = free_port()
    hosted = await serve(a_host(server, health_port=port))
    ready = await hosted.until("/readyz", lambda body: body["ok"])
    assert ready == (200, {"ok": True})
    assert (await asyncio.to_thread(ask, port, "/livez"))[0] == 200

    seen: list[tuple[int, dict[str, Any]]] = []
    over = threading.Event()

    def look() -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end and (not seen or seen[-1][0] == 200):
            seen.append(ask(port, "/livez"))
        seen.append(ask(port, "/readyz"))
        over.set()

    looking = threading.Thread(target=look)
    key = AgentKey(RoomKey(TenantId("secret-tenant"), "secret-room"), "/task", "secret-agent")
    with acting_for(key), log_context(**key.log_fields()):

        async def hold() -> None:
            looking.start()
            over.wait(20)  # the loop stands still until the thread has seen what it wants

        async with asyncio.TaskGroup() as group:
            group.create_task(hold(), name="secret-task")
    looking.join()

    alive = [body for status, body in seen if status == 200]
    assert alive[0]["ok"] is True
    assert any(body.get("block", {}).get("agent") == "/task" for body in alive)  # before it was too long
    status, dead = seen[-2]
    assert (status, dead["ok"], dead["reason"], dead["agent"]) == (503, False, "event loop blocked", "/task")
    assert dead["seconds"] >= 0.4
    assert dead.keys() == {"ok", "reason", "seconds", "agent"}
    assert seen[-1][0] == 503
    assert seen[-1][1]["reason"] == "event loop blocked"
    assert "secret" not in str(seen)
    told = [record for record in caplog.records if record.getMessage() == "event loop is blocked"]
    assert [record.__dict__["path"] for record in told if "over.wait(20)" in record.__dict__["stack"]] == ["/task"]

    status, live = await hosted.until("/livez", lambda body: body.get("last_block", {}).get("path") == "/task")
    assert (status, live["ok"]) == (200, True)
    await hosted.host.stop()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("meshhost health")]


async def test_readyz_of_the_health_port_is_that_of_the_loop(server: RunningServer, serve: Serve) -> None:
    port = free_port()
    hosted = await serve(a_host(server, health_port=port, max_agents=1))
    assert (await hosted.call("/task"))[0] == 200
    answer: tuple[int, dict[str, Any]] = (200, {})
    async with asyncio.timeout(10):
        while answer[1].get("reasons") != ["full"]:
            answer = await asyncio.to_thread(ask, port, "/readyz")
    assert (answer[0], answer[1]["reason"], answer[1]["load"]["agents"]) == (503, "full", 1.0)


async def test_a_health_port_in_use_ends_the_start_and_leaves_nothing(server: RunningServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        host = a_host(server, health_port=taken.getsockname()[1])
        with pytest.raises(
            SettingsError, match=r"cannot listen on 127\.0\.0\.1:\d+ for health: Address already in use"
        ):
            await host.start()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", host.port)) != 0


async def test_a_host_whose_own_port_is_taken_listens_for_no_health(server: RunningServer) -> None:
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        host = a_host(server, health_port=port)
        host.tune(port=taken.getsockname()[1])
        with pytest.raises(SettingsError, match="choose another port"):
            await host.start()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


# A start that waits for processes

WAITING = """
import asyncio, os, time
from pathlib import Path
from meshhost.hosting.service_host import ServiceHost
from meshhost.testing.agents import QuietAgent

HERE = Path(__file__).parent
host = ServiceHost()

@host.path("/process", isolation="process")
class Agent(QuietAgent):
    pass

@host.prewarm
def weights():
    while not (HERE / "go").exists():
        if (HERE / "broken").exists():
            raise ImportError("the weights are\\nsecret-stack gone")
        time.sleep(0.01)

asyncio.run(host.run())
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program" / "main.py"
    path.parent.mkdir()
    path.write_text(WAITING)
    return path


def a_host_with_processes(server: RunningServer, program: Path, **options: Any) -> ServiceHost:
    pool = ProcessOptions(size=1, program=Program(str(program), is_module=False))
    host = a_host(server, process_pool=pool, **options)
    host.add_path("/process", cls=QuietAgent, isolation="process")
    return host


@linux
@pytest.mark.slow
async def test_a_host_whose_processes_are_not_up_says_so_and_serves_tasks(
    server: RunningServer,
    serve: Serve,
    program: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MESHHOST_START_SECONDS", "0.2")
    caplog.set_level(logging.INFO)
    host = a_host_with_processes(server, program)
    assert host.parts.http.readiness().body["reasons"] == ["starting"]
    hosted = await serve(host)
    status, body = await hosted.get("/readyz")
    assert (status, body["ok"], body["reason"]) == (503, False, "process pool starting")
    assert body["reasons"] == body["missing"] == ["process pool starting"]
    assert (await hosted.call("/process")) == (
        503,
        {"error": "this host is not ready: process pool starting"},
        "5",
    )
    status, started, _ = await hosted.call("/task")
    spawn = host.parts.supervisor.find(started["spawn_id"])
    assert status == 200
    assert spawn is not None
    async with asyncio.timeout(10):
        await spawn.wait_state(State.RUNNING)

    (program.parent / "broken").touch()
    status, body = await hosted.until("/readyz", lambda body: body["reason"] != "process pool starting")
    assert (status, body["reason"]) == (503, "process pool: ImportError: the weights are")
    assert (await hosted.call("/process"))[1] == {
        "error": "this host is not ready: process pool: ImportError: the weights are"
    }
    (program.parent / "broken").unlink()
    (program.parent / "go").touch()
    assert (await hosted.until("/readyz", lambda body: body["ok"]))[0] == 200
    status, started, _ = await hosted.call("/process")
    spawn = host.parts.supervisor.find(started["spawn_id"])
    assert spawn is not None
    async with asyncio.timeout(10):
        await spawn.wait_state(State.RUNNING)

    sentences = [record.getMessage() for record in caplog.records]
    late = [record for record in caplog.records if record.getMessage() == "host is not ready yet"]
    assert late[0].levelno == logging.ERROR
    assert late[0].missing[0].startswith("process pool")
    assert late[0].waited_seconds >= 0.2
    assert sentences.index("service host listens, not ready yet") < sentences.index("service host ready")


@linux
@pytest.mark.slow
async def test_agents_of_the_ledger_wait_for_their_process_and_are_not_lost(
    server: RunningServer, serve: Serve, program: Path, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.db"
    (program.parent / "go").touch()
    first = await serve(a_host_with_processes(server, program, ledger=ledger))
    await first.until("/readyz", lambda body: body["ok"])
    for path, identity in (("/process", "a"), ("/task", "b")):
        assert (await first.call(path, identity))[0] == 200
    await first.host.stop()
    (program.parent / "go").unlink()

    second = await serve(a_host_with_processes(server, program, ledger=ledger))
    assert [agent.key.path for agent in second.host.agents] == ["/task"]
    await second.host.stop()  # before the process was up: both are to come again

    (program.parent / "go").touch()
    third = await serve(a_host_with_processes(server, program, ledger=ledger))
    async with asyncio.timeout(20):
        while len(third.host.agents) < 2:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
        for spawn in third.host.agents:
            await spawn.wait_state(State.RUNNING)


@linux
@pytest.mark.slow
async def test_a_host_that_stops_while_it_waits_leaves_no_process(
    server: RunningServer, serve: Serve, program: Path
) -> None:
    hosted = await serve(a_host_with_processes(server, program))
    async with asyncio.timeout(10):
        await hosted.host.stop()
    assert not psutil.Process().children(recursive=True)
    assert hosted.host.parts.http.readiness().body["reasons"][0] == "draining"


@linux
@pytest.mark.slow
async def test_who_runs_a_service_is_told_what_it_waits_for(
    server: RunningServer, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (program.parent / "broken").touch()
    monkeypatch.setenv("MESHHOST_API_URL", server.url)
    monkeypatch.setenv("MESHHOST_API_KEY", server.api_key)
    monkeypatch.setenv("MESHHOST_START_SECONDS", "5")
    steps: list[tuple[str, str]] = []
    with pytest.raises(
        SettingsError, match="the host was not ready within 5 s: process pool: ImportError: the weights"
    ):
        async with asyncio.timeout(60):
            await run_service(str(program), room="room", progress=lambda step, text, _: steps.append((step, text)))
    assert ("waiting", "the host is not ready: process pool: ImportError: the weights are") in steps


async def test_a_full_disk_is_told_by_readyz_metrics_and_the_error(
    server: RunningServer, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get(path: str) -> tuple[int, str]:
        async with http.get(server.url + path) as response:
            return response.status, await response.text()

    async with server.client() as room:
        await room.queues.send(name="q", message=1)
        assert (await get("/readyz"))[0] == 200
        monkeypatch.setattr(disk_space, "_LEAST_BYTES", 2**62)
        monkeypatch.setattr(disk_space, "_RESERVE_BYTES", 2**62)
        await asyncio.sleep(0.3)  # the answer before is kept for a moment
        with pytest.raises(StorageFullError, match="storage full"):
            await room.queues.send(name="q", message=2)
        async with asyncio.timeout(10):
            while (answer := await get("/readyz"))[0] == 200:  # noqa: ASYNC110 - its last answer is kept for a moment
                await asyncio.sleep(0.05)
        assert (answer[0], json.loads(answer[1])["reason"].split(":")[0]) == (503, "storage full")
        leased = await room.queues.lease(name="q")
        assert leased is not None
        await leased.ack()
        metrics = (await get("/metrics"))[1]
        assert 'meshhost_room_requests_total{outcome="failed",type="queues.send"} 1.0' in metrics
        assert 'meshhost_room_requests_total{outcome="accepted",type="queues.send"} 1.0' in metrics
        monkeypatch.undo()
        await asyncio.sleep(0.3)  # the answer before is kept for a moment
        await room.queues.send(name="q", message=2)
