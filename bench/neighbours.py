"""Measures what one tenant's flood costs another tenant of the same room server.

A room server in a process of its own, on SQLite with `synchronous=FULL`, with a quota of requests and connections for
each tenant. One tenant measures its sends and tool calls, first alone and then while another tenant floods the server with
connections, messages, uploads, downloads, bad tokens, and all of them at once. The flood runs with the lowest priority, so that
on few cores the figures are those of the server and not of the flood's own work. The aim is a ratio below 3.
"""

import asyncio
import json
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import aiohttp

from bench.processes import figures_of, room_access, room_server, running
from bench.table import Row, show

CLIENT = Path(__file__).parent / "programs" / "neighbours_client.py"
FLOODS = ("connections", "messages", "uploads", "downloads", "tokens", "all")
OPERATOR_KEY = "mo-of-the-benchmark"
QUOTA = """
[quota]
max_connections = 200
max_uploads = 16
max_messages = 50000
requests_per_second = 200.0
"""
WARM_UP_SECONDS = 1.0


async def _tenant(url: str, name: str) -> str:
    """Make a tenant; returns an API key of it."""
    headers = {"Authorization": f"Bearer {OPERATOR_KEY}"}
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as http:
        async with http.post(f"{url}/tenants", json={"name": name}):
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
        (home / "meshhost.toml").write_text(QUOTA)
        environment = {"MESHHOST_OPERATOR_KEY": OPERATOR_KEY}
        async with room_server(home, environment=environment, config=home / "meshhost.toml") as (url, _):
            quiet = room_access(url, await _tenant(url, "quiet"), "room")
            flooding = room_access(url, await _tenant(url, "flooding"), "room")
            alone = await figures_of(sys.executable, CLIENT, "measure", "-", *quiet)
            for kind in FLOODS:
                figures, per_second = await _flooded(kind, flooding, quiet)
                for what in ("send", "call"):
                    name = f"{kind}: {'queue send' if what == 'send' else 'tool call'}, p99 ms"
                    rows.append((name, figures[f"{what}_p99"], alone[f"{what}_p99"]))
                remarks.append(f"flood of {kind}: {per_second:,.0f} operations per second, refused ones included")
    show("A tenant beside a flood by another", ("in the flood", "quiet"), rows, note="aim: below 3", remarks=remarks)


if __name__ == "__main__":
    asyncio.run(main())
