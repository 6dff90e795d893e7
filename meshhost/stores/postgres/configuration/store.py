"""What tenants configured, in PostgreSQL. See `meshhost.stores.configuration.contract` for the contract.

The version is one row that a trigger counts up in the transaction of each change, see `migrations/configuration`. It is read
before the items: those that a change between the two reads brings are read once more, and none is missed.
"""

from collections.abc import Sequence

from psycopg import errors

from meshhost.errors import AlreadyExistsError, LimitExceededError, NotFoundError
from meshhost.identity.tenant import TenantId
from meshhost.stores.configuration.contract import ConfigurationItem, ConfigurationSnapshot, ItemKind
from meshhost.stores.postgres.database import Connection, Lifetime, PostgresDatabase
from meshhost.stores.shared.configuration import item_of, values_of
from meshhost.stores.shared.statements import read_statements
from meshhost.stores.triggers.contract import LOG_ENTRIES, LogEntry

__all__ = ["PostgresConfigurationStore"]

_SQL = read_statements("meshhost.stores.postgres", "configuration.sql")


class PostgresConfigurationStore(Lifetime):
    """Keeps the contract of ConfigurationStore in `database`."""

    def __init__(self, database: PostgresDatabase) -> None:
        super().__init__(database, migrations="configuration", what="configuration store")

    async def add(self, item: ConfigurationItem, *, most: int) -> None:
        """See ConfigurationStore."""
        values = values_of(item)

        async def operation(connection: Connection) -> None:
            (count,) = await (await connection.execute(_SQL["count"], values)).fetchone() or (0,)
            if count >= most:
                raise LimitExceededError(f"the tenant has {most} {item.kind}s already, which is the limit")
            if (await connection.execute(_SQL["add"], values)).rowcount == 0:
                raise AlreadyExistsError(f"there is a {item.kind} {item.name!r} already")

        await self.database.transaction(operation)

    async def find(self, tenant: TenantId, item_id: str) -> ConfigurationItem | None:
        """See ConfigurationStore."""
        row = await self.database.row(_SQL["find"], {"tenant": tenant, "id": item_id})
        return None if row is None else item_of(row)

    async def list(self, tenant: TenantId, kind: ItemKind) -> Sequence[ConfigurationItem]:
        """See ConfigurationStore."""
        rows = await self.database.rows(_SQL["list"], {"tenant": tenant, "kind": kind.value})
        return [item_of(row) for row in rows]

    async def replace(self, item: ConfigurationItem) -> bool:
        """See ConfigurationStore."""

        async def operation(connection: Connection) -> bool:
            try:
                return (await connection.execute(_SQL["replace"], values_of(item))).rowcount > 0
            except errors.UniqueViolation:
                raise AlreadyExistsError(f"there is a {item.kind} {item.name!r} already") from None

        return await self.database.transaction(operation)

    async def delete(self, tenant: TenantId, item_id: str) -> None:
        """See ConfigurationStore."""
        if not await self.database.count(_SQL["delete"], {"tenant": tenant, "id": item_id}):
            raise NotFoundError("no such item")

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See ConfigurationStore."""
        await self.database.count(_SQL["delete_all"], {"tenant": tenant, "room": room})

    async def read(self, kind: ItemKind, known: int | None = None) -> ConfigurationSnapshot | None:
        """See ConfigurationStore."""
        (version,) = await self.database.row(_SQL["version"]) or (0,)
        if version == known:
            return None
        rows = await self.database.rows(_SQL["all"], {"kind": kind.value})
        return ConfigurationSnapshot(version, [item_of(row) for row in rows])

    async def add_entry(self, item_id: str, entry: LogEntry) -> None:
        """See ConfigurationStore."""

        async def operation(connection: Connection) -> None:
            await connection.execute(_SQL["add_entry"], {"id": item_id, "at": entry.at, "content": entry.content})
            await connection.execute(_SQL["trim"], {"id": item_id, "keep": LOG_ENTRIES})

        await self.database.transaction(operation)

    async def entries(self, item_id: str) -> Sequence[LogEntry]:
        """See ConfigurationStore."""
        rows = await self.database.rows(_SQL["entries"], {"id": item_id, "keep": LOG_ENTRIES})
        return [LogEntry(*row) for row in rows]
