"""Documents in a SQLite file: for each a snapshot, and the log of updates since.

What a method did is on disk when it returns. All that waits at the same time shares one commit. A snapshot takes the place of
the log within one transaction, so that a crash leaves one or the other.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeVar

from meshhost.clock import Clock, SystemClock
from meshhost.errors import AlreadyExistsError, NotFoundError, RoomError
from meshhost.identity.tenant import RoomKey
from meshhost.stores.sqlite.file import SqliteFile
from meshhost.stores.sqlite.thread import Operation, SqliteThread

__all__ = ["DocumentEntry", "DocumentKey", "DocumentStore", "StoredDocument"]

T = TypeVar("T")

_MIGRATIONS = resources.files("meshhost.stores.sqlite") / "migrations" / "documents"
_FIND = "SELECT id FROM documents WHERE tenant = ? AND room = ? AND path = ?"
_ENTRIES = "SELECT path, created_at, updated_at FROM documents WHERE tenant = ? AND room = ?"


@dataclass(frozen=True, slots=True)
class DocumentKey:
    """A document of a room; the path is clean."""

    room: RoomKey
    path: str


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as it is kept. The snapshot is an update, too."""

    snapshot: bytes
    updates: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class DocumentEntry:
    """That a document exists. Times are seconds since the epoch."""

    path: str
    created_at: float
    updated_at: float


class DocumentStore:
    """The documents of all rooms in the file `path`, which one process at a time can have open; used once.

    Methods raise OSError when the disk fails (nothing of the call is done then) and RoomError when the store is not open.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._thread: SqliteThread | None = None

    def __repr__(self) -> str:
        return f"<DocumentStore {str(self._path)!r} open={self._thread is not None}>"

    async def open(self) -> None:
        """Open the file, made if it is missing. Raises SettingsError when it cannot be used, OSError."""
        thread = SqliteThread(SqliteFile(self._path, migrations=_MIGRATIONS, what="document store"))
        await thread.start()
        self._thread = thread

    async def close(self) -> None:
        """Finish what was accepted and close the file. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await thread.stop()

    async def create(self, key: DocumentKey, snapshot: bytes) -> None:
        """Keep a new document. Raises AlreadyExistsError."""

        def operation(db: sqlite3.Connection) -> None:
            now = self._clock.time()
            values = (*_names(key), snapshot, now, now)
            added = db.execute(
                "INSERT INTO documents (tenant, room, path, snapshot, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                values,
            )
            if added.rowcount == 0:
                raise AlreadyExistsError(f"document {key.path!r} exists")

        await self._run(operation)

    async def load(self, key: DocumentKey) -> StoredDocument | None:
        """The document, or None."""

        def operation(db: sqlite3.Connection) -> StoredDocument | None:
            found = db.execute(
                "SELECT id, snapshot FROM documents WHERE tenant = ? AND room = ? AND path = ?", _names(key)
            ).fetchone()
            if found is None:
                return None
            rows = db.execute("SELECT content FROM updates WHERE document = ? ORDER BY id", (found[0],))
            return StoredDocument(found[1], [content for (content,) in rows])

        return await self._run(operation)

    async def append(self, key: DocumentKey, update: bytes) -> None:
        """Add an update to the document's log. Raises NotFoundError."""

        def operation(db: sqlite3.Connection) -> None:
            found = _find(db, key)
            db.execute("INSERT INTO updates (document, content) VALUES (?, ?)", (found, update))
            db.execute("UPDATE documents SET updated_at = ? WHERE id = ?", (self._clock.time(), found))

        await self._run(operation)

    async def compact(self, key: DocumentKey, snapshot: bytes) -> None:
        """Let a snapshot that holds all that was appended take the place of the log. Raises NotFoundError."""

        def operation(db: sqlite3.Connection) -> None:
            found, now = _find(db, key), self._clock.time()
            db.execute("UPDATE documents SET snapshot = ?, updated_at = ? WHERE id = ?", (snapshot, now, found))
            db.execute("DELETE FROM updates WHERE document = ?", (found,))

        await self._run(operation)

    async def delete(self, key: DocumentKey) -> None:
        """Forget the document. Raises NotFoundError."""

        def operation(db: sqlite3.Connection) -> None:
            found = _find(db, key)
            db.execute("DELETE FROM updates WHERE document = ?", (found,))
            db.execute("DELETE FROM documents WHERE id = ?", (found,))

        await self._run(operation)

    async def find(self, key: DocumentKey) -> DocumentEntry | None:
        """The document's entry, or None."""
        rows = await self._run(lambda db: db.execute(f"{_ENTRIES} AND path = ?", _names(key)).fetchall())
        return DocumentEntry(*rows[0]) if rows else None

    async def list(self, room: RoomKey, folder: str) -> Sequence[DocumentEntry]:
        """All documents below the folder ("" is the room), also those in folders of it, by path."""
        prefix = f"{folder}/" if folder else ""
        query = f"{_ENTRIES} AND substr(path, 1, ?) = ? ORDER BY path"
        values = (room.tenant, room.name, len(prefix), prefix)
        return [DocumentEntry(*row) for row in await self._run(lambda db: db.execute(query, values).fetchall())]

    async def _run(self, operation: Operation[T]) -> T:
        if self._thread is None:
            raise RoomError("the document store is not open")
        return await self._thread.run(operation)


def _names(key: DocumentKey) -> tuple[str, str, str]:
    return key.room.tenant, key.room.name, key.path


def _find(db: sqlite3.Connection, key: DocumentKey) -> int:
    found = db.execute(_FIND, _names(key)).fetchone()
    if found is None:
        raise NotFoundError(f"no document {key.path!r} in this room")
    number: int = found[0]
    return number
