"""`meshhost db copy`: an installation moves from SQLite to PostgreSQL, also when the copy is killed, with nothing forgotten."""

import asyncio
import contextlib
import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from doubles.postgres import PostgresServer

from meshhost.cli.main import run
from meshhost.errors import InvalidRequestError, SettingsError
from meshhost.identity.keys import new_api_key
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.configuration.contract import ConfigurationItem, ItemKind
from meshhost.stores.documents import DocumentKey
from meshhost.stores.engine import Engine
from meshhost.stores.identity import Project, RoomInfo
from meshhost.stores.messages import EndReason, MessageQuery, MessageRecord, MessageState, NewMessage
from meshhost.stores.moving import copy as moving
from meshhost.stores.moving.copy import Advance, Copy, copy_to_postgres
from meshhost.stores.moving.tables import NOT_COPIED, TABLES
from meshhost.stores.postgres.engine import postgres_engine
from meshhost.stores.postgres.upkeep import PostgresUpkeep
from meshhost.stores.postgres.upkeep.target import PostgresTarget
from meshhost.stores.queue_settings import QueueSettings
from meshhost.stores.queues import HolderId, Lease, QueueKey, QueueLimits
from meshhost.stores.sqlite.engine import sqlite_engine
from meshhost.stores.sqlite.upkeep.upkeep import SqliteUpkeep
from meshhost.stores.triggers.contract import LogEntry, Trigger, TriggerKind
from meshhost.stores.usage import UsageCounts, UsageKey
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KEY = new_api_key("aaaaaaaa-1111-2222-3333-444444444444")
LOBBY = RoomKey(TenantId(KEY.project_id), "lobby")
JOBS, MAIL, OLD = (QueueKey(LOBBY, name) for name in ("jobs", "mail", "old"))
ANN, BOB = HolderId("ann"), HolderId("bob")
SHORT = 0.05

# Kills the command before it writes for the n-th time; small batches make that happen in the middle of a table.
KILLED = """
import os, signal, sys
from meshhost.cli.main import main
from meshhost.stores.moving import copy
from meshhost.stores.postgres.upkeep.target import PostgresTarget

left, write = int(sys.argv.pop(1)), PostgresTarget.write

async def counted(self, *arguments, **named):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return await write(self, *arguments, **named)

PostgresTarget.write = counted
copy._BATCH_ROWS = 300
main()
"""


async def filled(engine: Engine) -> dict[str, Lease]:
    """Two thousand messages in all states, and something in every other table. Returns leases that are held."""
    queues, leases = engine.queues, {}
    await engine.identity.add_project(Project(KEY.project_id, "acme"))
    await engine.identity.add_key(KEY, name="first", description="")
    await engine.identity.record_key_use({KEY.id: 5.0})
    await engine.identity.add_room(KEY.project_id, RoomInfo("r1", "lobby", '{"a": "é"}'))
    await engine.identity.begin_room_deletion(KEY.project_id, "gone", 7.5)
    await engine.identity.end_room_deletion(KEY.project_id, "gone")
    await engine.identity.set_quota(KEY.project_id, {"max_queues": 5.0, "max_messages": None})
    await engine.identity.add_project(Project("bbbb", "was-here"))
    await engine.identity.close_project("bbbb")
    await engine.identity.delete_project("bbbb")
    await engine.documents.create(DocumentKey(LOBBY, "notes/a"), b"\x00snapshot")
    for number in range(3):
        await engine.documents.append(DocumentKey(LOBBY, "notes/a"), b"\xff\x00" + bytes([number]))
    await engine.usage.add(
        {UsageKey(LOBBY.tenant, "lobby", "ann", "m", 3600, "USD 1 1 1 4"): UsageCounts(2, 10, 1, 5, 0.1, 1, 3)}
    )
    await engine.triggers.add(Trigger("t1", TriggerKind.SCHEDULE, LOBBY, '{"every": 60}', due_at=1e9 + 0.1))
    await engine.triggers.add(Trigger("t2", TriggerKind.HOOK, LOBBY, '{"secret": "s"}'))
    await engine.triggers.add_entry("t1", LogEntry(3.0, '{"sent": 1}'))
    secret = ConfigurationItem("c1", ItemKind.SECRET, LOBBY.tenant, "mail", '{"key": "é"}', 1.5, 2.5)
    await engine.configuration.add(secret, most=9)
    await engine.configuration.add(replace(secret, id="c2", kind=ItemKind.SERVICE, room="lobby"), most=9)
    await engine.configuration.add_entry("c2", LogEntry(4.0, '{"status": 200}'))

    await queues.create(OLD)
    await queues.send(OLD, NewMessage("gone"))
    await queues.drain(OLD)  # another id from now on
    await queues.send(OLD, NewMessage("stays", sender_id="twice"))
    await queues.create(QueueKey(LOBBY, "deleted"))
    await queues.send(QueueKey(LOBBY, "deleted"), NewMessage("gone", key="k"))
    await queues.delete(QueueKey(LOBBY, "deleted"))
    await queues.create(MAIL)
    # The rates are used up for an hour, so that what they allow later is copied too.
    await queues.configure(
        MAIL, QueueSettings(max_attempts=1, retry_seconds=2.5, rate="60/h", burst=40, key_rate="1/h")
    )

    large = json.dumps("x" * 20_000)
    messages = [NewMessage(f'{{"n": {n}, "é": "\\u0000"}}', {"traceparent": str(n)}) for n in range(800)]
    messages += [NewMessage(str(n), priority=n % 7 - 3) for n in range(300)]
    messages += [
        NewMessage(large if n % 50 == 0 else str(n), key=f"é{n % 10}", delay=n % 2 * 5000.0) for n in range(500)
    ]
    messages += [NewMessage(str(n), delay=3600.0 + n, ttl=1e6, sender_id=f"sender-{n}") for n in range(250)]
    for first in range(0, len(messages), 1000):
        await queues.send_many(JOBS, messages[first : first + 1000])
    await queues.send_many(MAIL, [NewMessage(f'"{n}"', key="k" if n % 3 else None) for n in range(150)])

    for n, delivery in enumerate(await queues.lease(JOBS, ANN, seconds=1000.0, limit=60, by='a "host"')):
        if n % 3 == 0:
            await queues.ack(delivery.lease, result='{"done": true}')
        elif n % 3 == 1:
            await queues.nack(delivery.lease, reason=EndReason.FAILED, error='Traceback "é"\n', delay=500.0)
        else:
            await queues.extend(delivery.lease, seconds=1000.0, progress='{"fraction": 0.5}')
            leases["held"] = delivery.lease
    [cancelling, short] = await queues.lease(JOBS, BOB, seconds=1000.0, limit=2)
    await queues.cancel(JOBS, cancelling.lease.message_id)
    leases["short"] = await queues.extend(short.lease, seconds=SHORT)
    for delivery in await queues.lease(MAIL, ANN, seconds=1000.0, limit=40):
        await queues.nack(delivery.lease, reason=EndReason.FAILED, error="no", delay=0.0)
    waiting = next(record for record in await known(engine, JOBS) if record.state is MessageState.DELAYED)
    await queues.cancel(JOBS, waiting.id)
    await queues.configure(OLD, QueueSettings(paused=True, result_ttl=99.0))
    return leases


async def known(engine: Engine, queue: QueueKey) -> list[MessageRecord]:
    """All messages of a queue, whatever their state, with times of leases and delays to a tenth of a second.

    Those that began have their history.
    """
    found: list[MessageRecord] = []
    query = MessageQuery(limit=50)
    while True:
        page = await engine.queues.find(queue, query)
        for record in page.messages:
            whole = record if not (record.began_at or record.deliveries) else await engine.queues.get(queue, record.id)
            assert whole is not None
            times = {name: getattr(whole, name) for name in ("due_at", "expires_at", "lease_until")}
            found.append(replace(whole, **{name: time and round(time, 1) for name, time in times.items()}))
        if page.next is None:
            return found
        query = replace(query, before=page.next)


async def told(engine: Engine) -> dict[str, Any]:
    """All that an engine tells of what `filled` stored."""
    answers: dict[str, Any] = {}
    for queue in (JOBS, MAIL, OLD):
        answers[f"messages of {queue.name}"] = await known(engine, queue)
        answers[f"next of {queue.name}"] = [record.id for record in await engine.queues.peek(queue, limit=50)]
        answers[f"settings of {queue.name}"] = await engine.queues.settings(queue)
        answers[f"dead of {queue.name}"] = await engine.queues.dead_letters(queue, limit=100)
    answers["stats"] = [replace(stats, oldest_age=None) for stats in await engine.queues.stats(LOBBY)]
    answers["sent"] = [await engine.queues.find_sent(JOBS, f"sender-{n}") for n in range(3)]
    answers["twice"] = await engine.queues.find_sent(OLD, "twice")
    snapshot = await engine.identity.read_keys()
    assert snapshot is not None
    answers["keys"] = replace(snapshot, version=0)
    answers["key use"] = await engine.identity.keys(KEY.project_id)
    answers["projects"] = await engine.identity.projects()
    answers["rooms"] = await engine.identity.rooms(KEY.project_id, limit=10, offset=0)
    answers["document"] = await engine.documents.load(DocumentKey(LOBBY, "notes/a"))
    answers["documents"] = await engine.documents.list(LOBBY, "notes")
    answers["usage"] = await engine.usage.read(LOBBY.tenant)
    answers["triggers"] = [await engine.triggers.list(LOBBY.tenant, kind=kind) for kind in TriggerKind]
    answers["configuration"] = [await engine.configuration.list(LOBBY.tenant, kind) for kind in ItemKind]
    answers["deliveries"] = await engine.configuration.entries("c2")
    answers["log"] = await engine.triggers.entries("t1")
    return answers


def in_postgres(url: str) -> Engine:
    return postgres_engine(url, limits=QueueLimits())


def command(data_dir: Path, url: str, *options: str) -> list[str]:
    return ["db", "copy", f"sqlite:///{data_dir}", url, *options]


@contextmanager
def unseen(total: int) -> Iterator[Advance]:
    """Progress that nobody looks at, but that must add up."""
    done: list[int] = []
    yield done.append
    assert sum(done) == total


async def copied(data_dir: Path, url: str) -> Copy:
    return await copy_to_postgres(SqliteUpkeep(data_dir).files, url, progress=unseen)


async def test_a_copy_that_was_killed_goes_on_and_the_target_then_tells_what_the_source_told(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    data_dir, url = tmp_path / "data", postgres_server.new_database()
    async with sqlite_engine(data_dir, limits=QueueLimits()) as source:
        leases = await filled(source)
        before = await told(source)
    program = [sys.executable, "-c", KILLED, "18", *command(data_dir, url)]
    killed = await asyncio.to_thread(subprocess.run, program, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(SettingsError, match="a copy into this database did not finish"):
        await in_postgres(url).open()
    program = [sys.executable, "-m", "meshhost.cli.main", *command(data_dir, url, "--json")]
    done = await asyncio.to_thread(subprocess.run, program, timeout=60, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["rows"] > report["resumed_rows"] > 600
    counts = {table["name"]: table["rows"] for table in report["tables"]}
    assert all(counts.values()), counts  # no table is tested with nothing
    assert counts["messages"] + counts["dead_letters"] + counts["outcomes"] == 2001
    assert report["leased"] == 22

    async with in_postgres(url) as target:
        after = await told(target)
        assert set(after) == set(before)
        for name, answer in before.items():
            assert after[name] == answer, name
        assert (await PostgresUpkeep(url).look()).problem is None
        # A worker that goes on with its lease settles its message; a lease that ended makes its message ready again.
        await target.queues.ack(leases["held"], result="1")
        settled = await target.queues.get(JOBS, leases["held"].message_id)
        assert settled is not None
        assert settled.state is MessageState.DONE
        lost = await target.queues.get(JOBS, leases["short"].message_id)
        assert lost is not None
        assert lost.state is MessageState.READY
        # No id is given twice.
        newest = max(record.id for record in await known(target, MAIL))
        assert await target.queues.send(JOBS, NewMessage("new")) > newest
        await target.queues.create(QueueKey(LOBBY, "another"))
        await target.documents.create(DocumentKey(LOBBY, "another"), b"")
        await target.triggers.add_entry("t1", LogEntry(4.0, "{}"))
        await target.identity.add_key(new_api_key(KEY.project_id), name="second", description="")

    # A room server on the copy knows the tenant's key.
    async with (
        running_server(tmp_path / "new", database_url=url) as server,
        RunningServer(server.server, KEY).client("lobby") as room,
    ):
        record = await room.queues.get("jobs", str(leases["held"].message_id))
        assert record is not None
        assert record.result == 1
        assert [queue.name for queue in await room.queues.list()] == ["another", "jobs", "mail", "old"]


async def test_every_table_and_column_is_copied_or_left_behind_for_a_reason(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """What a migration adds has a place in `stores/moving/tables.py`, or this fails."""
    url = postgres_server.new_database()
    await PostgresUpkeep(url).migrate()
    await SqliteUpkeep(tmp_path).migrate()
    with psycopg.connect(url) as connection:
        there = dict(
            connection.execute(
                "SELECT table_name, array_agg(column_name::text) FROM information_schema.columns "
                "WHERE table_schema = 'meshhost' AND is_generated = 'NEVER' GROUP BY table_name"
            ).fetchall()
        )
    here: dict[tuple[str, str], set[str]] = {}
    for file in SqliteUpkeep(tmp_path).files:
        with closing(sqlite3.connect(file.path)) as db:
            for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
                if not table.startswith("sqlite_"):
                    columns = db.execute(f"SELECT name FROM pragma_table_info('{table}')")
                    here[file.store, table] = {name for (name,) in columns}

    assert {table.name for table in TABLES} == set(there) - set(NOT_COPIED)
    assert {(table.store, table.source) for table in TABLES} == {
        (store, table) for store, table in here if table not in NOT_COPIED
    }
    for table in TABLES:
        columns = here[table.store, table.source]
        written, used = set(there[table.name]), set()
        for column in written:
            used |= set(re.findall(r"\w+", table.columns.get(column, column)))
        used |= set(re.findall(r"\w+", table.joined))
        assert set(table.columns) <= written, table.name
        missing = written - set(table.columns) - columns
        assert not missing, f"{table.name}: say what of SQLite becomes {missing}"
        forgotten = columns - used - table.unused
        assert not forgotten, f"{table.source}: say what becomes of {forgotten}, or that it is unused"


async def test_what_changed_since_a_copy_was_interrupted_is_copied_too(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir, url = tmp_path / "data", postgres_server.new_database()
    async with sqlite_engine(data_dir, limits=QueueLimits()) as source:
        await source.queues.send_many(JOBS, [NewMessage(str(n)) for n in range(100)])
    write = PostgresTarget.write

    async def failing(
        self: PostgresTarget, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, copied: int
    ) -> None:
        if table == "contents" and copied > 50:
            raise OSError("PostgreSQL went away")
        await write(self, table, columns, rows, copied=copied)

    monkeypatch.setattr(PostgresTarget, "write", failing)
    monkeypatch.setattr(moving, "_BATCH_ROWS", 30)
    with pytest.raises(OSError, match="went away"):
        await copied_at_last(data_dir, url)
    monkeypatch.undo()
    async with sqlite_engine(data_dir, limits=QueueLimits()) as source:
        for delivery in await source.queues.lease(JOBS, ANN, seconds=10.0, limit=5):
            await source.queues.ack(delivery.lease)
    assert (await copied_at_last(data_dir, url)).resumed == 1 + 100 + 30
    async with in_postgres(url) as target:
        states = [record.state for record in await known(target, JOBS)]
    assert (states.count(MessageState.READY), states.count(MessageState.DONE)) == (95, 5)


async def copied_at_last(data_dir: Path, url: str) -> Copy:
    """A copy that begins anew, so that progress does not add up."""

    @contextmanager
    def unwatched(total: int) -> Iterator[Advance]:
        yield lambda rows: None

    return await copy_to_postgres(SqliteUpkeep(data_dir).files, url, progress=unwatched)


async def test_a_copy_that_differs_from_its_source_is_an_error_and_no_server_opens_it(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir, url = tmp_path / "data", postgres_server.new_database()
    async with sqlite_engine(data_dir, limits=QueueLimits()) as source:
        await source.queues.send_many(JOBS, [NewMessage("1"), NewMessage("2")])
    write = PostgresTarget.write

    async def forgetful(
        self: PostgresTarget, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, copied: int
    ) -> None:
        await write(self, table, columns, rows[1:] if table == "contents" else rows, copied=copied)

    monkeypatch.setattr(PostgresTarget, "write", forgetful)
    with pytest.raises(OSError, match="differs from its source in contents"):
        await copied_at_last(data_dir, url)
    with pytest.raises(SettingsError, match="did not finish"):
        await in_postgres(url).open()
    monkeypatch.undo()
    assert (await copied_at_last(data_dir, url)).rows == 5


async def test_a_copy_is_refused_while_a_server_runs_and_into_what_is_not_empty(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url, data_dir = postgres_server.new_database(), tmp_path / "data"
    async with running_server(data_dir):
        with pytest.raises(SettingsError, match="is in use: stop the other server"):
            await copied(data_dir, url)
    async with running_server(tmp_path / "other", database_url=url):
        with pytest.raises(SettingsError, match="another room server uses this database"):
            await copied(data_dir, url)
    with pytest.raises(SettingsError, match="is not empty: it has rows in projects"):
        await copied(data_dir, url)
    await copied(data_dir, other := postgres_server.new_database())
    with pytest.raises(SettingsError, match="is not empty"):
        await copied(data_dir, other)


async def test_a_source_that_is_missing_older_or_damaged_is_refused(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url = postgres_server.new_database()
    with pytest.raises(SettingsError, match="there is nothing to copy"):
        await copied(tmp_path, url)
    await SqliteUpkeep(tmp_path).migrate()
    (tmp_path / "usage.db").unlink()
    with pytest.raises(SettingsError, match="run `meshhost db migrate` first"):
        await copied(tmp_path, url)
    await SqliteUpkeep(tmp_path).migrate()
    with contextlib.closing(sqlite3.connect(tmp_path / "triggers.db")) as db:
        db.execute("INSERT INTO triggers VALUES ('t', 'hook', 'a' || char(0), 'b', '{}', NULL, 1)")
        db.commit()
    with pytest.raises(InvalidRequestError, match=r"triggers.tenant: a row holds the character NUL"):
        await copied(tmp_path, url)
    with contextlib.closing(sqlite3.connect(tmp_path / "triggers.db")) as db:
        db.execute("DROP TABLE trigger_log")
    with pytest.raises(OSError, match="the triggers store cannot be read: no such table"):
        await copied(tmp_path, url)
    (tmp_path / "usage.db").write_bytes(b"no database")
    with pytest.raises(OSError, match="usage"):
        await copied(tmp_path, url)
    assert (await PostgresUpkeep(postgres_server.new_database()).look()).is_in_use is False  # nothing holds a lock


def test_urls_that_cannot_be_copied_name_what_does_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, pg = f"sqlite:///{tmp_path}", "postgresql://127.0.0.1:1/x"
    for source, target, expected in (
        (pg, pg, "FROM_URL: a copy from PostgreSQL is not supported: take `pg_dump`"),
        ("mysql://x", pg, "FROM_URL: expected sqlite:///FOLDER"),
        ("sqlite:///", pg, "FROM_URL: expected sqlite:///FOLDER"),
        (f"{data}/missing", pg, f"FROM_URL: there is no folder or file {tmp_path}/missing"),
        (data, data, "TO_URL: expected postgresql://…: to another data folder take `meshhost db backup`"),
        (data, "x", "TO_URL: expected postgresql://…"),
        (data, pg, f"no databases in {tmp_path}: there is nothing to copy"),
    ):
        assert run(["db", "copy", source, target]) == 1
        assert expected in capsys.readouterr().err


async def test_a_file_of_queues_elsewhere_is_copied_and_the_rest_from_the_data_folder(
    postgres_server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere, url = tmp_path / "elsewhere.db", postgres_server.new_database()
    async with sqlite_engine(tmp_path / "data", queues=elsewhere, limits=QueueLimits()) as source:
        await source.queues.send(JOBS, NewMessage("1"))
        await source.queues.lease(JOBS, ANN, seconds=1000.0)
    (tmp_path / "data" / "ledger.db").write_bytes(b"")
    arguments = ["db", "copy", f"sqlite:///{elsewhere}", url, "--data-dir", str(tmp_path / "data")]
    assert await asyncio.to_thread(run, arguments) == 0
    out, err = capsys.readouterr()
    assert "messages\t1\t" in out
    assert "1 messages are under lease" in out
    assert f"files of rooms and large messages ({tmp_path}/data/storage" in err
    assert "ledger.db" in err
