"""Documents in PostgreSQL. Keeps the contract of `meshhost.stores.documents.DocumentStore`; read that first.

Most methods are one statement, and so one transaction: a snapshot and the log that it replaces change together. Appends that
wait at the same time share a statement (`batches.py`). The order of the log is the order of ids, which is that of the calls,
because one process at a time writes a document.
"""

from collections.abc import Sequence

from meshhost.clock import Clock, SystemClock
from meshhost.errors import AlreadyExistsError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.documents import DocumentEntry, DocumentKey, StoredDocument
from meshhost.stores.postgres.batches import Batcher
from meshhost.stores.postgres.database import Connection, Lifetime, PostgresDatabase
from meshhost.stores.shared.statements import read_statements

__all__ = ["PostgresDocumentStore"]

_SQL = read_statements("meshhost.stores.postgres", "documents.sql")
# Documents that one statement deletes: each has a few hundred updates at most.
_BATCH = 50


class PostgresDocumentStore(Lifetime):
    """Keeps the contract of DocumentStore in `database`."""

    def __init__(self, database: PostgresDatabase, *, clock: Clock | None = None) -> None:
        super().__init__(database, migrations="documents", what="document store")
        self._clock = clock or SystemClock()
        self._appends: Batcher[tuple[DocumentKey, bytes], bool] = Batcher(self._append_many, weights=database.weights)

    async def close(self) -> None:
        """See DocumentStore."""
        await super().close()
        await self._appends.wait()

    async def create(self, key: DocumentKey, snapshot: bytes) -> None:
        """See DocumentStore."""
        values = {"snapshot": snapshot, "now": self._clock.time(), **_names(key)}
        if not await self.database.count(_SQL["create"], values):
            raise AlreadyExistsError(f"document {key.path!r} exists")

    async def load(self, key: DocumentKey) -> StoredDocument | None:
        """See DocumentStore."""
        rows = await self.database.rows(_SQL["load"], _names(key))
        if not rows:
            return None
        return StoredDocument(bytes(rows[0][0]), [bytes(content) for _, content in rows if content is not None])

    async def append(self, key: DocumentKey, update: bytes) -> None:
        """See DocumentStore."""
        self.check_open()
        if not await self._appends.do((key, update), key.room.tenant):
            raise _missing(key)

    async def compact(self, key: DocumentKey, snapshot: bytes) -> None:
        """See DocumentStore."""
        values = {"snapshot": snapshot, "now": self._clock.time(), **_names(key)}
        if await self.database.row(_SQL["compact"], values) is None:
            raise _missing(key)

    async def delete(self, key: DocumentKey) -> None:
        """See DocumentStore."""

        async def operation(connection: Connection) -> None:
            found = await (await connection.execute(_SQL["lock"], _names(key))).fetchone()
            if found is None:
                raise _missing(key)
            for statement in ("delete_updates", "delete"):
                await connection.execute(_SQL[statement], {"document": found[0]})

        await self.database.transaction(operation)

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See DocumentStore."""
        values = {"tenant": tenant, "room": room, "limit": _BATCH}

        async def operation(connection: Connection) -> bool:
            rows = await (await connection.execute(_SQL["lock_some"], values)).fetchall()
            some = {"documents": [number for (number,) in rows]}
            await connection.execute(_SQL["delete_some_updates"], some)
            await connection.execute(_SQL["delete_some"], some)
            return bool(rows)

        while await self.database.transaction(operation):
            pass

    async def find(self, key: DocumentKey) -> DocumentEntry | None:
        """See DocumentStore."""
        row = await self.database.row(_SQL["entry"], _names(key))
        return None if row is None else DocumentEntry(*row)

    async def rooms(self, tenant: TenantId) -> Sequence[str]:
        """See DocumentStore."""
        return [name for (name,) in await self.database.rows(_SQL["rooms_of_tenant"], {"tenant": tenant})]

    async def count(self, tenant: TenantId) -> int:
        """See DocumentStore."""
        ((number,),) = await self.database.rows(_SQL["count"], {"tenant": tenant})
        return int(number)

    async def list(self, room: RoomKey, folder: str) -> Sequence[DocumentEntry]:
        """See DocumentStore."""
        values = {"tenant": room.tenant, "room": room.name, "prefix": f"{folder}/" if folder else ""}
        return [DocumentEntry(*row) for row in await self.database.rows(_SQL["entries"], values)]

    async def list_from(self, room: RoomKey, path: str, limit: int) -> Sequence[DocumentEntry]:
        """See DocumentStore."""
        values = {"tenant": room.tenant, "room": room.name, "path": path, "limit": limit}
        return [DocumentEntry(*row) for row in await self.database.rows(_SQL["entries_from"], values)]

    async def _append_many(self, edits: Sequence[tuple[DocumentKey, bytes]]) -> Sequence[bool]:
        values = {
            "tenants": [key.room.tenant for key, _ in edits],
            "rooms": [key.room.name for key, _ in edits],
            "paths": [key.path for key, _ in edits],
            "contents": [update for _, update in edits],
            "now": self._clock.time(),
        }
        added = {number for (number,) in await self._database.rows(_SQL["append"], values)}
        return [number in added for number in range(1, len(edits) + 1)]


def _names(key: DocumentKey) -> dict[str, str]:
    return {"tenant": key.room.tenant, "room": key.room.name, "path": key.path}


def _missing(key: DocumentKey) -> NotFoundError:
    return NotFoundError(f"no document {key.path!r} in this room")
