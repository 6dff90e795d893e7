"""Measures tools, broadcasts, documents and files of our room server by client: ours and the MeshAgent SDK's.

The room server is a process of its own, on SQLite with `synchronous=FULL`. The caller and the provider of the tool are
processes of their own (`programs/room_client.py`). The listeners of a broadcast and the editors of a document share one
process, so those figures are mostly those of the client.
"""

import asyncio
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

from bench.processes import figures_of, room_access, room_server, running
from bench.sdk import SDK_VERSION, sdk_python
from bench.table import Row, show

CLIENT = Path(__file__).parent / "programs" / "room_client.py"


async def _measure(package: str, python: str, url: str, token: str) -> dict[str, float]:
    program = [python, CLIENT, package]
    async with running(*program, "provide", url, token, stdin=PIPE, stdout=PIPE, stderr=DEVNULL) as provider:
        assert provider.stdout is not None
        async with asyncio.timeout(60):
            if await provider.stdout.readline() != b"ready\n":
                raise RuntimeError(f"the tool provider of {package} did not start")
        return await figures_of(*program, "measure", url, token)


async def main() -> None:
    """Measure both clients against one server and print the table."""
    python = sdk_python()
    theirs: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as home:
        async with room_server(Path(home)) as (url, api_key):
            ours = await _measure("meshhost", sys.executable, *room_access(url, api_key, "bench-ours"))
            if python is not None:
                theirs = await _measure("meshagent", str(python), *room_access(url, api_key, "bench-sdk"))
    names = {
        "calls": "tool calls, one at a time, per second",
        "call_p50": "tool call, p50 ms",
        "call_p99": "tool call, p99 ms",
        "calls_together": "tool calls, 64 at a time, per second",
        "broadcast": "broadcast to 100, messages delivered per second",
        "broadcast_p50": "broadcast to 100, one at a time, delivery p50 ms",
        "broadcast_p99": "broadcast to 100, one at a time, delivery p99 ms",
        "edits": "document edits of 10 editors seen by all, per second",
        "edit_p50": "document edit seen by all 10, one at a time, p50 ms",
        "edit_p99": "document edit seen by all 10, one at a time, p99 ms",
        "upload": "upload of 32 MiB, MB per second",
        "download": "download of 32 MiB, MB per second",
    }
    rows: list[Row] = [(text, ours.get(key), theirs.get(key)) for key, text in names.items()]
    note = "" if theirs else "no Python 3.13 here: the SDK was not measured"
    show("Room server, by client", ("meshhost", f"MeshAgent SDK {SDK_VERSION}"), rows, note=note)


if __name__ == "__main__":
    asyncio.run(main())
