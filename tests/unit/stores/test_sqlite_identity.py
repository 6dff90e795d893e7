"""What only the identity store on disk has: a file that several processes share, and upgrades from each earlier schema."""

import asyncio
import contextlib
import sqlite3
import stat
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import pytest

from meshhost.errors import SettingsError
from meshhost.identity.keys import ApiKey, new_api_key
from meshhost.stores.identity import KeyInfo, Project, RoomInfo
from meshhost.stores.sqlite.identity import SqliteIdentityStore

# As the first release wrote it: no version number, no migrations.
FIRST_RELEASE = """
CREATE TABLE IF NOT EXISTS project (id TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS api_key (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, secret TEXT NOT NULL,
    name TEXT NOT NULL, description TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS room (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, metadata TEXT NOT NULL,
    UNIQUE (project_id, name)
);
"""
CONTENT = """
INSERT INTO project (id, name) VALUES ('p', 'acme');
INSERT INTO api_key (id, project_id, secret, name, description) VALUES ('k', 'p', 'secret', 'n', 'd');
INSERT INTO room VALUES ('r', 'p', 'lobby', '{}');
"""


def migrations() -> Sequence[str]:
    folder = resources.files("meshhost.stores.sqlite") / "migrations" / "identity"
    return [file.read_text() for file in sorted(folder.iterdir(), key=lambda file: file.name)]


def make_file(path: Path, version: int) -> None:
    """Write a file of this version with content; 0 is that of the first release."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        for sql in migrations()[:version] or [FIRST_RELEASE]:
            db.executescript(sql)
        db.executescript(f"{CONTENT} PRAGMA user_version = {version};")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "identity.db"


@pytest.mark.parametrize("version", range(len(migrations()) + 1))
async def test_a_file_of_each_earlier_schema_is_upgraded_without_loss(path: Path, version: int) -> None:
    make_file(path, version)
    store = SqliteIdentityStore(path)
    await store.open()
    assert await store.projects() == [Project("p", "acme")]
    assert await store.keys("p") == [KeyInfo("k", "n", "d")]
    assert await store.find_room("p", "lobby") == RoomInfo("r", "lobby", "{}")
    snapshot = await store.read_keys()
    assert snapshot is not None
    assert snapshot.keys == [ApiKey("k", "p", "secret")]
    await store.delete_key("p", "k")
    assert await store.read_keys(snapshot.version) is not None
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(migrations()),)


async def test_changes_of_an_older_release_are_seen(path: Path) -> None:
    store = SqliteIdentityStore(path)
    await store.open()
    before = await store.read_keys()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.executescript(FIRST_RELEASE + CONTENT)
    assert before is not None
    after = await store.read_keys(before.version)
    assert after is not None
    assert [key.id for key in after.keys] == ["k"]
    await store.close()


async def test_the_file_is_for_its_owner_only(path: Path) -> None:
    store = SqliteIdentityStore(path)
    await store.open()
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert repr(store).endswith("open=True>")
    await store.close()


async def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    make_file(path, 99)
    with pytest.raises(SettingsError, match=r"identity\.db is of version 99"):
        await SqliteIdentityStore(path).open()


async def test_many_servers_that_start_at_once_upgrade_the_file_once(path: Path) -> None:
    make_file(path, 0)
    stores = [SqliteIdentityStore(path) for _ in range(8)]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        assert await store.keys("p") == [KeyInfo("k", "n", "d")]
        await store.close()


OTHER_PROCESS = """
import asyncio, sys
from pathlib import Path
from meshhost.identity.keys import ApiKey
from meshhost.stores.sqlite.identity import SqliteIdentityStore

async def main():
    store = SqliteIdentityStore(Path(sys.argv[1]))
    await store.open()
    await store.delete_key("p", "k")
    await store.add_key(ApiKey("new", "p", "secret"), name="", description="")
    await store.close()

asyncio.run(main())
"""


async def test_another_process_changes_keys_while_the_file_is_open_here(path: Path) -> None:
    make_file(path, 0)
    store = SqliteIdentityStore(path)
    await store.open()
    before = await store.read_keys()
    assert before is not None
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", OTHER_PROCESS, str(path))
    assert await process.wait() == 0
    after = await store.read_keys(before.version)
    assert after is not None
    assert [key.id for key in after.keys] == ["new"]
    key = new_api_key("p")
    await store.add_key(key, name="", description="")
    await store.close()
