"""What only the store on disk has: a lock, versions, group commit, and a disk that can fail."""

import asyncio
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from meshhost.errors import NotFoundError, RoomError, SettingsError, StorageFullError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.queues import LONGEST_DELAY, LONGEST_LEASE, EndReason, HolderId, NewMessage, QueueKey
from meshhost.stores.shared.statements import read_statements
from meshhost.stores.sqlite import file as sqlite_file
from meshhost.stores.sqlite.file import SqliteFile
from meshhost.stores.sqlite.pace import Pace
from meshhost.stores.sqlite.queues import SqliteQueueStore
from meshhost.stores.sqlite.thread import SqliteThread
from meshhost.testing.clock import FakeClock

ROOM = RoomKey(TenantId("acme"), "lobby")
JOBS, MAIL = QueueKey(ROOM, "jobs"), QueueKey(ROOM, "mail")
ANN = HolderId("ann")
VERSION = len(list((Path(sqlite_file.__file__).parent / "migrations" / "queues").glob("*.sql")))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "queues.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteQueueStore]:
    backend = SqliteQueueStore(path)
    await backend.open()
    yield backend
    await backend.close()


def queue_file(path: Path) -> SqliteFile:
    return SqliteQueueStore(path).database.file()


async def in_thread(store: SqliteQueueStore, operation: Callable[[sqlite3.Connection], Any]) -> Any:
    return await store.database.run(operation)


class Hold:
    """Keeps the store's thread busy inside `async with`, so that what comes meanwhile becomes one batch."""

    def __init__(self, store: SqliteQueueStore) -> None:
        self._store = store
        self._begun, self._go = threading.Event(), threading.Event()

    def _operation(self, _: sqlite3.Connection) -> None:
        self._begun.set()
        self._go.wait(10)

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(in_thread(self._store, self._operation))
        await asyncio.to_thread(self._begun.wait, 10)

    async def __aexit__(self, *_: object) -> None:
        self._go.set()
        await self._task


class Flawed:
    """A connection on which some statements fail."""

    def __init__(self, connection: sqlite3.Connection, *failing: str, once: bool = True) -> None:
        self._connection = connection
        self._failing = set(failing)
        self._once = once

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql in self._failing:
            if self._once:
                self._failing.remove(sql)
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(sql, *args)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def close(self) -> None:
        self._connection.close()


async def make_flawed(store: SqliteQueueStore, *failing: str) -> None:
    assert store.database._thread is not None
    file = store.database._thread._file

    def operation(db: sqlite3.Connection) -> None:
        file._connection = Flawed(db, *failing)  # type: ignore[assignment]

    await store.database.run(operation)


# --- The file


async def test_a_second_opener_is_refused_by_name(store: SqliteQueueStore, path: Path) -> None:
    second = SqliteQueueStore(path)
    with pytest.raises(SettingsError, match=str(path)):
        await second.open()
    with pytest.raises(RoomError, match="not open"):
        await second.exists(JOBS)
    await store.close()
    await second.open()
    await second.close()


async def test_what_is_remembered_of_holders_is_bounded(
    store: SqliteQueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshhost.stores.sqlite.queues.store._MOST_HOLDERS", 1)
    await store.send_many(JOBS, [NewMessage("1"), NewMessage("2")])
    for name in ("ann", "bob"):
        assert len(await store.lease(JOBS, HolderId(name), seconds=60.0)) == 1
    # Of the one that was forgotten the messages are found all the same.
    await store.release_holder(HolderId("ann"), reason=EndReason.INTERRUPTED)
    assert len(await store.lease(JOBS, HolderId("eve"), seconds=60.0)) == 1


async def test_only_the_owner_may_read_the_files(store: SqliteQueueStore, path: Path) -> None:
    await store.send(JOBS, NewMessage("secret"))
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {
        "queues.db": 0o600,
        "queues.db-wal": 0o600,
        "queues.db-shm": 0o600,
        "queues.db.lock": 0o600,
    }


async def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SettingsError, match=rf"queues\.db is of version 99, newer than {VERSION}"):
        await SqliteQueueStore(path).open()


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("my diary, not a database; " * 100)
    with pytest.raises(SettingsError, match="no queue store"):
        asyncio.run(SqliteQueueStore(path).open())
    assert path.read_text().startswith("my diary")


def test_a_path_that_cannot_be_opened_is_an_os_error(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        asyncio.run(SqliteQueueStore(path).open())


def test_a_file_that_sqlite_cannot_open_is_an_os_error(path: Path) -> None:
    with pytest.raises(OSError, match="unable to open"):
        sqlite_file._connect(path, queue_file(path)._migrations, "queue store")


async def test_a_damaged_schema_is_an_os_error_and_frees_the_lock(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE queues (id INTEGER)")
    connection.close()
    for _ in range(2):
        with pytest.raises(OSError, match="already exists"):
            await SqliteQueueStore(path).open()


def test_a_lock_that_the_file_system_lacks_is_an_os_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(descriptor: int, how: int) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(sqlite_file.fcntl, "flock", unsupported)
    with pytest.raises(OSError, match="no locks"):
        queue_file(path).open()


def test_a_file_may_be_closed_twice(path: Path) -> None:
    file = queue_file(path)
    file.open()
    file.close()
    file.close()


async def test_an_id_is_remembered_for_its_time_over_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    store, again = (SqliteQueueStore(tmp_path / "own.db", clock=clock) for _ in range(2))
    await store.open()
    first = await store.send(JOBS, NewMessage("a", sender_id="day", remember_seconds=86400))
    await store.close()
    await again.open()
    await clock.advance(80_000)
    assert await again.find_sent(JOBS, "day") == first
    await again.close()


async def test_everything_survives_reopening(store: SqliteQueueStore, path: Path) -> None:
    first, second = [await store.send(JOBS, NewMessage(text)) for text in "ab"]
    (delivery,) = await store.lease(JOBS, ANN, seconds=1000)
    await store.close()
    again = SqliteQueueStore(path)
    await again.open()
    (other,) = await again.lease(JOBS, ANN, seconds=1000)
    assert other.lease.message_id == second
    await again.ack(delivery.lease)
    await again.ack(other.lease)
    assert await again.send(JOBS, NewMessage("c")) > second > first
    await again.close()


async def test_the_connection_is_as_durable_as_promised(store: SqliteQueueStore) -> None:
    settings = [
        await in_thread(store, lambda db, name=name: db.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("journal_mode", "synchronous", "user_version")
    ]
    assert settings == ["wal", 2, VERSION]
    assert repr(store).endswith("open=True>")


SENDER = """
import asyncio, sys
from pathlib import Path
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.queues import NewMessage, QueueKey
from meshhost.stores.sqlite.queues import SqliteQueueStore

async def main():
    store = SqliteQueueStore(Path(sys.argv[1]))
    await store.open()
    queue = QueueKey(RoomKey(TenantId("acme"), "lobby"), "jobs")
    while True:
        print(await store.send(queue, NewMessage("precious")), flush=True)

asyncio.run(main())
"""


def killed_sender(path: Path) -> list[int]:
    """Return the ids that a process printed before it was killed."""
    with subprocess.Popen([sys.executable, "-c", SENDER, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        accepted = [int(child.stdout.readline()) for _ in range(20)]
        os.kill(child.pid, signal.SIGKILL)
        return accepted + [int(line) for line in child.stdout if line.endswith("\n")]


async def test_what_was_accepted_survives_kill_9(path: Path) -> None:
    accepted = await asyncio.to_thread(killed_sender, path)
    store = SqliteQueueStore(path)
    await store.open()
    kept = {delivery.lease.message_id for delivery in await store.lease(JOBS, ANN, seconds=9, limit=100_000)}
    await store.close()
    assert kept >= set(accepted)


# --- Group commit


async def test_what_waits_together_is_committed_together(store: SqliteQueueStore) -> None:
    statements: list[str] = []
    await in_thread(store, lambda db: db.set_trace_callback(statements.append))
    async with Hold(store):
        sends = [asyncio.create_task(store.send(JOBS, NewMessage(str(number)))) for number in range(50)]
        await asyncio.sleep(0)
        statements.clear()
    ids = await asyncio.gather(*sends)
    assert ids == sorted(set(ids))
    assert statements.count("COMMIT") == 2  # that of the holder's batch is the first


async def test_a_batch_is_bounded(tmp_path: Path) -> None:
    store = SqliteQueueStore(tmp_path / "own.db", pace=Pace(max_batch=10))
    await store.open()
    statements: list[str] = []
    await in_thread(store, lambda db: db.set_trace_callback(statements.append))
    async with Hold(store):
        sends = [asyncio.create_task(store.send(JOBS, NewMessage(str(number)))) for number in range(20)]
        await asyncio.sleep(0)
        statements.clear()
    await asyncio.gather(*sends)
    assert statements.count("COMMIT") == 3
    await store.close()


async def test_an_operation_that_raises_is_rolled_back_alone(store: SqliteQueueStore) -> None:
    def half_done(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO queues (tenant, room, name) VALUES ('acme', 'lobby', 'half')")
        raise ZeroDivisionError

    async with Hold(store):
        operations = [
            asyncio.create_task(operation)
            for operation in (
                store.send(JOBS, NewMessage("a")),
                in_thread(store, half_done),
                store.send(QueueKey(ROOM, "none"), NewMessage("b"), create=False),
                store.send(JOBS, NewMessage("c")),
            )
        ]
        await asyncio.sleep(0)
    first, half, missing, last = await asyncio.gather(*operations, return_exceptions=True)
    assert isinstance(half, ZeroDivisionError)
    assert isinstance(missing, NotFoundError)
    assert isinstance(first, int)
    assert isinstance(last, int)
    assert first < last
    assert [found.name for found in await store.stats(ROOM)] == ["jobs"]


async def test_an_operation_whose_caller_was_cancelled_is_done_all_the_same(store: SqliteQueueStore) -> None:
    async with Hold(store):
        send = asyncio.create_task(store.send(JOBS, NewMessage("a")))
        await asyncio.sleep(0)
        send.cancel()
        with pytest.raises(asyncio.CancelledError):
            await send
    assert len(await store.lease(JOBS, ANN, seconds=9)) == 1


async def test_callers_of_several_loops_are_served(store: SqliteQueueStore) -> None:
    def elsewhere() -> int:
        return asyncio.run(store.send(JOBS, NewMessage("a")))

    async with Hold(store):
        other = asyncio.create_task(asyncio.to_thread(elsewhere))
        mine = asyncio.create_task(store.send(JOBS, NewMessage("b")))
        await asyncio.sleep(0)
    assert await mine != await other


async def test_a_caller_whose_loop_is_closed_does_no_harm(store: SqliteQueueStore) -> None:
    async def give_up() -> None:
        task = asyncio.create_task(store.send(JOBS, NewMessage("a")))
        await asyncio.sleep(0)
        task.cancel()

    async with Hold(store):
        await asyncio.to_thread(lambda: asyncio.run(give_up()))
    await store.send(JOBS, NewMessage("b"))
    assert len(await store.lease(JOBS, ANN, seconds=9, limit=9)) == 2


async def test_closing_finishes_what_was_accepted(store: SqliteQueueStore) -> None:
    async with Hold(store):
        sends = [asyncio.create_task(store.send(JOBS, NewMessage(str(number)))) for number in range(10)]
        await asyncio.sleep(0)
        closing = [asyncio.create_task(store.close()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RoomError, match="not open"):
            await store.send(JOBS, NewMessage("late"))
    await asyncio.gather(*closing)
    assert len(set(await asyncio.gather(*sends))) == 10


async def test_a_thread_that_ends_takes_nothing_more(path: Path) -> None:
    thread = SqliteThread(queue_file(path))
    await thread.start()
    await thread.stop()
    await thread.stop()
    with pytest.raises(RoomError, match="not open"):
        await thread.run(lambda _: None)


async def test_a_cancelled_close_ends_all_the_same(store: SqliteQueueStore) -> None:
    async with Hold(store):
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
    await store.open()
    await store.send(JOBS, NewMessage("a"))


async def test_a_cancelled_open_leaves_no_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Event(), threading.Event()
    lock = sqlite_file.lock_file

    def slowly(path: Path, what: str, *, wait: bool) -> int:
        begun.set()
        go.wait(10)
        return lock(path, what, wait=wait)

    monkeypatch.setattr(sqlite_file, "lock_file", slowly)
    store = SqliteQueueStore(path)
    opening = asyncio.create_task(store.open())
    await asyncio.to_thread(begun.wait, 10)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    go.set()
    await store.close()
    await SqliteQueueStore(path).close()
    await store.open()
    await store.close()


# --- A failing disk


async def test_a_full_disk_fails_what_it_has_no_room_for_and_passes(
    store: SqliteQueueStore, caplog: pytest.LogCaptureFixture
) -> None:
    kept = await store.send(JOBS, NewMessage("kept"))
    pages = await in_thread(store, lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    await in_thread(store, lambda db: db.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone())
    async with Hold(store):
        sends = [asyncio.create_task(store.send(JOBS, NewMessage(text))) for text in ("small", "x" * 100_000, "small")]
        await asyncio.sleep(0)
    small, error, other = await asyncio.gather(*sends, return_exceptions=True)
    assert isinstance(error, StorageFullError)
    assert isinstance(error, OSError)
    assert str(error) == "storage full: the room server's disk has no room for this"
    assert isinstance(error.__cause__, sqlite3.OperationalError)
    assert isinstance(small, int)
    assert isinstance(other, int)
    assert small < other
    assert "store failed" in caplog.text
    assert "database or disk is full" in caplog.text
    await in_thread(store, lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchone())
    await store.send(JOBS, NewMessage("x" * 100_000))
    deliveries = await store.lease(JOBS, ANN, seconds=9, limit=9)
    assert [len(delivery.body) for delivery in deliveries] == [4, 5, 5, 100_000]
    assert deliveries[0].lease.message_id == kept


async def test_a_failing_commit_does_nothing_and_says_so(store: SqliteQueueStore) -> None:
    await make_flawed(store, "COMMIT")
    with pytest.raises(OSError, match="disk I/O error"):  # of the next batch: the present one has its connection
        await store.send(JOBS, NewMessage("a"))
    assert not await store.exists(JOBS)
    await store.send(JOBS, NewMessage("b"))


async def test_a_connection_that_cannot_even_roll_back_is_replaced(store: SqliteQueueStore, path: Path) -> None:
    await make_flawed(store, "COMMIT", "ROLLBACK")
    with pytest.raises(OSError, match="disk I/O error"):
        await store.send(JOBS, NewMessage("a"))
    assert not await store.exists(JOBS)
    with pytest.raises(SettingsError):
        await SqliteQueueStore(path).open()


async def test_a_transaction_that_cannot_begin_fails_the_batch(store: SqliteQueueStore) -> None:
    await make_flawed(store, "BEGIN IMMEDIATE")
    with pytest.raises(OSError, match="disk I/O error"):
        await store.send(JOBS, NewMessage("a"))
    await store.send(JOBS, NewMessage("b"))


# --- Plans


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (
            "promote",
            {"queue": 1, "now": 0, "limit": 1},
            "SEARCH messages USING INDEX messages_waiting (queue_id=? AND due<?)",
        ),
        ("next_due", {}, "USING COVERING INDEX messages_due"),
        ("sweep", {"now": 0, "limit": 1}, "SEARCH messages USING COVERING INDEX messages_due (due<?)"),
        ("leased_by", {"holder": "ann"}, "SEARCH messages USING INDEX messages_held (holder=?)"),
        (
            "first_ready",
            {"queue": 1, "limit": 1},
            "SEARCH messages USING INDEX messages_in_order (queue_id=? AND ready=?)",
        ),
        (
            "over",
            {"now": 0, "limit": 1},
            "SEARCH messages USING INDEX messages_expiring (expires_at<?)",
        ),
        ("next_end", {}, "USING INDEX messages_expiring"),
        ("has_key", {"queue": 1, "key": "k"}, "USING COVERING INDEX messages_of_key (queue_id=? AND key=?)"),
        (
            "let_follow",
            {"queue": 1, "key": "k", "now": 0},
            "USING COVERING INDEX messages_of_key (queue_id=? AND key=?)",
        ),
        ("forget_outcomes", {"now": 0, "limit": 1}, "USING COVERING INDEX outcomes_old (forget_at<?)"),
        (
            "find_plain_leased",
            {"leases": "[]", "tenant": "t", "room": "r", "name": "q"},
            "SEARCH messages USING INTEGER PRIMARY KEY (rowid=?)",
        ),
        (
            "add_done_outcomes",
            {"ids": "[]", "first": 1, "state": "done", "now": 0, "forget_at": 0},
            "SEARCH messages USING INTEGER PRIMARY KEY (rowid=?)",
        ),
        ("delete_messages", {"ids": "[]"}, "SEARCH messages USING INTEGER PRIMARY KEY (rowid=?)"),
    ],
)
async def test_no_statement_reads_all_messages(
    store: SqliteQueueStore, statement: str, values: dict[str, object], index: str
) -> None:
    sql = read_statements("meshhost.stores.sqlite", "queues/queues.sql")[statement]
    rows = await in_thread(store, lambda db: db.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall())
    plan = "\n".join(row[3] for row in rows)
    assert index in plan
    assert "SCAN messages\n" not in f"{plan}\n"
    assert "TEMP B-TREE FOR ORDER BY" not in plan


HOT = {
    "queues/queues.sql": [
        "find_queue", "change_depth", "add_message", "add_plain_message", "add_content", "find_sent", "remember_sent",
        "find_content", "delete_content", "in_progress", "claim", "note_end", "find_leased", "delete_message", "give_back",
        "add_outcome", "bury", "extend", "shorten_holder", "forget_sent", "find_plain_leased", "add_done_outcomes",
        "delete_contents", "delete_messages",
    ],
    "queues/starts.sql": ["find", "keep", "put_off", "begin_anew", "begin_keys_anew", "let_go", "sweep", "forget"],
}  # fmt: skip


@pytest.mark.parametrize(("file", "name"), [(file, name) for file, names in HOT.items() for name in names])
async def test_no_statement_of_a_send_a_lease_or_a_settlement_scans_a_table(
    store: SqliteQueueStore, file: str, name: str
) -> None:
    sql = read_statements("meshhost.stores.sqlite", file)[name]
    values = dict.fromkeys(re.findall(r":([a-z_]+)", sql), 1)
    rows = await in_thread(store, lambda db: db.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall())
    scanned = [row[3] for row in rows if row[3].startswith("SCAN")]
    # The ids that the statement was given, which are few.
    assert [
        each
        for each in scanned
        if each not in ("SCAN json_each VIRTUAL TABLE INDEX 1:", "SCAN wanted VIRTUAL TABLE INDEX 1:")
    ] == []


async def test_the_backlog_of_another_tenant_costs_a_tenant_nothing(store: SqliteQueueStore) -> None:
    """Counts the steps of SQLite's machine, not seconds."""
    other, steps = QueueKey(RoomKey(TenantId("other"), "lobby"), "jobs"), 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    async def cost() -> int:
        before = steps
        for queue in (MAIL, JOBS):
            await store.send(queue, NewMessage("a", key="k", priority=1, sender_id=None))
            (delivery,) = await store.lease(queue, ANN, seconds=30, limit=10)
            await store.extend(delivery.lease, seconds=60)
            await store.nack(delivery.lease, reason=EndReason.FAILED)
            (delivery,) = await store.lease(queue, ANN, seconds=30)
            await store.ack(delivery.lease, result="1")
        await store.next_due()
        return steps - before

    await in_thread(store, lambda db: db.set_progress_handler(count, 1))
    await cost()
    alone = await cost()
    for state in ({}, {"delay": 60.0}, {"key": "k"}, {"ttl": 900.0}):
        await store.send_many(other, [NewMessage("x", **state)] * 500)
    await store.lease(other, HolderId("bob"), seconds=300, limit=200)
    assert await cost() <= alone * 1.05


async def test_leasing_costs_the_same_with_many_messages_waiting(store: SqliteQueueStore) -> None:
    """Counts the steps of SQLite's machine, not seconds."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    async def cost() -> int:
        nonlocal steps
        steps = 0
        (delivery,) = await store.lease(JOBS, ANN, seconds=60)
        await store.nack(delivery.lease, reason=EndReason.RELEASED)
        return steps

    await store.send(JOBS, NewMessage("a"))
    await in_thread(store, lambda db: db.set_progress_handler(count, 1))
    alone = await cost()
    await in_thread(store, lambda db: db.set_progress_handler(None, 1))
    many = """
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        INSERT INTO messages (queue_id, sent_at, due, ready, holder)
        SELECT 1, 0, CASE i % 3 WHEN 0 THEN NULL ELSE 1e12 + i END, i % 3 = 0, CASE i % 3 WHEN 1 THEN 'bob' END FROM n
    """
    await in_thread(store, lambda db: db.execute(many))
    await in_thread(store, lambda db: db.set_progress_handler(count, 1))
    assert await cost() <= alone + 5


async def test_opening_an_open_store_does_nothing(store: SqliteQueueStore) -> None:
    await store.send(JOBS, NewMessage("1"), create=True)
    await store.open()
    assert [delivery.body for delivery in await store.lease(JOBS, HolderId("ann"), seconds=30)] == ["1"]


async def test_a_clock_that_was_set_back_while_the_file_was_closed_prolongs_no_lease_for_ever(path: Path) -> None:
    clock = FakeClock(2_000_000.0)
    store = SqliteQueueStore(path, clock=clock)
    await store.open()
    for body in "ab":
        await store.send(JOBS, NewMessage(body))
    await store.lease(JOBS, ANN, seconds=30)
    (second,) = await store.lease(JOBS, ANN, seconds=30)
    await store.nack(second.lease, reason=EndReason.FAILED, delay=60)
    await store.close()
    clock.step(-1_000_000.0)
    await store.open()
    due = await store.next_due()
    assert due is not None
    assert due <= clock.time() + LONGEST_LEASE
    await clock.advance(LONGEST_LEASE + 1)
    assert await store.sweep() == [JOBS]
    await clock.advance(LONGEST_DELAY)
    assert len(await store.lease(JOBS, ANN, seconds=30, limit=5)) == 2
    await store.close()
