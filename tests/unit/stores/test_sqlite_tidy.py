"""A store that is idle gives disk space back, and holds nobody up by that."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.queues import NewMessage, QueueKey
from meshhost.stores.sqlite import tidy
from meshhost.stores.sqlite.pace import Pace
from meshhost.stores.sqlite.queues import SqliteQueueStore

JOBS = QueueKey(RoomKey(TenantId("acme"), "lobby"), "jobs")
MEGABYTE = 1024 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queues.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteQueueStore]:
    backend = SqliteQueueStore(path, pace=Pace(idle_seconds=0.05))
    await backend.open()
    yield backend
    await backend.close()


def _sizes(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.with_name("queues.db-wal").stat().st_size


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.02)


async def _fill(store: SqliteQueueStore, megabytes: int) -> None:
    body = "x" * 100_000
    await asyncio.gather(*(store.send(JOBS, NewMessage(body)) for _ in range(megabytes * 10)))


async def test_the_log_is_emptied_and_the_file_shrinks(store: SqliteQueueStore, path: Path) -> None:
    await _fill(store, 20)
    await _until(lambda: _sizes(path)[1] < MEGABYTE)
    assert _sizes(path)[0] > 19 * MEGABYTE
    await store.drain(JOBS)
    await _until(lambda: sum(_sizes(path)) < 3 * MEGABYTE)
    assert await store.send(JOBS, NewMessage("again"))
    assert (await store.database.run(lambda db: db.execute("PRAGMA integrity_check").fetchone())) == ("ok",)


async def test_tidying_makes_nobody_wait_long(store: SqliteQueueStore, path: Path) -> None:
    await _fill(store, 30)
    await store.drain(JOBS)
    steps: list[float] = []
    step = tidy.Tidier.step

    def measured(tidier: tidy.Tidier, db: sqlite3.Connection) -> bool:
        began = time.thread_time()
        more = step(tidier, db)
        steps.append(time.thread_time() - began)
        return more

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tidy.Tidier, "step", measured)
        await _until(lambda: _sizes(path)[0] < 3 * MEGABYTE)
    assert len(steps) > 5
    assert sorted(steps)[len(steps) * 9 // 10] < 0.05
    await store.exists(JOBS)


async def test_a_file_of_an_earlier_release_can_shrink_after_it_was_opened(path: Path) -> None:
    with sqlite3.connect(path) as old:
        old.execute("PRAGMA journal_mode = WAL")
        old.execute("CREATE TABLE other (x)")
    old.close()
    store = SqliteQueueStore(path)
    await store.open()
    assert await store.database.run(lambda db: db.execute("PRAGMA auto_vacuum").fetchone()) == (2,)
    assert await store.database.run(lambda db: db.execute("PRAGMA synchronous").fetchone()) == (2,)
    await store.close()


async def test_on_a_slow_disk_fewer_pages_are_freed_at_a_time(
    store: SqliteQueueStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tidy, "_STEP_SECONDS", -1.0)
    await _fill(store, 2)
    await _until(lambda: _sizes(path)[1] < MEGABYTE)
    before = _sizes(path)[0]
    await store.drain(JOBS)
    await _until(lambda: _sizes(path)[0] < before)


async def test_a_large_file_of_an_earlier_release_is_not_rewritten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tidy, "_REWRITE_BYTES", 0)
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE other (x)")
    old.close()
    store = SqliteQueueStore(path)
    await store.open()
    assert await store.database.run(lambda db: db.execute("PRAGMA auto_vacuum").fetchone()) == (0,)
    await _fill(store, 2)
    await store.drain(JOBS)
    await store.close()
