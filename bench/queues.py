"""Durable send, receive and settle through the WebSocket of our room server: our client and the MeshAgent SDK's.

The room server is a process of its own on SQLite with `synchronous=FULL`; each client is a process too, one after the other.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import aiohttp

from bench.sdk import SDK_VERSION, sdk_python
from bench.table import Row, show
from meshhost.identity.grants import ApiScope
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken

CLIENT = Path(__file__).with_name("queue_client.py")


@asynccontextmanager
async def _room_server(home: Path) -> AsyncIterator[tuple[str, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {"MESHHOST_CONFIG_DIR": str(home / "config"), "MESHHOST_API_URL": url}
    environment.pop("MESHHOST_API_KEY", None)
    meshhost = [sys.executable, "-m", "meshhost.cli.main"]
    setup = subprocess.run([*meshhost, "setup", "--json"], env=environment, capture_output=True, check=True)  # noqa: ASYNC221 - a bench
    serve = [*meshhost, "room", "serve", "--port", str(port), "--data-dir", str(home / "data")]
    server = subprocess.Popen(serve, env=environment, stderr=subprocess.DEVNULL)  # noqa: ASYNC220 - a bench
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(60):
            while True:
                try:
                    async with session.get(f"{url}/readyz") as answer:
                        if answer.status == 200:
                            break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)
        yield url, json.loads(setup.stdout)["api_key"]
    finally:
        server.terminate()
        server.wait(timeout=30)


def _measure(package: str, python: str, url: str, api_key: str, room: str) -> dict[str, float]:
    token = ParticipantToken(
        name="bench",
        grants=[
            ParticipantGrant(name="room", scope=room),
            ParticipantGrant(name="role", scope="agent"),
            ParticipantGrant(name="api", scope=ApiScope.agent_default()),
        ],
    ).to_jwt(api_key=api_key)
    room_url = f"ws{url.removeprefix('http')}/rooms/{room}"
    done = subprocess.run(
        [python, str(CLIENT), package, room_url, token], capture_output=True, check=True, text=True, timeout=300
    )
    return cast(dict[str, float], json.loads(done.stdout.splitlines()[-1]))


async def main() -> None:
    """Measure both clients against one server and print the table."""
    with tempfile.TemporaryDirectory() as home:
        async with _room_server(Path(home)) as (url, api_key):
            ours = await asyncio.to_thread(_measure, "meshhost", sys.executable, url, api_key, "bench-ours")
            python = sdk_python()
            theirs: dict[str, float] = {}
            if python is not None:
                theirs = await asyncio.to_thread(_measure, "meshagent", str(python), url, api_key, "bench-sdk")
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
