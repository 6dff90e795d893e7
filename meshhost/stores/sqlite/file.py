"""The file of a SQLite store: locked, readable by its owner only, and of a schema version that we know.

`SqliteThread` is the caller, from its one thread. Most stores keep state in memory that must match the file (depth
counters, open documents), so their file belongs to one process at a time: a lock on `<path>.lock` is held while it is open,
and the system gives it back when the process dies. A *shared* file (identity) is locked only while it is opened, so that of
several servers that start at once one changes the schema and the others wait for it.

The schema's version is the number of migrations applied (`PRAGMA user_version`). Each migration and its number are
committed together, so a crash leaves one version or the next, never a mixture.
"""

import contextlib
import fcntl
import os
import sqlite3
import time
from importlib.resources.abc import Traversable
from pathlib import Path

from meshhost.errors import SettingsError
from meshhost.stores.sqlite.tidy import prepare_file

__all__ = ["RESTORING", "SqliteFile", "is_restore_unfinished", "lock_file"]

RESTORING = "restore.unfinished"
"""The file that is beside a database while a restore puts files in place: until it is gone they may not belong together."""

# Another process may hold the write lock of a shared file for the length of a commit.
_BUSY_SECONDS = 10.0
# One that only looks whether a file is locked (`upkeep`) has the lock for a moment.
_LOOK_SECONDS = 0.05
# A commit is on disk when it returns, also after a power loss; a WAL that grew in a burst is cut back.
_SETTINGS = ("journal_mode = WAL", "synchronous = FULL", "journal_size_limit = 67108864")


class SqliteFile:
    """A database file and its lock (`<path>.lock`). All methods are for one thread; the connection is that thread's.

    `migrations` is a folder of SQL files, applied in the order of their names. `what` is the store's name in errors.
    `shared`: other processes may have the file open, too.
    """

    def __init__(self, path: Path, *, migrations: Traversable, what: str, shared: bool = False) -> None:
        self.path = path
        self.what = what
        self._shared = shared
        self._migrations = migrations
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = None

    def open(self) -> None:
        """Lock the file, create it if it is missing, and bring its schema up to date.

        A shared file is unlocked again; this waits for another process that opens it at the same moment. Raises
        SettingsError when another process holds the file, when it is of a newer version or no database, or when a restore
        did not finish; OSError.
        """
        self.lock()
        try:
            _refuse_unfinished(self.path)
            os.close(_open_private(self.path))
            self.connection()
        except BaseException:
            self.close()
            raise
        if self._shared:
            self._unlock()

    def lock(self) -> None:
        """Lock the file, which need not exist, before it is opened; `close` gives the lock back. Raises as `open`."""
        if self._lock is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = lock_file(self.path, self.what, wait=self._shared)

    def connection(self) -> sqlite3.Connection:
        """Return the present connection, or a new one after `discard`. Raises OSError, SettingsError."""
        if self._connection is None:
            self._connection = _connect(self.path, self._migrations, self.what)
        return self._connection

    def discard(self) -> None:
        """Drop a connection that can no longer be trusted."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def close(self) -> None:
        """Close the connection, then release the lock. Idempotent."""
        self.discard()
        self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _open_private(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def is_restore_unfinished(path: Path) -> bool:
    """Whether the files beside `path` were left by a restore that was killed while it put them in place."""
    return path.with_name(RESTORING).exists()


def _refuse_unfinished(path: Path) -> None:
    if is_restore_unfinished(path):
        raise SettingsError(f"a restore into {path.parent} did not finish: run `meshhost db restore --force` again")


def lock_file(path: Path, what: str, *, wait: bool = False) -> int:
    """Lock the database file `path` and return the descriptor to close when it is released.

    `wait` for another process instead of raising SettingsError. Raises OSError.
    """
    descriptor = _open_private(path.with_name(f"{path.name}.lock"))
    try:
        is_mine = _try_lock(descriptor, wait=wait)
        if not is_mine:
            time.sleep(_LOOK_SECONDS)
            is_mine = _try_lock(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    if not is_mine:
        os.close(descriptor)
        raise SettingsError(f"the {what} {path} is in use: stop the other server or choose another path")
    return descriptor


def _try_lock(descriptor: int, *, wait: bool = False) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _connect(path: Path, migrations: Traversable, what: str) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
    except sqlite3.Error as error:
        raise OSError(f"cannot open the {what} {path}: {error}") from error
    try:
        _prepare(connection, path, migrations, what)
    except sqlite3.Error as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise SettingsError(f"{path} is no {what}: choose another path") from error
        raise OSError(f"cannot open the {what} {path}: {error}") from error
    except SettingsError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, migrations: Traversable, what: str) -> None:
    prepare_file(connection)
    for setting in _SETTINGS:
        connection.execute(f"PRAGMA {setting}")
    files = sorted((file.name, file) for file in migrations.iterdir() if file.name.endswith(".sql"))
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(files):
        raise SettingsError(
            f"the {what} {path} is of version {version}, newer than {len(files)}: install a newer meshhost"
        )
    for number, (_, file) in enumerate(files, start=1):
        if number > version:
            sql = file.read_text(encoding="utf-8")
            connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version = {number};\nCOMMIT;")
