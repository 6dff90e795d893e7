"""Measures queues of our room server by client: ours and the MeshAgent SDK's.

Sends, receives and settles durable messages over a WebSocket (`programs/queue_client.py`). The room server is a process of its
own, on SQLite with `synchronous=FULL`; each client is a process too, and they run one after the other.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from bench.processes import figures_of, room_access, room_server
from bench.sdk import SDK_VERSION, sdk_python
from bench.table import Row, show

CLIENT = Path(__file__).parent / "programs" / "queue_client.py"


async def main() -> None:
    """Measure both clients against one server and print the table."""
    python = sdk_python()
    theirs: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as home:
        async with room_server(Path(home)) as (url, api_key):
            ours = await figures_of(sys.executable, CLIENT, "meshhost", *room_access(url, api_key, "bench-ours"))
            if python is not None:
                theirs = await figures_of(python, CLIENT, "meshagent", *room_access(url, api_key, "bench-sdk"))
    names = {
        "alone": "durable send, one at a time, per second",
        "together": "durable send, 64 at a time, per second",
        "receive": "receive and settle by the next receive, per second",
        "lease": "lease and ack, per second",
        "p50": "send to waiting receiver, p50 ms",
        "p99": "send to waiting receiver, p99 ms",
    }
    rows: list[Row] = [(text, ours.get(key), theirs.get(key)) for key, text in names.items()]
    note = "" if theirs else "no Python 3.13 here: the SDK was not measured"
    show("Queues of the room server, by client", ("meshhost", f"MeshAgent SDK {SDK_VERSION}"), rows, note=note)


if __name__ == "__main__":
    asyncio.run(main())
