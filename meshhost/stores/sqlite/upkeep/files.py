"""The database files of a data directory, and what can be learnt of each while a server may be writing it.

The stores know their own files; this table names all of them for those who look after them without opening a store. Other
`*.db` files of the directory, such as a host's ledger, are checked and backed up too, but their schemas are not known here.
Everything here reads through connections that cannot write, and takes no lock for longer than a look.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from meshhost.stores.sqlite.file import SqliteFile, is_restore_unfinished
from meshhost.stores.upkeep import StoreReport

__all__ = ["DatabaseFile", "database_files", "inspect", "is_locked", "reading", "version_of"]

# Of each store: what it is called in errors, and whether several processes may have it open.
_STORES = {
    "identity": ("identity store", True),
    "documents": ("document store", False),
    "usage": ("usage store", False),
    "triggers": ("trigger store", False),
    "configuration": ("configuration store", True),
    "queues": ("queue store", False),
}
_MIGRATIONS = resources.files("meshhost.stores.sqlite") / "migrations"
_INVARIANTS = {
    "messages without their content": """
        SELECT count(*) FROM (SELECT id FROM messages UNION ALL SELECT id FROM dead_letters)
        WHERE id NOT IN (SELECT message_id FROM contents)
    """,
    "contents without a message": """
        SELECT count(*) FROM contents
        WHERE message_id NOT IN (SELECT id FROM messages) AND message_id NOT IN (SELECT id FROM dead_letters)
    """,
}


@dataclass(frozen=True, slots=True)
class DatabaseFile:
    """A file: its name in a backup, and where it is. `newest` is this release's version, None if the schema is not ours."""

    name: str
    path: Path
    what: str = "database"
    newest: int | None = None
    is_shared: bool = False

    @property
    def store(self) -> str:
        """The name of the store."""
        return self.name.removesuffix(".db")

    def opened_as(self) -> SqliteFile:
        """The file as its store opens it, not opened."""
        return SqliteFile(self.path, migrations=_MIGRATIONS / self.store, what=self.what, shared=self.is_shared)


def database_files(data_dir: Path, queues: Path | None = None) -> list[DatabaseFile]:
    """The files of all stores, present or not, and then the other databases of the directory."""
    stores = []
    for store, (what, is_shared) in _STORES.items():
        name = f"{store}.db"
        path = queues if queues is not None and store == "queues" else data_dir / name
        newest = sum(file.name.endswith(".sql") for file in (_MIGRATIONS / store).iterdir())
        stores.append(DatabaseFile(name, path, what, newest, is_shared))
    known = {file.name for file in stores} | {file.path.name for file in stores}
    others = sorted(path for path in data_dir.glob("*.db") if path.is_file() and path.name not in known)
    return [*stores, *(DatabaseFile(path.name, path) for path in others)]


@contextmanager
def reading(file: DatabaseFile) -> Iterator[sqlite3.Connection]:
    """A connection that only reads. Raises OSError for what SQLite finds wrong, also in the block."""
    try:
        uri = f"file:{quote(str(file.path.absolute()))}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise OSError(f"the {file.what} {file.path} cannot be read: {error}") from error


def version_of(file: DatabaseFile) -> int | None:
    """The version of the schema; None when there is no file. Raises OSError."""
    if not file.path.exists():
        return None
    with reading(file) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def inspect(file: DatabaseFile) -> StoreReport:
    """Report on a file: `PRAGMA quick_check`, and for queues whether each message has its content."""
    version, problem = None, None
    try:
        version = version_of(file)
        if version is not None:
            problem = _problem(file, version)
    except OSError as error:
        version, problem = version or 0, str(error)
    if is_restore_unfinished(file.path):
        problem = "a restore did not finish: run `meshhost db restore --force` again"
    return StoreReport(file.store, version, file.newest, _size(file.path), problem)


def is_locked(path: Path) -> bool:
    """Whether another process has the file open, of those that must not share it."""
    try:
        descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _problem(file: DatabaseFile, version: int) -> str | None:
    with reading(file) as connection:
        found = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
        if found != ["ok"]:
            return f"the {file.what} {file.path} is damaged: {found[0].splitlines()[-1]}"
        if file.store == "queues" and version == file.newest:
            for what, statement in _INVARIANTS.items():
                (count,) = connection.execute(statement).fetchone()
                if count:
                    return f"the {file.what} {file.path} has {count} {what}"
    return None


def _size(path: Path) -> int:
    size = 0
    for name in (path.name, f"{path.name}-wal"):
        with contextlib.suppress(FileNotFoundError):
            size += path.with_name(name).stat().st_size
    return size
