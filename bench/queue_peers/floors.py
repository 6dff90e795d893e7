"""What bounds a request of a room: a loopback WebSocket echo, an fdatasync; and the requests beside them, of one run.

Tool calls are those of `bench.room`, with our client and with the MeshAgent SDK's (where there is a Python 3.13).
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

from bench.processes import figures_of, free_port, room_access, room_server, running
from bench.queue_peers.contenders import PROGRAMS
from bench.sdk import sdk_python

TOOLS = Path(__file__).parents[1] / "programs" / "room_client.py"
COUNT = 500


def fdatasync_ms(folder: Path, *, count: int = 200) -> float:
    """The median time of an fdatasync after 4 KiB were appended to a file."""
    found = []
    with (folder / "fdatasync").open("wb", buffering=0) as file:
        for _ in range(count):
            file.write(b"x" * 4096)
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            found.append(time.perf_counter() - begun)
    return statistics.median(found) * 1000


async def echo_ms() -> float:
    """The median time of a loopback WebSocket echo between two processes."""
    port = free_port()
    program = PROGRAMS / "echo.py"
    async with running(sys.executable, program, "serve", port, stdout=PIPE) as server:
        assert server.stdout is not None
        await server.stdout.readline()
        return (await figures_of(sys.executable, program, "measure", port, COUNT))["echo"]


async def _tool_calls(package: str, python: str, url: str, token: str) -> float:
    program = [python, TOOLS, package]
    async with running(*program, "provide", url, token, stdin=PIPE, stdout=PIPE, stderr=DEVNULL) as provider:
        assert provider.stdout is not None
        async with asyncio.timeout(60):
            await provider.stdout.readline()
        return (await figures_of(*program, "measure-calls", url, token))["calls_together"]


async def measure() -> dict[str, float]:
    """Milliseconds of `echo`, `fdatasync`, a `memory` request, a `list` of queues and a lone `send`; tool calls per second."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        home = Path(name)
        found = {"echo": await echo_ms(), "fdatasync": fdatasync_ms(home)}
        async with room_server(home) as (url, api_key):
            room = room_access(url, api_key, "bench-floors")
            found |= await figures_of(sys.executable, PROGRAMS / "room_requests.py", *room, COUNT)
            found["calls"] = await _tool_calls("meshhost", sys.executable, *room_access(url, api_key, "bench-ours"))
            python = sdk_python()
            if python is not None:
                theirs = room_access(url, api_key, "bench-sdk")
                found["sdk_calls"] = await _tool_calls("meshagent", str(python), *theirs)
    return found
