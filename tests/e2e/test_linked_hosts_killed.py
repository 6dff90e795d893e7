"""Hosts that dial in, as processes: one is killed, the room server is killed, and one lives in a network of its own."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from meshhost.identity.keys import parse_api_key

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROOMS = [f"r-{number}" for number in range(20)]
SERVER = """
[links]
enabled = true
resume_seconds = 1.0

[[services]]
link = "quiet"
rooms = "r-*"
paths = [{ path = "/agent", identity = "quiet" }]
"""
PROGRAM = """
import asyncio
from meshhost.api.services import ServiceHost
from meshhost.testing.agents import QuietAgent

host = ServiceHost(name="quiet")
host.add_path("/agent", cls=QuietAgent, identity="quiet")
asyncio.run(host.run())
"""


@asynccontextmanager
async def prepared(home: Any, address: str = "127.0.0.1") -> AsyncIterator[aiohttp.ClientSession]:
    """The files and keys of a home whose hosts dial this address."""
    (home.directory / "rooms.toml").write_text(SERVER)
    (home.directory / "quiet.py").write_text(PROGRAM)
    home.environment["MESHHOST_API_KEY"] = json.loads(await home.cli("setup", "--json"))["api_key"]
    home.environment["MESHHOST_ROOM_SERVER"] = f"http://{address}:{home.port}"
    headers = {"Authorization": f"Bearer {home.environment['MESHHOST_API_KEY']}"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{home.port}", headers=headers) as http:
        yield http


@asynccontextmanager
async def room_server(home: Any, address: str = "127.0.0.1") -> AsyncIterator[Any]:
    command = ("room", "serve", "--host", address, "--port", str(home.port), "--config", "rooms.toml")
    async with home.meshhost(*command) as server:
        await server.line("room server ready")
        yield server


@asynccontextmanager
async def linked_host(home: Any) -> AsyncIterator[Any]:
    async with home.running("quiet.py") as host:
        await host.line("linked to the room server")
        yield host


async def wake(http: aiohttp.ClientSession) -> None:
    """Give each room something to do."""
    for room in ROOMS:
        async with http.post(f"/rooms/{room}/queues/work/messages", json={"for": "nobody"}) as answer:
            assert answer.status < 300, await answer.text()


async def hosts_called(http: aiohttp.ClientSession, home: Any) -> list[str]:
    """The host that was called last for each room."""
    project = parse_api_key(home.environment["MESHHOST_API_KEY"]).project_id
    found = []
    for room in ROOMS:
        async with http.get(f"/accounts/projects/{project}/rooms/{room}/calls") as answer:
            found += [call["url"].partition(".")[0] for call in (await answer.json())["calls"]]
    return found


async def until_everywhere(http: aiohttp.ClientSession, home: Any) -> None:
    """Ask until each room has its agent, once."""
    project = parse_api_key(home.environment["MESHHOST_API_KEY"]).project_id
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"/accounts/projects/{project}/sessions/active") as answer:
                    sessions = (await answer.json())["sessions"]
                found = Counter(
                    session["room_name"] for session in sessions for one in session["participants"] if one["name"]
                )
                if found == Counter(ROOMS):
                    return
            await asyncio.sleep(0.1)


async def test_agents_outlive_their_host_and_their_room_server(home: Any) -> None:
    async with prepared(home) as http, room_server(home) as first, linked_host(home) as one, linked_host(home):
        await wake(http)
        await until_everywhere(http, home)
        shares = Counter(await hosts_called(http, home))
        assert len(shares) == 2
        assert abs(shares.most_common()[0][1] - len(ROOMS) / 2) <= 1
        one.signal(signal.SIGKILL)
        await one.exit_code()
        await until_called_at_one(http, home)
        await until_everywhere(http, home)
        first.signal(signal.SIGKILL)
        await first.exit_code()
        async with room_server(home):
            await until_everywhere(http, home)


async def until_called_at_one(http: aiohttp.ClientSession, home: Any) -> None:
    """Ask until all agents were called at the same host."""
    async with asyncio.timeout(30):
        while len(set(await hosts_called(http, home))) != 1:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.2)


@pytest.fixture
def network() -> Any:
    """The name of a network namespace that can dial 10.213.77.1 and that nothing routes into, where this is possible."""
    name, ip = f"mesh-{os.getpid()}", shutil.which("ip")
    if os.getuid() or ip is None:
        pytest.skip("needs root and iproute2")
    commands = [
        f"netns add {name}",
        f"link add {name}-a type veth peer name {name}-b",
        f"link set {name}-b netns {name}",
        f"addr add 10.213.77.1/30 dev {name}-a",
        f"link set {name}-a up",
        f"-n {name} addr add 10.213.77.2/30 dev {name}-b",
        f"-n {name} link set {name}-b up",
        f"-n {name} link set lo up",
    ]
    try:
        for command in commands:
            done = subprocess.run([ip, *command.split()], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
        yield name
    finally:
        subprocess.run([ip, "link", "del", f"{name}-a"], capture_output=True)
        subprocess.run([ip, "netns", "del", name], capture_output=True)


async def test_a_host_in_a_network_of_its_own_serves_rooms(home: Any, network: str) -> None:
    async with prepared(home, "10.213.77.1") as http, room_server(home, "0.0.0.0") as first:
        home.python, python = "ip", home.python
        async with home.running("netns", "exec", network, python, "quiet.py") as host:
            await host.line("linked to the room server")
            listening = await home.run("netns", "exec", network, python, "-c", LISTENING)
            assert listening.strip() == "0"
            home.python = python
            await wake(http)
            await until_everywhere(http, home)
            first.signal(signal.SIGKILL)
            await first.exit_code()
            async with room_server(home, "0.0.0.0"):
                await until_everywhere(http, home)


LISTENING = """
import pathlib
lines = [line.split() for name in ("tcp", "tcp6") for line in pathlib.Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
print(sum(line[3] == "0A" for line in lines))
"""
