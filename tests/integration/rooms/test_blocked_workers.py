"""Workers whose event loop is blocked: their leases are kept while they live, and go back when they do not."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from meshhost.errors import LeaseLostError
from meshhost.room.client import RoomClient
from meshhost.room.services.queues import LeasedMessage
from meshhost.testing.server import RunningServer
from meshhost.transport.websocket_client import WebSocketClientProtocol

LEASE = 0.8

_PROGRAM = """
import asyncio, sys, time
from meshhost.room.client import RoomClient
from meshhost.transport.websocket_client import WebSocketClientProtocol

async def main():
    async with RoomClient(protocol=WebSocketClientProtocol(url=sys.argv[1], token=sys.argv[2])) as room:
        await room.queues.lease(name="q", seconds=float(sys.argv[3]))
        print("leased", flush=True)
        time.sleep(60)

asyncio.run(main())
"""


async def _in_a_thread(server: RunningServer, work: Callable[[LeasedMessage], Awaitable[Any]]) -> Any:
    """Lease a message in an event loop of another thread, and return what `work` makes of it."""
    protocol = WebSocketClientProtocol(
        url=server.server.room_url("room"), token=server.token("room", name="w", role="agent")
    )

    async def main() -> Any:
        async with RoomClient(protocol=protocol) as room:
            leased = await room.queues.lease(name="q", seconds=LEASE)
            assert leased is not None
            return await work(leased)

    return await asyncio.to_thread(asyncio.run, main())


async def _nobody_else_gets_it(room: RoomClient, done: Callable[[], bool]) -> None:
    while not done():
        assert await room.queues.lease(name="q", wait=False) is None
        await asyncio.sleep(0.05)


async def test_a_blocked_worker_keeps_its_message(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    # The heartbeat alone would have ended the connection long before.
    async with serve(heartbeat_seconds=0.3, resume_seconds=0.1) as server, server.client() as other:
        await other.queues.send(name="q", message="work")
        begun, done = threading.Event(), threading.Event()

        async def work(leased: LeasedMessage) -> int:
            begun.set()
            time.sleep(LEASE * 5)  # noqa: ASYNC251 - what this is about
            done.set()
            await leased.ack()
            return leased.delivery

        working = asyncio.create_task(_in_a_thread(server, work))
        await asyncio.to_thread(begun.wait, 10)
        await _nobody_else_gets_it(other, done.is_set)
        assert await working == 1
        assert await other.queues.lease(name="q", wait=False) is None
        (queue,) = await other.queues.list()
        assert (queue.ready, queue.leased) == (0, 0)
        assert "a worker's event loop is blocked: its lease is kept" in caplog.messages


async def test_a_worker_that_is_blocked_for_too_long_loses_its_message(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(blocked_seconds=LEASE * 2.5) as server, server.client() as other:
        await other.queues.send(name="q", message="work")
        begun, given_on = threading.Event(), threading.Event()

        async def work(leased: LeasedMessage) -> None:
            begun.set()
            given_on.wait(20)
            with pytest.raises(LeaseLostError):
                await leased.ack()

        working = asyncio.create_task(_in_a_thread(server, work))
        await asyncio.to_thread(begun.wait, 10)
        began = time.monotonic()
        again = await other.queues.lease(name="q")
        assert again is not None
        assert again.delivery == 2
        assert time.monotonic() - began > LEASE * 1.5
        given_on.set()
        await working
        await again.ack()
        assert "a worker is blocked for too long: its message is given up" in caplog.messages


async def test_a_worker_that_lives_and_does_not_renew_loses_its_message_in_time(serve: Any) -> None:
    async with serve() as server, server.client() as other, server.client(name="w", role="agent") as worker:
        await other.queues.send(name="q", message="work")
        assert await worker.queues.lease(name="q", seconds=LEASE) is not None
        began = time.monotonic()
        again = await other.queues.lease(name="q")
        assert again is not None
        assert again.delivery == 2
        assert time.monotonic() - began < LEASE * 1.5


async def test_a_blocked_worker_that_is_killed_gives_its_message_back(serve: Any) -> None:
    async with serve(resume_seconds=0.1) as server, server.client() as other:
        await other.queues.send(name="q", message="work")
        arguments = (server.server.room_url("room"), server.token("room", name="w", role="agent"), "30")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROGRAM, *arguments, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"leased\n"
            process.kill()
            began = time.monotonic()
            again = await other.queues.lease(name="q")
            assert again is not None
            assert again.delivery == 2
            assert time.monotonic() - began < 5
        finally:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            await process.wait()
