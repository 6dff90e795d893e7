"""Accepting connections, also when the system has none to give."""

import asyncio
import errno
import logging
import socket
from typing import Any

import pytest

from meshhost.edge import accepting
from meshhost.edge.accepting import Acceptor
from meshhost.edge.pace import Pace


class Met(asyncio.Protocol):
    """Notes that it has a connection, and ends it."""

    def __init__(self, met: asyncio.Event) -> None:
        self.met = met

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.met.set()
        transport.close()


class Slow(Pace):
    """Lets one wait first."""

    def __init__(self) -> None:
        super().__init__(0.5)
        self.waits = [0.01, 0.0]

    def wait(self) -> float:
        return self.waits.pop(0) if self.waits else 0.0


@pytest.fixture
def listening() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


async def _met(listening: socket.socket, pace: Pace) -> None:
    met = asyncio.Event()
    acceptor = Acceptor(lambda: Met(met), pace=pace, waiting=10)
    acceptor.start([listening])
    try:
        with socket.create_connection(listening.getsockname()):
            async with asyncio.timeout(5):
                await met.wait()
    finally:
        acceptor.stop()
        acceptor.stop()
    await asyncio.sleep(0)


async def test_a_connection_waits_until_there_is_time_for_it(listening: socket.socket) -> None:
    pace = Slow()
    await _met(listening, pace)
    assert pace.waits == []


async def test_without_descriptors_it_tries_again_later_and_logs_once(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "_AGAIN_SECONDS", 0.001)
    accept, failures = socket.socket.accept, [errno.EMFILE] * 5

    def failing(own: socket.socket) -> Any:
        if failures:
            raise OSError(failures.pop(), "Too many open files")
        return accept(own)

    monkeypatch.setattr(socket.socket, "accept", failing)
    await _met(listening, Pace(0.5))
    assert failures == []
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "cannot accept connections"


async def test_one_that_is_gone_already_is_nobody(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    accept, gone = socket.socket.accept, [BlockingIOError(), ConnectionAbortedError()]

    def failing(own: socket.socket) -> Any:
        if gone:
            raise gone.pop()
        return accept(own)

    monkeypatch.setattr(socket.socket, "accept", failing)
    await _met(listening, Pace(0.5))
    assert gone == []


async def test_a_stopped_acceptor_looks_no_more(listening: socket.socket) -> None:
    pace = Slow()
    pace.waits = [0.02]
    met = asyncio.Event()
    acceptor = Acceptor(lambda: Met(met), pace=pace, waiting=10)
    acceptor.start([listening])
    with socket.create_connection(listening.getsockname()):
        while pace.waits:  # noqa: ASYNC110 - of the loop's doing
            await asyncio.sleep(0)
        acceptor.stop()
        await asyncio.sleep(0.05)
    assert not met.is_set()


async def test_the_end_of_the_loop_closes_what_was_just_accepted(listening: socket.socket) -> None:
    acceptor = Acceptor(lambda: Met(asyncio.Event()), pace=Pace(0.5), waiting=10)
    acceptor.start([listening])
    with socket.create_connection(listening.getsockname()) as client:
        client.settimeout(5)
        before = asyncio.all_tasks()
        while not (new := asyncio.all_tasks() - before):  # noqa: ASYNC110 - of the loop's doing
            await asyncio.sleep(0)
        for task in new:
            task.cancel()
        acceptor.stop()
        assert await asyncio.to_thread(client.recv, 1) == b""
