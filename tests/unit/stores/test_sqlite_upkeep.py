"""The databases of a data directory are checked, migrated, backed up and restored without a room server."""

import contextlib
import io
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from meshhost.archives.manifest import Manifest
from meshhost.archives.tar import TarEncoder
from meshhost.errors import AlreadyExistsError, InvalidRequestError, SettingsError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.over_engine import queue_service
from meshhost.stores.queues import NewMessage, QueueKey, QueueLimits
from meshhost.stores.sqlite import file as sqlite_file
from meshhost.stores.sqlite.engine import sqlite_engine
from meshhost.stores.sqlite.file import RESTORING, lock_file
from meshhost.stores.sqlite.upkeep.backup import Backup, Progress, read_backup
from meshhost.stores.sqlite.upkeep.files import database_files
from meshhost.stores.sqlite.upkeep.upkeep import SqliteUpkeep
from meshhost.stores.upkeep import Migration

VERSION = len(list((Path(sqlite_file.__file__).parent / "migrations" / "queues").glob("*.sql")))
JOBS = QueueKey(RoomKey(TenantId("acme"), "lobby"), "jobs")
STORES = ["identity", "documents", "usage", "triggers", "configuration", "queues"]


async def filled(data_dir: Path, *bodies: str) -> SqliteUpkeep:
    """A data directory with these messages in a queue, closed again."""
    async with sqlite_engine(data_dir, limits=QueueLimits()) as engine, queue_service(engine) as queues:
        await queues.create(JOBS)
        for body in bodies:
            await queues.send(JOBS, NewMessage(body))
    return SqliteUpkeep(data_dir, wait_seconds=0.0)


def bodies(data_dir: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(data_dir / "queues.db")) as db:
        return [row[0] for row in db.execute("SELECT body FROM contents ORDER BY message_id")]


def execute(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement)


def back_up(upkeep: SqliteUpkeep, target: Path) -> Path:
    upkeep.back_up(target, release="1.2.3", progress=lambda _: nullcontext(lambda _: None))
    return target


def restore(archive: Path, data_dir: Path, *, replace: bool = False) -> Path | None:
    upkeep = SqliteUpkeep(data_dir)
    return upkeep.restore(archive, replace=replace, progress=lambda _: nullcontext(lambda _: None))[1]


def check(upkeep: SqliteUpkeep, archive: Path) -> Backup:
    return upkeep.check_backup(archive, progress=lambda _: nullcontext(lambda _: None))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith((".lock", "-wal", "-shm"))}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """What a server does while it runs."""
    descriptor = lock_file(path, "queue store")
    try:
        yield
    finally:
        os.close(descriptor)


# Look


async def test_the_files_looked_after_are_those_that_the_engine_makes(tmp_path: Path) -> None:
    await filled(tmp_path)
    assert names(tmp_path) == {file.name for file in database_files(tmp_path)}


async def test_a_whole_database_has_no_problem(tmp_path: Path) -> None:
    report = await (await filled(tmp_path, "one")).look()
    assert report.problem is None
    assert report.engine == "sqlite"
    assert report.is_in_use is False
    assert [(store.name, store.state) for store in report.stores] == [(name, "current") for name in STORES]
    assert all(store.bytes > 0 for store in report.stores)


async def test_a_folder_without_databases_is_a_problem_and_stays_empty(tmp_path: Path) -> None:
    report = await SqliteUpkeep(tmp_path).look()
    assert report.problem is not None
    assert "no databases" in report.problem
    assert {store.state for store in report.stores} == {"missing"}
    assert names(tmp_path) == set()


async def test_a_server_that_holds_the_files_is_seen_and_not_disturbed(tmp_path: Path) -> None:
    upkeep = await filled(tmp_path, "one")
    async with sqlite_engine(tmp_path, limits=QueueLimits()):
        report = await upkeep.look()
    assert report.is_in_use is True
    assert report.problem is None


async def test_a_look_that_has_the_lock_for_a_moment_keeps_no_server_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as look:
        look.enter_context(locked(tmp_path / "queues.db"))
        monkeypatch.setattr("meshhost.stores.sqlite.file.time.sleep", lambda _: look.close())
        os.close(lock_file(tmp_path / "queues.db", "queue store"))


async def test_damage_is_found(tmp_path: Path) -> None:
    upkeep = await filled(tmp_path, *("x" * 3000 for _ in range(40)))
    file = tmp_path / "queues.db"
    data = bytearray(file.read_bytes())
    data[8192 : len(data) - 4096] = os.urandom(len(data) - 12288)
    file.write_bytes(data)
    problem = (await upkeep.look()).problem
    assert problem is not None
    assert problem.startswith("queues: the queue store ")
    with pytest.raises(OSError, match=r"queues\.db"):
        back_up(upkeep, tmp_path / "backup.tar")
    assert names(tmp_path) == {f"{name}.db" for name in STORES}


async def test_a_page_that_is_lost_is_found_and_named(tmp_path: Path) -> None:
    upkeep = await filled(tmp_path, *("x" * 3000 for _ in range(40)))
    with sqlite3.connect(tmp_path / "queues.db") as db:
        (page,) = db.execute("SELECT max(pageno) FROM dbstat WHERE name = 'contents' AND pagetype = 'leaf'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    db.close()
    data = bytearray((tmp_path / "queues.db").read_bytes())
    data[(page - 1) * size : page * size] = bytes(size)
    (tmp_path / "queues.db").write_bytes(data)
    problem = (await upkeep.look()).problem
    assert problem is not None
    assert "is damaged: " in problem


async def test_a_file_that_is_no_database_is_found(tmp_path: Path) -> None:
    upkeep = await filled(tmp_path)
    (tmp_path / "usage.db").write_text("not a database, but long enough to be read as one\n" * 100)
    problem = (await upkeep.look()).problem
    assert problem is not None
    assert "usage store" in problem
    assert "not a database" in problem


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DELETE FROM contents", "has 2 messages without their content"),
        ("DELETE FROM messages WHERE id = 1", "has 1 contents without a message"),
    ],
)
async def test_messages_that_lost_their_other_half_are_found(tmp_path: Path, statement: str, problem: str) -> None:
    upkeep = await filled(tmp_path, "one", "two")
    execute(tmp_path / "queues.db", statement)
    found = (await upkeep.look()).problem
    assert found is not None
    assert problem in found


async def test_a_later_version_is_a_problem_and_an_earlier_one_is_not(tmp_path: Path) -> None:
    upkeep = await filled(tmp_path)
    execute(tmp_path / "queues.db", "PRAGMA user_version = 5")
    report = await upkeep.look()
    assert report.problem is None
    assert report.stores[-1].state == "older"
    execute(tmp_path / "queues.db", "PRAGMA user_version = 99")
    problem = (await upkeep.look()).problem
    assert problem == f"queues: version 99 of the schema is newer than {VERSION}: install a newer meshhost"


async def test_databases_of_others_are_looked_at_too(tmp_path: Path) -> None:
    upkeep = await filled(tmp_path)
    execute(tmp_path / "host-ledger.db", "CREATE TABLE agents (id)")
    report = await upkeep.look()
    assert report.problem is None
    assert (report.stores[-1].name, report.stores[-1].state) == ("host-ledger", "other")


# Migrate


async def test_an_empty_folder_is_migrated_from_nothing_once(tmp_path: Path) -> None:
    upkeep = SqliteUpkeep(tmp_path / "data")
    assert [(change.store, change.before, change.after) for change in await upkeep.migrate()] == [
        ("identity", 0, 6), ("documents", 0, 1), ("usage", 0, 2), ("triggers", 0, 1),
        ("configuration", 0, 1), ("queues", 0, VERSION),
    ]  # fmt: skip
    assert await upkeep.migrate() == []
    assert (await upkeep.look()).problem is None


async def test_only_what_is_old_is_migrated(tmp_path: Path) -> None:
    upkeep = await filled(tmp_path, "one")
    (tmp_path / "triggers.db").unlink()
    assert await upkeep.migrate() == [Migration("triggers", 0, 1)]
    assert bodies(tmp_path) == ["one"]


async def test_nothing_is_migrated_while_a_server_holds_one_of_the_files(tmp_path: Path) -> None:
    upkeep = await filled(tmp_path)
    for name in ("identity", "triggers"):
        (tmp_path / f"{name}.db").unlink()
    with locked(tmp_path / "queues.db"), pytest.raises(SettingsError, match=r"queues\.db is in use"):
        await upkeep.migrate()
    assert not (tmp_path / "identity.db").exists()
    assert not (tmp_path / "triggers.db").exists()


async def test_a_migration_waits_for_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    with contextlib.ExitStack() as other:
        other.enter_context(locked(tmp_path / "data" / "queues.db"))
        sleeps: list[float] = []

        def sleep(seconds: float) -> None:
            sleeps.append(seconds)
            if len(sleeps) == 2:  # the first is that of the lock itself
                other.close()

        monkeypatch.setattr("meshhost.stores.sqlite.upkeep.upkeep.time.sleep", sleep)
        assert len(await SqliteUpkeep(tmp_path / "data", wait_seconds=60).migrate()) == 6


async def test_a_server_of_this_version_does_not_matter(tmp_path: Path) -> None:
    upkeep = await filled(tmp_path)
    async with sqlite_engine(tmp_path, limits=QueueLimits()):
        assert await upkeep.migrate() == []


async def test_a_newer_file_is_not_migrated(tmp_path: Path) -> None:
    upkeep = await filled(tmp_path)
    execute(tmp_path / "documents.db", "PRAGMA user_version = 99")
    with pytest.raises(SettingsError, match=r"documents\.db is of version 99, newer than 1"):
        await upkeep.migrate()


# Back up and restore


async def test_what_was_backed_up_is_there_after_a_restore(tmp_path: Path) -> None:
    upkeep = await filled(tmp_path / "data", "one", "two")
    execute(tmp_path / "data" / "host-ledger.db", "CREATE TABLE agents (id)")
    archive = back_up(upkeep, tmp_path / "backup.tar")
    assert archive.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == {"data", "backup.tar"}
    assert restore(archive, tmp_path / "new") is None
    assert names(tmp_path / "new") == {*(f"{name}.db" for name in STORES), "host-ledger.db"}
    assert bodies(tmp_path / "new") == ["one", "two"]
    async with sqlite_engine(tmp_path / "new", limits=QueueLimits()) as engine, queue_service(engine) as queues:
        assert await queues.send(JOBS, NewMessage("three"))


async def test_a_file_of_queues_elsewhere_is_backed_up_and_goes_back_there(tmp_path: Path) -> None:
    await filled(tmp_path / "data", "one")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "queues.db").rename(tmp_path / "elsewhere" / "q.db")
    archive = back_up(SqliteUpkeep(tmp_path / "data", queues=tmp_path / "elsewhere" / "q.db"), tmp_path / "backup.tar")
    there = SqliteUpkeep(tmp_path / "new", queues=tmp_path / "new" / "deep" / "q.db")
    there.restore(archive, replace=False, progress=lambda _: nullcontext(lambda _: None))
    assert (tmp_path / "new" / "deep" / "q.db").exists()
    assert not (tmp_path / "new" / "queues.db").exists()
    assert (await there.look()).problem is None


async def test_a_backup_is_of_the_moment_when_it_began(tmp_path: Path) -> None:
    upkeep = await filled(tmp_path / "data", *("x" * 4000 for _ in range(600)))
    advanced: list[int] = []

    @contextmanager
    def writing(total: int) -> Iterator[Progress]:
        with contextlib.closing(sqlite3.connect(tmp_path / "data" / "queues.db", isolation_level=None)) as db:

            def advance(done: int) -> None:
                advanced.append(done)
                db.execute("UPDATE contents SET body = 'y' || body")

            yield advance
        assert sum(advanced) == total

    upkeep.back_up(tmp_path / "backup.tar", release="1", progress=writing)
    assert len([done for done in advanced if done]) > len(STORES)  # it took several steps, and began none again
    restore(tmp_path / "backup.tar", tmp_path / "new")
    assert set(bodies(tmp_path / "new")) == {"x" * 4000}


async def test_a_backup_replaces_no_file_and_needs_something_to_back_up(tmp_path: Path) -> None:
    upkeep = await filled(tmp_path / "data")
    (tmp_path / "backup.tar").write_text("precious")
    with pytest.raises(AlreadyExistsError):
        back_up(upkeep, tmp_path / "backup.tar")
    assert (tmp_path / "backup.tar").read_text() == "precious"
    with pytest.raises(SettingsError, match="nothing to back up"):
        back_up(SqliteUpkeep(tmp_path / "none"), tmp_path / "other.tar")


async def test_a_restore_needs_an_empty_folder(tmp_path: Path) -> None:
    archive = back_up(await filled(tmp_path / "data", "one"), tmp_path / "backup.tar")
    upkeep = await filled(tmp_path / "new", "other")
    assert upkeep.has_databases
    with pytest.raises(AlreadyExistsError, match="is not empty, it has databases"):
        restore(archive, tmp_path / "new")
    assert bodies(tmp_path / "new") == ["other"]


async def test_a_forced_restore_keeps_what_it_replaces(tmp_path: Path) -> None:
    archive = back_up(await filled(tmp_path / "data", "one"), tmp_path / "backup.tar")
    await filled(tmp_path / "new", "other")
    execute(tmp_path / "new" / "host-ledger.db", "CREATE TABLE agents (id)")
    kept = restore(archive, tmp_path / "new", replace=True)
    assert kept is not None
    assert bodies(kept) == ["other"]
    assert bodies(tmp_path / "new") == ["one"]
    assert names(tmp_path / "new") == {*(f"{name}.db" for name in STORES), "host-ledger.db", kept.name}


async def test_two_forced_restores_keep_two_folders(tmp_path: Path) -> None:
    archive = back_up(await filled(tmp_path / "data", "one"), tmp_path / "backup.tar")
    await filled(tmp_path / "new", "other")
    kept = {restore(archive, tmp_path / "new", replace=True) for _ in range(3)}
    assert len(kept) == 3
    assert sum(bodies(folder) == ["other"] for folder in kept if folder) == 1


async def test_a_store_that_is_not_in_the_backup_does_not_stay(tmp_path: Path) -> None:
    upkeep = await filled(tmp_path / "data")
    (tmp_path / "data" / "triggers.db").unlink()
    archive = back_up(upkeep, tmp_path / "backup.tar")
    await filled(tmp_path / "new")
    restore(archive, tmp_path / "new", replace=True)
    assert not (tmp_path / "new" / "triggers.db").exists()


async def test_nothing_is_restored_while_a_server_runs(tmp_path: Path) -> None:
    archive = back_up(await filled(tmp_path / "data", "one"), tmp_path / "backup.tar")
    await filled(tmp_path / "new", "other")
    async with sqlite_engine(tmp_path / "new", limits=QueueLimits()):
        with pytest.raises(SettingsError, match="is in use"):
            restore(archive, tmp_path / "new", replace=True)
    assert bodies(tmp_path / "new") == ["other"]


async def test_a_backup_is_checked_without_being_restored(tmp_path: Path) -> None:
    archive = back_up(await filled(tmp_path / "data", "one"), tmp_path / "backup.tar")
    upkeep = SqliteUpkeep(tmp_path / "new")
    assert [one.name for one in check(upkeep, archive).databases] == [f"{name}.db" for name in STORES]
    archive.write_bytes(archive_of(manifest_of("queues.db"), queues=b"no database" * 500).getvalue())
    with pytest.raises(OSError, match=r"the database queues\.db is damaged"):
        check(upkeep, archive)
    assert names(tmp_path) == {"data", "backup.tar"}


async def test_a_damaged_archive_changes_nothing(tmp_path: Path) -> None:
    archive = back_up(await filled(tmp_path / "data", "one"), tmp_path / "backup.tar")
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    await filled(tmp_path / "new", "other")
    with pytest.raises(InvalidRequestError, match="damaged"):
        restore(archive, tmp_path / "new", replace=True)
    assert bodies(tmp_path / "new") == ["other"]


def archive_of(manifest: object, **entries: bytes) -> io.BytesIO:
    tar = TarEncoder()
    data = tar.entry("manifest.json", manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode())
    for name, content in entries.items():
        data += tar.entry(f"{name}.db", content)
    return io.BytesIO(data + tar.finish())


def manifest_of(*names: str, **changes: object) -> dict[str, object]:
    databases = [{"name": name, "version": 1, "bytes": 1} for name in names]
    usual = {"format": "meshhost backup", "version": 1, "created_at": 1.0, "release": "1", "databases": databases}
    return usual | changes


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (io.BytesIO(TarEncoder().finish()), "it is no backup"),
        (io.BytesIO((tar := TarEncoder()).entry("other", b"") + tar.finish()), "it is no backup"),
        (archive_of(b"[" * 9), "the manifest is not one"),
        (archive_of({"format": "other", "version": 1}), "the manifest is not one"),
        (archive_of(manifest_of(version="1")), "the manifest is not one"),
        (archive_of(manifest_of(version=2)), "install a newer meshhost"),
        (archive_of(manifest_of(databases=[1])), "the manifest is not one"),
        (archive_of(manifest_of("queues.db")), "not those of the manifest"),
        (archive_of(manifest_of(".hidden.db"), **{".hidden": b""}), "not those of the manifest"),
        (archive_of(Manifest("tenant", "acme", 1.0).to_json()), "use `meshhost tenant import`"),
    ],
)
def test_what_is_no_backup_is_refused(archive: io.BytesIO, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        read_backup(archive)


async def test_a_damaged_database_in_a_whole_archive_changes_nothing(tmp_path: Path) -> None:
    await filled(tmp_path / "new", "other")
    archive = tmp_path / "backup.tar"
    archive.write_bytes(archive_of(manifest_of("queues.db"), queues=b"no database" * 500).getvalue())
    with pytest.raises(OSError, match=r"the database queues\.db is damaged"):
        restore(archive, tmp_path / "new", replace=True)
    assert bodies(tmp_path / "new") == ["other"]
    assert names(tmp_path / "new") == {f"{name}.db" for name in STORES}


async def test_a_backup_of_a_later_release_is_refused_with_its_name(tmp_path: Path) -> None:
    upkeep = await filled(tmp_path / "data")
    execute(tmp_path / "data" / "queues.db", "PRAGMA user_version = 99")
    archive = back_up(upkeep, tmp_path / "backup.tar")
    with pytest.raises(InvalidRequestError, match=rf"newer than {VERSION}: install meshhost 1\.2\.3"):
        restore(archive, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("replace", [False, True])
async def test_when_a_file_cannot_be_put_in_place_all_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, replace: bool
) -> None:
    archive = back_up(await filled(tmp_path / "data", "one"), tmp_path / "backup.tar")
    (tmp_path / "new").mkdir()
    if replace:
        await filled(tmp_path / "new", "other")
    before, rename = names(tmp_path / "new"), Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == ".queues.db.restoring":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no"):
        restore(archive, tmp_path / "new", replace=replace)
    assert names(tmp_path / "new") == before
    assert not replace or bodies(tmp_path / "new") == ["other"]


async def test_after_a_restore_that_was_killed_no_store_opens_until_one_has_finished(tmp_path: Path) -> None:
    archive = back_up(await filled(tmp_path / "data", "one"), tmp_path / "backup.tar")
    upkeep = await filled(tmp_path / "new", "other")
    (tmp_path / "new" / RESTORING).touch()
    (tmp_path / "new" / "identity.db").unlink()
    with pytest.raises(SettingsError, match="did not finish"):
        await sqlite_engine(tmp_path / "new", limits=QueueLimits()).open()
    with pytest.raises(SettingsError, match="did not finish"):
        back_up(upkeep, tmp_path / "other.tar")
    problem = (await upkeep.look()).problem
    assert problem is not None
    assert "did not finish" in problem
    with pytest.raises(AlreadyExistsError, match="did not finish"):
        restore(archive, tmp_path / "new")
    restore(archive, tmp_path / "new", replace=True)
    assert bodies(tmp_path / "new") == ["one"]
    async with sqlite_engine(tmp_path / "new", limits=QueueLimits()):
        pass


async def test_an_unfinished_restore_stays_one_when_the_next_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = back_up(await filled(tmp_path / "data", "one"), tmp_path / "backup.tar")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / RESTORING).touch()

    def failing(self: Path, target: Path) -> Path:
        raise OSError("no")

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no"):
        restore(archive, tmp_path / "new", replace=True)
    assert names(tmp_path / "new") == {RESTORING}
