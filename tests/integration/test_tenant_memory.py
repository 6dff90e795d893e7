"""Tenants that share a host's memory: real processes, one of which eats too much."""

import asyncio
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from meshhost.hosting.processes.options import ProcessOptions, Program
from meshhost.hosting.service_host import ServiceHost
from meshhost.hosting.tenants.quotas import TenantQuota
from meshhost.identity.keys import new_api_key
from meshhost.identity.webhooks import webhook_body
from meshhost.supervision.agent import SupervisedAgent
from meshhost.supervision.policy import RestartPolicy
from meshhost.supervision.state import State
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="isolation 'process' needs Linux")]

PROGRAMS = Path(__file__).parents[1] / "isolation_programs"
ACME = "aaaaaaaa-1111-2222-3333-444444444444"
OTHER = "bbbbbbbb-1111-2222-3333-444444444444"
QUOTA_MB = 320


def _misbehaving() -> Any:
    spec = importlib.util.spec_from_file_location("misbehaving", PROGRAMS / "misbehaving.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


misbehaving = _misbehaving()


async def soon(awaitable: Any, seconds: float = 15.0) -> Any:
    async with asyncio.timeout(seconds):
        return await awaitable


async def until(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    """Wait for what no event tells of: the state of other processes."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.02)


@dataclass
class Hosted:
    host: ServiceHost
    http: aiohttp.ClientSession

    async def call(self, server: RunningServer, cls: type, identity: str = "agent") -> tuple[int, Any, Any]:
        data = {
            "room_name": "room",
            "room_url": server.server.room_url("room"),
            "token": server.token("room", name=identity, role="agent"),
        }
        url = f"http://127.0.0.1:{self.host.port}/{cls.__name__}"
        async with self.http.post(url, data=webhook_body("room.call", data)) as response:
            return response.status, await response.json(), response.headers

    async def called(self, server: RunningServer, cls: type, identity: str = "agent") -> SupervisedAgent:
        status, answer, _ = await self.call(server, cls, identity)
        assert status == 200, answer
        spawn = self.host.parts.supervisor.find(answer["spawn_id"])
        assert spawn is not None
        return spawn

    async def text(self, path: str) -> str:
        async with self.http.get(f"http://127.0.0.1:{self.host.port}{path}") as response:
            return await response.text()

    async def tenant(self, name: str) -> Any:
        tenants = json.loads(await self.text("/tenants"))["tenants"]
        return next(one for one in tenants if one["tenant"] == name)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("MESHHOST_", "MESHAGENT_")):
            monkeypatch.delenv(name)


@pytest.fixture
async def acme(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "acme", key=new_api_key(ACME)) as running:
        yield running


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "other", key=new_api_key(OTHER)) as running:
        yield running


@pytest.fixture
async def hosted(acme: RunningServer, other: RunningServer) -> AsyncIterator[Hosted]:
    host = ServiceHost(
        port=0,
        webhook_secret="",
        allowed_room_urls=[acme.url, other.url],
        drain_seconds=3.0,
        process_pool=ProcessOptions(
            size=0,
            program=Program(str(PROGRAMS / "main.py"), is_module=False),
            look_seconds=0.1,
            abort_seconds=0.5,
        ),
        quotas={ACME: TenantQuota(memory_mb=QUOTA_MB)},
    )
    for cls, kind in ((misbehaving.Normal, "permanent"), (misbehaving.EatsMemory, "temporary")):
        restart = RestartPolicy(kind=kind, first_delay=0.0, max_delay=0.0)  # type: ignore[arg-type]
        host.add_path(f"/{cls.__name__}", cls=cls, isolation="process", restart=restart)
    await host.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield Hosted(host, http)
    finally:
        await host.stop()


async def answers(server: RunningServer, identity: str) -> int:
    """The process id of a Normal agent, as it tells it."""
    answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def take(message: Any) -> None:
        if message.type == "!" and not answered.done():
            answered.set_result(message.message["pid"])

    async with server.client(name="asks") as room:
        room.messaging.on("message", take)
        await room.messaging.enable()

        def found() -> Any:
            there = room.messaging.remote_participants
            return next((one for one in there if one.get_attribute("name") == identity), None)

        await until(lambda: found() is not None, f"{identity} is in the room")
        await room.messaging.send_message(to=found(), type="?", message={})
        return int(await soon(answered))


async def test_an_agent_that_outgrows_its_tenants_memory_is_ended_and_nobody_else(
    hosted: Hosted, acme: RunningServer, other: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    neighbour = await hosted.called(other, misbehaving.Normal, "neighbour")
    small = await hosted.called(acme, misbehaving.Normal, "small")
    for spawn in (neighbour, small):
        await soon(spawn.wait_state(State.RUNNING))
    eater = await hosted.called(acme, misbehaving.EatsMemory)
    await soon(eater.wait_state(State.FAILED))

    assert eater.last_error is not None
    assert eater.last_error.text.startswith("the agent's tenant was over its memory quota, not the agent over a limit")
    assert f"of {QUOTA_MB} MB" in eater.last_error.text
    assert {(spawn.state, spawn.restarts) for spawn in (neighbour, small)} == {(State.RUNNING, 0)}
    assert await answers(other, "neighbour") != await answers(acme, "small")
    [over] = [record for record in caplog.records if record.msg == "tenant is over its memory quota"]
    assert (over.tenant, over.allowed_mb, over.biggest.split()[0]) == (ACME, QUOTA_MB, eater.id)
    assert len([record for record in caplog.records if record.msg == "tenant is near its memory quota"]) <= 1
    await until(lambda: hosted.host.parts.tenancy.memory.over == 0, "the memory is back")
    assert "meshhost_tenants_over_memory 0.0" in await hosted.text("/metrics")


async def test_calls_and_restarts_of_a_tenant_get_no_process_that_does_not_fit(
    hosted: Hosted, acme: RunningServer, other: RunningServer
) -> None:
    await soon((await hosted.called(other, misbehaving.Normal)).wait_state(State.RUNNING))
    memory = hosted.host.parts.tenancy.memory
    # What a process takes differs from machine to machine; with some room none of them outgrows the quota here.
    size = round(hosted.host.parts.pool.expected_memory() * 1.2)
    memory._expected = lambda: size
    spawns = [
        await hosted.called(acme, misbehaving.Normal, f"a{number}") for number in range(QUOTA_MB * 1024**2 // size)
    ]
    status, answer, headers = await hosted.call(acme, misbehaving.Normal, "late")
    assert (status, headers["Retry-After"]) == (429, "5")
    assert "over the tenant's quota memory_mb: its agents take " in answer["error"]
    assert f" of {QUOTA_MB} MB, and one more about " in answer["error"]
    for spawn in spawns:
        await soon(spawn.wait_state(State.RUNNING), 60)
    await until(lambda: memory.used(ACME) > 0, "it was measured")
    tenant = await hosted.tenant(ACME)
    assert 0 < tenant["memory_bytes"] <= QUOTA_MB * 1024**2
    assert tenant["quota"]["memory_mb"] == QUOTA_MB
    assert (await hosted.tenant(OTHER))["quota"]["memory_mb"] is None

    # One crashes, and there is no room for it to come back.
    memory._expected = lambda: QUOTA_MB * 1024**2
    crashed, *others = spawns
    pid = hosted.host.parts.agents.pid_of(crashed)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: memory.is_waiting(ACME, crashed.id), "it waits")
    agents = json.loads(await hosted.text("/agents"))["agents"]
    [agent] = [one for one in agents if one["id"] == crashed.id]
    assert (agent["state"], agent["waits_for"]) == ("starting", "memory in its tenant's quota")
    for spawn in others:
        spawn.abort()
    await soon(crashed.wait_state(State.RUNNING), 30)
    assert crashed.restarts == 1
