"""The store of documents: what it said is kept, also through a crash at the worst moment."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meshhost.errors import AlreadyExistsError, NotFoundError, RoomError, SettingsError, StorageFullError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.documents import DocumentKey
from meshhost.stores.sqlite.documents import SqliteDocumentStore
from meshhost.testing.clock import FakeClock

ROOM = RoomKey(TenantId("acme"), "lobby")
KEY = DocumentKey(ROOM, "a/b.page")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "documents.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteDocumentStore]:
    store = SqliteDocumentStore(path)
    await store.open()
    yield store
    await store.close()


async def loaded(store: SqliteDocumentStore, key: DocumentKey = KEY) -> tuple[bytes, list[bytes]]:
    found = await store.load(key)
    assert found is not None
    return found.snapshot, list(found.updates)


async def test_a_document_is_its_snapshot_and_the_updates_since(store: SqliteDocumentStore) -> None:
    assert await store.load(KEY) is None
    await store.create(KEY, b"first")
    await asyncio.gather(*(store.append(KEY, bytes([number])) for number in range(5)))
    assert await loaded(store) == (b"first", [bytes([number]) for number in range(5)])
    await store.compact(KEY, b"second")
    await store.append(KEY, b"new")
    assert await loaded(store) == (b"second", [b"new"])


async def test_documents_are_made_once_and_can_be_deleted(store: SqliteDocumentStore) -> None:
    await store.create(KEY, b"first")
    with pytest.raises(AlreadyExistsError, match=r"document 'a/b.page' exists"):
        await store.create(KEY, b"other")
    await store.append(KEY, b"x")
    await store.delete(KEY)
    for missing in (store.delete(KEY), store.append(KEY, b"x"), store.compact(KEY, b"x")):
        with pytest.raises(NotFoundError, match=r"no document 'a/b.page'"):
            await missing
    await store.create(KEY, b"again")
    assert await loaded(store) == (b"again", [])


async def test_rooms_and_folders_are_apart(path: Path) -> None:
    clock = FakeClock()
    store = SqliteDocumentStore(path, clock=clock)
    await store.open()
    other = RoomKey(TenantId("acme"), "other")
    for name in ("x.page", "a/b.page", "a/c/d.page", "ab/e.page", "a%/f.page"):
        await store.create(DocumentKey(ROOM, name), b"")
    await store.create(DocumentKey(other, "a/z.page"), b"")
    made = clock.time()
    await clock.advance(5)
    await store.append(KEY, b"x")
    assert [each.path for each in await store.list(ROOM, "")] == [
        "a%/f.page",
        "a/b.page",
        "a/c/d.page",
        "ab/e.page",
        "x.page",
    ]
    assert [each.path for each in await store.list(ROOM, "a")] == ["a/b.page", "a/c/d.page"]
    found = await store.find(KEY)
    assert found is not None
    assert (found.path, found.created_at, found.updated_at) == ("a/b.page", made, made + 5)
    assert await store.find(DocumentKey(ROOM, "no")) is None
    await store.close()


async def test_a_store_must_be_open_and_is_for_one_process(store: SqliteDocumentStore, path: Path) -> None:
    closed = SqliteDocumentStore(path)
    assert "open=False" in repr(closed)
    with pytest.raises(RoomError, match="document store is not open"):
        await closed.load(KEY)
    with pytest.raises(SettingsError, match=r"document store .* is in use"):
        await closed.open()
    await closed.close()
    await store.close()
    await store.close()
    await closed.open()
    await closed.close()


async def test_a_crash_between_snapshot_and_log_leaves_what_was(store: SqliteDocumentStore) -> None:
    await store.create(KEY, b"first")
    await store.append(KEY, b"x")

    def stumble(db: sqlite3.Connection) -> None:
        db.execute("CREATE TRIGGER stumble BEFORE DELETE ON updates BEGIN SELECT raise(ABORT, 'power cut'); END")

    await store.database.run(stumble)
    with pytest.raises(sqlite3.IntegrityError, match="power cut"):
        await store.compact(KEY, b"second")
    assert await loaded(store) == (b"first", [b"x"])


PROGRAM = textwrap.dedent("""
    import asyncio, os, signal, sys
    from pathlib import Path
    from meshhost.stores.documents import DocumentKey
    from meshhost.stores.sqlite.documents import SqliteDocumentStore
    from meshhost.identity.tenant import RoomKey, TenantId

    async def main():
        store = SqliteDocumentStore(Path(sys.argv[1]))
        await store.open()
        key = DocumentKey(RoomKey(TenantId("acme"), "lobby"), "a/b.page")
        await store.create(key, b"first")
        await store.append(key, b"kept")
        if sys.argv[2] == "compacting":
            def die(statement):
                if statement.startswith("DELETE FROM updates"):
                    os.kill(os.getpid(), signal.SIGKILL)
            await store.database.run(lambda db: db.set_trace_callback(die))
            await store.compact(key, b"second")
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())
""")


@pytest.mark.parametrize("when", ["appended", "compacting"])
async def test_what_was_kept_survives_kill_9(path: Path, when: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(path), when, stderr=subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    store = SqliteDocumentStore(path)
    await store.open()
    assert await loaded(store) == (b"first", [b"kept"])
    await store.close()
    assert (await asyncio.to_thread(path.stat)).st_mode & 0o777 == 0o600


async def test_a_full_disk_is_an_os_error_with_nothing_done(store: SqliteDocumentStore) -> None:
    await store.create(KEY, b"first")

    def pages(db: sqlite3.Connection) -> Any:
        return db.execute("PRAGMA page_count").fetchone()[0]

    count = await store.database.run(pages)
    await store.database.run(lambda db: db.execute(f"PRAGMA max_page_count = {count + 1}").fetchone())
    with pytest.raises(OSError, match=r"storage full") as caught:
        await store.append(KEY, b"x" * 100_000)
    assert isinstance(caught.value, StorageFullError)
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    await store.append(KEY, b"small")
    assert await loaded(store) == (b"first", [b"small"])
