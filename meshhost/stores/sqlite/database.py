"""A SQLite file that can be opened and closed again: what each store of this package is built on.

A `SqliteThread` lives once, from `start` to `stop`. A store may be opened, closed and opened again, and `open` or `close`
may be cancelled in between. This class holds the present thread, and one whose end was not awaited to the end yet, so that
no file lock outlives a cancelled call. `open` and `close` exclude each other; `run` waits for neither. What reads much goes
through `read`, which has a connection of its own (`reader.py`).
"""

import asyncio
import sqlite3
from collections.abc import Coroutine
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from meshhost.errors import RoomError
from meshhost.stores.shared.fair import TenantWeights
from meshhost.stores.shared.statements import read_statements
from meshhost.stores.sqlite.file import SqliteFile
from meshhost.stores.sqlite.pace import DEFAULT_PACE, Pace
from meshhost.stores.sqlite.reader import SqliteReader
from meshhost.stores.sqlite.thread import Operation, SqliteThread

__all__ = ["SqliteDatabase", "Statements"]

T = TypeVar("T")


class SqliteDatabase:
    """The file `path` with the schema of `migrations/<migrations>`; `what` is the store's name in errors.

    `shared`: several processes may have it open at once. Otherwise a second opener is refused. `weights` are those of the
    tenants that operations belong to.
    """

    def __init__(
        self,
        path: Path,
        *,
        migrations: str,
        what: str,
        shared: bool = False,
        weights: TenantWeights | None = None,
        pace: Pace = DEFAULT_PACE,
    ) -> None:
        self.path = path
        self._migrations = resources.files("meshhost.stores.sqlite") / "migrations" / migrations
        self._what = what
        self._shared = shared
        self._weights = weights
        self._pace = pace
        self._thread: SqliteThread | None = None
        self._former: SqliteThread | None = None  # its end is not confirmed yet
        self._reader: SqliteReader | None = None
        self._changing = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the file is open and operations are accepted."""
        return self._thread is not None

    async def open(self) -> None:
        """Open the file; does nothing when it is open. Raises SettingsError, OSError."""
        async with self._changing:
            await self._end_former()
            if self._thread is not None:
                return
            thread = self._former = SqliteThread(self.file(), weights=self._weights, pace=self._pace)
            await thread.start()
            self._thread, self._former = thread, None
            self._reader = SqliteReader(self.path, self._what, weights=self._weights)

    async def close(self) -> None:
        """Finish what was accepted and close the file. Idempotent."""
        async with self._changing:
            reader, self._reader = self._reader, None
            if self._thread is not None:
                self._thread, self._former = None, self._thread
            if reader is not None:
                await reader.stop()
            await self._end_former()

    def run(self, operation: Operation[T], *, is_durable: bool = True, tenant: str = "") -> Coroutine[Any, Any, T]:
        """Return what the operation returned once that is durable; see `SqliteThread.run`. Raises RoomError when not open."""
        if self._thread is None:
            raise RoomError(f"the {self._what} is not open")
        # Not `await`: one coroutine less for each operation.
        return self._thread.run(operation, is_durable=is_durable, tenant=tenant)

    def require_space(self, db: sqlite3.Connection) -> None:
        """Raise StorageFullError when only the reserve is left; for operations that add data."""
        if self._thread is not None:
            self._thread.space.require(db)

    async def check(self) -> None:
        """Return when something could be stored: write, and wait until that is durable. Raises StorageFullError, OSError."""

        def operation(db: sqlite3.Connection) -> None:
            self.require_space(db)
            (version,) = db.execute("PRAGMA user_version").fetchone()
            db.execute(f"PRAGMA user_version = {version}")  # writes the first page, although nothing changes

        await self.run(operation)

    def read(self, operation: Operation[T], *, tenant: str = "") -> Coroutine[Any, Any, T]:
        """Return what an operation that only reads returned; it holds up no other. See `SqliteReader.run`."""
        if self._reader is None:
            raise RoomError(f"the {self._what} is not open")
        return self._reader.run(operation, tenant=tenant)

    def file(self) -> SqliteFile:
        """Return the file, not opened."""
        return SqliteFile(self.path, migrations=self._migrations, what=self._what, shared=self._shared)

    async def _end_former(self) -> None:
        if self._former is not None:
            await self._former.stop()
            self._former = None


class Statements:
    """The statements of a file of this package, such as `queues.sql`, by name."""

    def __init__(self, file_name: str) -> None:
        self._texts = read_statements("meshhost.stores.sqlite", file_name)

    def __getitem__(self, name: str) -> str:
        return self._texts[name]

    def execute(self, db: sqlite3.Connection, name: str, /, **values: object) -> sqlite3.Cursor:
        """Execute the statement of this name with named parameters. Raises sqlite3.Error."""
        return db.execute(self._texts[name], values)
