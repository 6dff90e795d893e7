"""What the parts of the SQLite stores do when a file fails, is closed, or is empty."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meshhost.errors import RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.queues import NewMessage, QueueKey, QueueLimits
from meshhost.stores.sqlite.pace import Pace
from meshhost.stores.sqlite.queues import SqliteQueueStore
from meshhost.stores.sqlite.queues import store as queues
from meshhost.stores.sqlite.queues.removal import Removals
from meshhost.stores.sqlite.reader import SqliteReader
from meshhost.stores.sqlite.tidy import Tidier
from meshhost.testing.clock import FakeClock

JOBS = QueueKey(RoomKey(TenantId("acme"), "lobby"), "jobs")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteQueueStore]:
    backend = SqliteQueueStore(tmp_path / "queues.db")
    await backend.open()
    yield backend
    await backend.close()


async def test_a_reader_reports_a_file_that_fails_and_reads_nothing_after_its_end(tmp_path: Path) -> None:
    reader = SqliteReader(tmp_path / "missing.db", "queue store")
    with pytest.raises(OSError, match=r"the queue store .*missing\.db failed"):
        await reader.run(lambda db: db.execute("SELECT 1").fetchone())
    await reader.stop()
    await reader.stop()
    with pytest.raises(RoomError, match="the queue store is not open"):
        await reader.run(lambda db: None)


async def test_a_store_that_is_not_open_reads_nothing(tmp_path: Path) -> None:
    with pytest.raises(RoomError, match="the queue store is not open"):
        SqliteQueueStore(tmp_path / "queues.db").database.read(lambda db: None)


class FailsOnce:
    """A database whose first operation fails, and which has nothing to remove after that."""

    def __init__(self) -> None:
        self.operations = 0

    async def run(self, operation: Any) -> bool:
        """Fail, then return that nothing is left."""
        self.operations += 1
        if self.operations == 1:
            raise OSError("the disk is full")
        return False


async def test_a_removal_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    database: Any = FailsOnce()
    removals = Removals(database, retry_seconds=0.0)
    await removals.finished()
    assert database.operations == 2
    assert "deleted messages still take space" in caplog.text


async def test_a_file_that_cannot_be_tidied_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail(self: Tidier, db: sqlite3.Connection) -> bool:
        loop.call_soon_threadsafe(asked.set)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Tidier, "step", fail)
    backend = SqliteQueueStore(tmp_path / "queues.db", pace=Pace(idle_seconds=0.01))
    await backend.open()
    await backend.send(JOBS, NewMessage("a"))
    async with asyncio.timeout(20):
        await asked.wait()
    await backend.send(JOBS, NewMessage("b"))
    assert (await backend.totals()).ready == 2
    await backend.close()
    assert "store not tidied" in caplog.text


def test_a_file_without_a_log_has_nothing_to_tidy(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "plain.db") as db:
        assert Tidier(tmp_path / "plain.db").step(db) is False
    db.close()


async def test_a_message_whose_content_has_gone_meanwhile_is_not_exported(store: SqliteQueueStore) -> None:
    first, second = [await store.send(JOBS, NewMessage(body)) for body in "ab"]
    await store.database.run(lambda db: db.execute("DELETE FROM contents WHERE message_id = ?", (first,)).rowcount)
    found = await store.stored(JOBS, after=0, limit=10, max_bytes=1000)
    assert [message.id for message in found] == [second]


async def test_remembered_ids_are_forgotten_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_BATCH", 1)
    monkeypatch.setattr(queues, "_FORGET_BATCHES", 2)
    clock = FakeClock()
    backend = SqliteQueueStore(tmp_path / "queues.db", clock=clock)
    await backend.open()
    for number in range(3):
        await backend.send(JOBS, NewMessage("a", sender_id=str(number)))
    await clock.advance(QueueLimits().remember_ids_seconds + 1)

    async def remembered() -> int:
        count: int = await backend.database.read(lambda db: db.execute("SELECT count(*) FROM sent_ids").fetchone()[0])
        return count

    await backend.sweep()
    assert await remembered() == 1
    await backend.sweep()
    assert await remembered() == 0
    await backend.close()
