"""Nothing holds the queue store's thread for long: how many rows one operation changes, and what a crash leaves."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.queues import EndReason, HolderId, NewMessage, QueueKey, QueueLimits
from meshhost.stores.sqlite.database import Statements
from meshhost.stores.sqlite.queues import SqliteQueueStore
from meshhost.testing.clock import FakeClock

ROOM = RoomKey(TenantId("acme"), "lobby")
JOBS = QueueKey(ROOM, "jobs")
REMOVALS, DEAD_LETTERS = Statements("queues/removals.sql"), Statements("queues/dead_letters.sql")
ANN = HolderId("ann")
MANY = 3 * 500 + 7
# A message is a row of its state and one of its content; its queue and the mark of the removal are others.
MOST_ROWS = 2 * 500 + 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queues.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(path: Path, clock: FakeClock) -> AsyncIterator[SqliteQueueStore]:
    store = SqliteQueueStore(path, limits=QueueLimits(max_attempts=1), clock=clock)
    store.removals.pause_seconds = 0.0
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def changes(store: SqliteQueueStore, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each operation changed."""
    run, found = store.database.run, list[int]()

    def counted(operation: Callable[[sqlite3.Connection], Any], **options: Any) -> Any:
        def count(db: sqlite3.Connection) -> Any:
            before = db.total_changes
            try:
                return operation(db)
            finally:
                found.append(db.total_changes - before)

        return run(count, **options)

    monkeypatch.setattr(store.database, "run", counted)
    return found


async def fill(store: SqliteQueueStore, count: int = MANY, *, queue: QueueKey = JOBS) -> None:
    await asyncio.gather(*(store.send(queue, NewMessage(str(number))) for number in range(count)))


async def kill(store: SqliteQueueStore, count: int = MANY) -> None:
    """Let so many messages die."""
    deliveries = await store.lease(JOBS, ANN, seconds=30, limit=count)
    await asyncio.gather(*(store.nack(one.lease, reason=EndReason.FAILED, error="boom") for one in deliveries))


def rows(path: Path) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        tables = ("messages", "contents", "dead_letters", "removals")
        return {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


async def test_a_drain_removes_a_few_rows_at_a_time(store: SqliteQueueStore, path: Path, changes: list[int]) -> None:
    await fill(store)
    assert await store.drain(JOBS) == MANY
    assert await store.lease(JOBS, ANN, seconds=30) == []
    await store.removals.finished()
    assert rows(path) == {"messages": 0, "contents": 0, "dead_letters": 0, "removals": 0}
    assert max(changes) <= MOST_ROWS


async def test_a_deletion_removes_dead_letters_a_few_rows_at_a_time(
    store: SqliteQueueStore, path: Path, changes: list[int]
) -> None:
    await fill(store)
    await kill(store, MANY // 2)
    await store.delete(JOBS)
    await store.removals.finished()
    assert rows(path) == {"messages": 0, "contents": 0, "dead_letters": 0, "removals": 0}
    assert max(changes) <= MOST_ROWS


async def test_a_drained_queue_keeps_its_dead_letters_through_more_drains(store: SqliteQueueStore) -> None:
    await fill(store, 3)
    await kill(store, 1)
    for _ in range(2):
        await fill(store, 1)
        assert await store.drain(JOBS) > 0
        (found,) = await store.stats(ROOM)
        assert (found.ready, found.leased, found.dead) == (0, 0, 1)
    await store.removals.finished()
    await fill(store, 2)
    await kill(store, 1)
    assert len(await store.dead_letters(JOBS)) == 2
    assert await store.replay(JOBS) == 2
    assert len(await store.lease(JOBS, ANN, seconds=30, limit=9)) == 3


async def test_a_replay_moves_a_few_letters_at_a_time(store: SqliteQueueStore, changes: list[int]) -> None:
    await fill(store)
    await kill(store)
    changes.clear()
    assert await store.replay(JOBS) == MANY
    assert max(changes) <= MOST_ROWS
    (found,) = await store.stats(ROOM)
    assert (found.ready, found.dead) == (MANY, 0)


async def test_a_replay_by_ids_takes_any_number_of_them(store: SqliteQueueStore, changes: list[int]) -> None:
    await fill(store)
    await kill(store)
    ids = [letter.message_id for letter in await store.dead_letters(JOBS, limit=MANY)]
    changes.clear()
    assert await store.replay(JOBS, [*ids[1:], 10**9]) == MANY - 1
    assert max(changes) <= MOST_ROWS


async def test_what_time_makes_ready_is_swept_a_few_rows_at_a_time(
    store: SqliteQueueStore, clock: FakeClock, changes: list[int]
) -> None:
    await fill(store)
    await store.lease(JOBS, ANN, seconds=30, limit=MANY)
    await clock.advance(31)
    changes.clear()
    assert await store.sweep() == [JOBS]
    assert await store.sweep() == []
    assert max(changes) <= MOST_ROWS


async def test_a_lease_finds_the_oldest_of_many_that_became_ready_at_once(
    store: SqliteQueueStore, clock: FakeClock, changes: list[int]
) -> None:
    await fill(store)
    first, *others = await store.lease(JOBS, ANN, seconds=30, limit=MANY)
    await asyncio.gather(*(store.nack(other.lease, reason=EndReason.INTERRUPTED, delay=1) for other in others))
    await store.nack(first.lease, reason=EndReason.INTERRUPTED, delay=2)
    await clock.advance(3)
    changes.clear()
    (oldest,) = await store.lease(JOBS, ANN, seconds=30)
    assert oldest.lease.message_id == first.lease.message_id
    assert max(changes) <= MOST_ROWS


async def test_dead_letters_are_read_page_by_page_without_the_thread_that_writes(
    store: SqliteQueueStore, clock: FakeClock, changes: list[int]
) -> None:
    await fill(store, 170)
    await kill(store, 170)
    changes.clear()
    letters = await store.dead_letters(JOBS, limit=160)
    assert [letter.message_id for letter in letters] == sorted((one.message_id for one in letters), reverse=True)
    last = letters[-1]
    rest = await store.dead_letters(JOBS, before=(last.died_at, last.message_id))
    assert len({one.message_id for one in (*letters, *rest)}) == 170
    assert changes == []


async def test_a_read_of_a_million_rows_does_not_hold_up_a_send(store: SqliteQueueStore) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(_: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result()

    reading = asyncio.create_task(store.database.read(slow))
    await begun.wait()
    await store.send(JOBS, NewMessage("1"))
    assert not reading.done()
    go.set()
    await reading
    assert len(await store.stats(ROOM)) == 1


CRASHING = """
import asyncio, sys
from pathlib import Path
from meshhost.stores.sqlite.queues import SqliteQueueStore
from tests.unit.stores.test_sqlite_batches import JOBS, fill

async def main():
    store = SqliteQueueStore(Path(sys.argv[1]))
    store.removals.pause_seconds = 0.2
    await store.open()
    await fill(store)
    await store.drain(JOBS)
    await asyncio.sleep(0.1)
    print("drained", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_drain_that_a_crash_ended_goes_on_and_its_messages_never_come_back(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", CRASHING, str(path)], stdout=subprocess.PIPE) as program:  # noqa: ASYNC220
        assert program.stdout is not None
        assert await asyncio.to_thread(program.stdout.readline) == b"drained\n"
        os.kill(program.pid, signal.SIGKILL)
    left = rows(path)
    assert 0 < left["messages"] < MANY
    assert left["removals"] == 1
    store = SqliteQueueStore(path)
    await store.open()
    assert await store.lease(JOBS, ANN, seconds=30) == []
    await store.send(JOBS, NewMessage("new"))
    await store.removals.finished()
    (only,) = await store.lease(JOBS, ANN, seconds=30, limit=10)
    assert only.body == "new"
    await store.close()
    assert rows(path) == {"messages": 1, "contents": 1, "dead_letters": 0, "removals": 0}


@pytest.mark.parametrize(
    ("statements", "name", "values", "index"),
    [
        (REMOVALS, "some_messages", {"queue": 1, "limit": 1}, "INDEX messages_by_id (queue_id=?)"),
        (REMOVALS, "some_deads", {"queue": 1, "limit": 1}, "INDEX dead_letters_by_id (queue_id=?)"),
        (
            DEAD_LETTERS,
            "dead_letters",
            {"first": 1, "died_at": 1.0, "id": 1, "limit": 1},
            "INDEX dead_letters_in_order (queue_id=? AND died_at<?)",
        ),
        (DEAD_LETTERS, "some_dead", {"first": 1, "until": 1.0, "limit": 1}, "INDEX dead_letters_in_order"),
        (DEAD_LETTERS, "replay", {"first": 1, "queue": 1, "ids": "[]"}, "USING INTEGER PRIMARY KEY (rowid=?)"),
        (DEAD_LETTERS, "forget_replayed", {"first": 1, "ids": "[]"}, "USING INTEGER PRIMARY KEY (rowid=?)"),
    ],
)
async def test_a_batch_is_found_by_an_index(
    store: SqliteQueueStore, statements: Statements, name: str, values: dict[str, object], index: str
) -> None:
    plan = await store.database.read(lambda db: db.execute(f"EXPLAIN QUERY PLAN {statements[name]}", values).fetchall())
    assert index in "\n".join(row[3] for row in plan)
