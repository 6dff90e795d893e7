"""A full disk: what adds is refused in time, what frees room works, and readiness says so."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from meshhost.errors import NotFoundError, StorageFullError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.queues import EndReason, HolderId, NewMessage, QueueKey
from meshhost.stores.sqlite.pace import Pace
from meshhost.stores.sqlite.queues import SqliteQueueStore

JOBS = QueueKey(RoomKey(TenantId("acme"), "lobby"), "jobs")
ANN = HolderId("ann")
# Asks for the room each time.
ASKING = Pace(space_seconds=0.0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteQueueStore]:
    """A store that may have two hundred pages."""
    backend = SqliteQueueStore(tmp_path / "queues.db", pace=ASKING)
    await backend.open()
    await backend.database.run(lambda db: db.execute("PRAGMA max_page_count = 200").fetchone())
    yield backend
    await backend.close()


async def _fill(store: SqliteQueueStore, body: str) -> int:
    count = 0
    while True:
        try:
            await store.send(JOBS, NewMessage(body))
        except StorageFullError as error:
            assert str(error).startswith("storage full")  # noqa: PT017 - the loop ends with it
            return count
        count += 1


async def _empty(store: SqliteQueueStore) -> int:
    count = 0
    while deliveries := await store.lease(JOBS, ANN, seconds=30, limit=5):
        for delivery in deliveries:
            await store.ack(delivery.lease)
            count += 1
    return count


async def test_workers_can_empty_a_store_that_takes_nothing_any_more(store: SqliteQueueStore) -> None:
    sent = await _fill(store, "x" * 3000)
    with pytest.raises(StorageFullError):
        await store.check()
    assert sent > 50
    (delivery,) = await store.lease(JOBS, ANN, seconds=30)
    await store.nack(delivery.lease, reason=EndReason.RELEASED)
    assert await _empty(store) == sent
    await store.check()
    assert await store.send(JOBS, NewMessage("x"))


async def test_one_that_needs_much_room_does_not_fail_those_that_need_none(store: SqliteQueueStore) -> None:
    await store.send(JOBS, NewMessage("a"))
    (delivery,) = await store.lease(JOBS, ANN, seconds=30)

    def large(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE large AS SELECT zeroblob(1000000) AS content")

    run = store.database.run
    results = await asyncio.gather(
        run(large), store.ack(delivery.lease), store.exists(JOBS), run(large), return_exceptions=True
    )
    assert isinstance(results[0], StorageFullError)
    assert results[1:3] == [False, True]
    assert isinstance(results[3], StorageFullError)
    with pytest.raises(NotFoundError):
        await store.drain(QueueKey(JOBS.room, "other"))
    assert await store.lease(JOBS, ANN, seconds=30) == []


async def test_a_disk_that_is_full_of_messages_can_be_emptied(small_disk: Path) -> None:
    store = SqliteQueueStore(small_disk / "queues.db", pace=ASKING)
    await store.open()
    try:
        sent = await _fill(store, "x" * 10_000)
        assert sent > 500
        assert await _empty(store) == sent
    finally:
        await store.close()


async def test_a_disk_that_others_filled_gives_the_error_of_a_full_disk(small_disk: Path) -> None:
    store = SqliteQueueStore(small_disk / "queues.db", pace=ASKING)
    await store.open()
    try:
        await store.send(JOBS, NewMessage("x" * 10_000))
        filler = os.open(small_disk / "filler", os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):  # no space left
            while True:
                os.write(filler, bytes(4096))
        for _ in range(3):
            with pytest.raises(StorageFullError):
                await store.check()
            with pytest.raises(StorageFullError):
                await store.send(JOBS, NewMessage("x" * 10_000))
        os.ftruncate(filler, 0)
        os.close(filler)
        await store.check()
        assert await _empty(store) == 1
    finally:
        await store.close()
