"""Documents in a SQLite file: the document store of a single room server.

Keeps the contract of `meshhost.stores.documents.DocumentStore`. Every method is one operation on the file's thread
(`thread.py`): a snapshot replaces the log within one transaction, so a crash leaves the one or the other, and appends of many
documents share a commit.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from meshhost.clock import Clock, SystemClock
from meshhost.errors import AlreadyExistsError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.documents import DocumentEntry, DocumentKey, StoredDocument
from meshhost.stores.shared.fair import TenantWeights
from meshhost.stores.sqlite.database import SqliteDatabase, Statements

__all__ = ["SqliteDocumentStore"]

# Documents that one operation deletes: each has a few hundred updates at most.
_BATCH = 10

_SQL = Statements("documents.sql")
_execute = _SQL.execute


class SqliteDocumentStore:
    """Keeps the contract of DocumentStore in the file `path`, which one process at a time can have open."""

    def __init__(self, path: Path, *, clock: Clock | None = None, weights: TenantWeights | None = None) -> None:
        self.database = SqliteDatabase(path, migrations="documents", what="document store", weights=weights)
        self._clock = clock or SystemClock()

    def __repr__(self) -> str:
        return f"<SqliteDocumentStore {str(self.database.path)!r} open={self.database.is_open}>"

    async def open(self) -> None:
        """See DocumentStore."""
        await self.database.open()

    async def close(self) -> None:
        """See DocumentStore."""
        await self.database.close()

    async def create(self, key: DocumentKey, snapshot: bytes) -> None:
        """See DocumentStore."""

        def operation(db: sqlite3.Connection) -> None:
            self.database.require_space(db)
            added = _execute(db, "create", snapshot=snapshot, now=self._clock.time(), **_names(key))
            if added.rowcount == 0:
                raise AlreadyExistsError(f"document {key.path!r} exists")

        await self.database.run(operation, tenant=key.room.tenant)

    async def load(self, key: DocumentKey) -> StoredDocument | None:
        """See DocumentStore."""

        def operation(db: sqlite3.Connection) -> StoredDocument | None:
            found = _execute(db, "find", **_names(key)).fetchone()
            if found is None:
                return None
            document, snapshot = found
            rows = _execute(db, "updates", document=document)
            return StoredDocument(snapshot, [content for (content,) in rows])

        return await self.database.run(operation, tenant=key.room.tenant)

    async def append(self, key: DocumentKey, update: bytes) -> None:
        """See DocumentStore."""

        def operation(db: sqlite3.Connection) -> None:
            self.database.require_space(db)
            document = _find(db, key)
            _execute(db, "append", document=document, content=update)
            _execute(db, "touch", document=document, now=self._clock.time())

        await self.database.run(operation, tenant=key.room.tenant)

    async def compact(self, key: DocumentKey, snapshot: bytes) -> None:
        """See DocumentStore."""

        def operation(db: sqlite3.Connection) -> None:
            document = _find(db, key)
            _execute(db, "replace_snapshot", document=document, snapshot=snapshot, now=self._clock.time())
            _execute(db, "delete_updates", document=document)

        await self.database.run(operation, tenant=key.room.tenant)

    async def delete(self, key: DocumentKey) -> None:
        """See DocumentStore."""

        def operation(db: sqlite3.Connection) -> None:
            document = _find(db, key)
            _execute(db, "delete_updates", document=document)
            _execute(db, "delete", document=document)

        await self.database.run(operation, tenant=key.room.tenant)

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See DocumentStore."""

        def operation(db: sqlite3.Connection) -> int:
            found = _execute(db, "some_documents", tenant=tenant, room=room, limit=_BATCH).fetchall()
            for (document,) in found:
                _execute(db, "delete_updates", document=document)
                _execute(db, "delete", document=document)
            return len(found)

        while await self.database.run(operation):
            pass

    async def find(self, key: DocumentKey) -> DocumentEntry | None:
        """See DocumentStore."""
        row = await self.database.run(
            lambda db: _execute(db, "entry", **_names(key)).fetchone(), tenant=key.room.tenant
        )
        return None if row is None else DocumentEntry(*row)

    async def rooms(self, tenant: TenantId) -> Sequence[str]:
        """See DocumentStore."""
        return await self.database.read(
            lambda db: [name for (name,) in _execute(db, "rooms_of_tenant", tenant=tenant).fetchall()]
        )

    async def count(self, tenant: TenantId) -> int:
        """See DocumentStore."""
        count: int = await self.database.run(lambda db: _execute(db, "count", tenant=tenant).fetchone()[0])
        return count

    async def list(self, room: RoomKey, folder: str) -> Sequence[DocumentEntry]:
        """See DocumentStore."""
        prefix = f"{folder}/" if folder else ""

        def operation(db: sqlite3.Connection) -> Sequence[DocumentEntry]:
            rows = _execute(db, "entries", tenant=room.tenant, room=room.name, prefix=prefix)
            return [DocumentEntry(*row) for row in rows]

        return await self.database.read(operation)

    async def list_from(self, room: RoomKey, path: str, limit: int) -> Sequence[DocumentEntry]:
        """See DocumentStore."""

        def operation(db: sqlite3.Connection) -> Sequence[DocumentEntry]:
            rows = _execute(db, "entries_from", tenant=room.tenant, room=room.name, path=path, limit=limit)
            return [DocumentEntry(*row) for row in rows]

        return await self.database.read(operation)


def _names(key: DocumentKey) -> dict[str, str]:
    return {"tenant": key.room.tenant, "room": key.room.name, "path": key.path}


def _find(db: sqlite3.Connection, key: DocumentKey) -> int:
    found = _execute(db, "find", **_names(key)).fetchone()
    if found is None:
        raise NotFoundError(f"no document {key.path!r} in this room")
    number: int = found[0]
    return number
