"""Measures what one tenant's flood costs another tenant of the same room server.

A room server in a process of its own, on SQLite with `synchronous=FULL`, with a quota for the tenant that floods. Another
tenant measures its sends and tool calls: alone, just before each flood, and then in a flood of connections, messages, uploads,
downloads, bad tokens, and all of them at once. The aim is a ratio below 3.

What is measured is the server, not a lack of cores: the flood is one process that the system runs only when nobody else wants
a core (SCHED_IDLE on Linux), so it takes the time that server and measuring client leave. On two cores it still takes caches
and memory bandwidth from both. The flood comes from 127.0.0.1 as the neighbour does, which is the worst case: nothing can be
told by addresses. Run it on a machine that does nothing else, and compare ratios of one run only.
"""

import asyncio
import json
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from bench.processes import figures_of, room_access, room_server, running
from bench.table import Row, show

CLIENT = Path(__file__).parent / "programs" / "neighbours_client.py"
FLOODS = ("connections", "messages", "uploads", "downloads", "tokens", "all")
OPERATOR_KEY = "mo-of-the-benchmark"
# Of the tenant that floods: what an operator may allow one of some dozens of tenants on this server. The quiet tenant has no
# rate: a measurement is not to wait for one.
QUOTA = {
    "max_connections": 24,
    "max_uploads": 8,
    "max_messages": 50_000,
    "requests_per_second": 50,
    "connections_per_second": 20,
}
WARM_UP_SECONDS = 1.0


async def _tenant(url: str, name: str, quota: Mapping[str, float] | None = None) -> str:
    """Make a tenant with these limits; returns an API key of it."""
    headers = {"Authorization": f"Bearer {OPERATOR_KEY}"}
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as http:
        async with http.post(f"{url}/tenants", json={"name": name}):
            pass
        if quota is not None:
            async with http.patch(f"{url}/tenants/{name}/quota", json=quota):
                pass
        async with http.post(f"{url}/tenants/{name}/keys", json={"name": name}) as answer:
            return str((await answer.json())["value"])


async def _flooded(kind: str, flooding: tuple[str, str], quiet: tuple[str, str]) -> tuple[dict[str, float], float]:
    """The neighbour's figures in a flood, and how many operations of the flood were refused or answered per second."""
    async with running(
        sys.executable, CLIENT, "flood", kind, *flooding, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    ) as flood:
        assert flood.stdout is not None
        assert flood.stdin is not None
        async with asyncio.timeout(60):
            if await flood.stdout.readline() != b"ready\n":
                raise RuntimeError(f"the flood of {kind} did not start")
        await asyncio.sleep(WARM_UP_SECONDS)
        figures = await figures_of(sys.executable, CLIENT, "measure", "-", *quiet)
        flood.stdin.close()
        async with asyncio.timeout(30):
            done = json.loads((await flood.stdout.read()).decode().splitlines()[-1])
    return figures, float(done["per_second"])


async def main() -> None:
    """Measure and print the table."""
    rows: list[Row] = []
    remarks = []
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        environment = {"MESHHOST_OPERATOR_KEY": OPERATOR_KEY}
        async with room_server(home, environment=environment) as (url, _):
            quiet = room_access(url, await _tenant(url, "quiet"), "room")
            flooding = room_access(url, await _tenant(url, "flooding", QUOTA), "room")
            for kind in FLOODS:
                # Again for each flood, so that what else the machine does falls on both.
                alone = await figures_of(sys.executable, CLIENT, "measure", "-", *quiet)
                figures, per_second = await _flooded(kind, flooding, quiet)
                for what, name in (("send", "queue send"), ("call", "tool call")):
                    for part in ("p50", "p99"):
                        figure = f"{what}_{part}"
                        rows.append((f"{kind}: {name}, {part} ms", figures[figure], alone[figure]))
                remarks.append(f"flood of {kind}: {per_second:,.0f} operations per second, refused ones included")
    show(
        "A tenant beside a flood by another",
        ("in the flood", "quiet"),
        rows,
        note="aim: below 3; the flood gets the CPU that is left",
        remarks=remarks,
    )


if __name__ == "__main__":
    asyncio.run(main())
