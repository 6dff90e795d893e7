"""Writes the rows of another engine into an empty database: the target of `meshhost db copy`.

The table `meshhost.unfinished_copy` says how many rows of each table are there. It is written in the transaction that writes
these rows, so a copy that was killed goes on behind the last of them; and while that table is there, no room server opens the
database (`database.check_server`). One session does everything, and holds the lock of a room server meanwhile.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg import sql

from meshhost.errors import SettingsError
from meshhost.stores.postgres.database import (
    Connection,
    PostgresDatabase,
    check_server,
    is_session,
    migrate_store,
    newest_versions,
    translated,
)
from meshhost.stores.postgres.exclusive import ExclusiveUse

__all__ = ["PostgresTarget", "opened_target"]

_TABLES = """
SELECT relname FROM pg_class WHERE relnamespace = 'meshhost'::regnamespace AND relkind IN ('r', 'p') ORDER BY relname
"""
_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
"""
_NUMBERED = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attidentity <> '' ORDER BY attnum"


class PostgresTarget:
    """The database, while `opened_target` is not left."""

    def __init__(self, connection: Connection, place: str) -> None:
        self._connection = connection
        self._place = place

    async def begin(self, tables: Sequence[str], *, own: Sequence[str]) -> dict[str, int]:
        """Make the tables, and return how many rows of each are there. `own` are those that a migration fills.

        Raises SettingsError when the database holds something that no copy wrote.
        """
        with translated():
            async with self._connection.transaction():
                for store in newest_versions():
                    await migrate_store(self._connection, store, place=self._place)
                if "unfinished_copy" not in await self.tables():
                    await self._refuse_others({*own})
                    await self._connection.execute(
                        "CREATE TABLE meshhost.unfinished_copy (table_name text PRIMARY KEY, copied bigint NOT NULL)"
                    )
            found = await self._connection.execute("SELECT table_name, copied FROM meshhost.unfinished_copy")
            copied: dict[str, int] = {str(name): int(number) for name, number in await found.fetchall()}
        return {table: copied.get(table, 0) for table in tables}

    async def tables(self) -> list[str]:
        """The names of all tables of ours that are there."""
        with translated():
            return [str(name) for (name,) in await (await self._connection.execute(_TABLES)).fetchall()]

    async def columns(self, table: str) -> list[tuple[str, str]]:
        """The columns of a table that are written, each with its type."""
        with translated():
            return list(await (await self._connection.execute(_COLUMNS, (f"meshhost.{table}",))).fetchall())

    async def write(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, copied: int) -> None:
        """Add rows to a table, all of them or none, and note that `copied` of its rows are there then."""
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(_named(table), _listed(columns))
        with translated():
            async with self._connection.transaction():
                async with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
                    for row in rows:
                        await copy.write_row(row)
                await self._connection.execute(
                    "INSERT INTO meshhost.unfinished_copy VALUES (%(table)s, %(copied)s) "
                    "ON CONFLICT (table_name) DO UPDATE SET copied = excluded.copied",
                    {"table": table, "copied": copied},
                )

    async def rows(self, table: str, columns: Sequence[tuple[str, str]]) -> AsyncIterator[Sequence[Any]]:
        """Iterate over a table, a row at a time."""
        what = sql.SQL(", ").join(
            sql.SQL("{}::text" if kind == "jsonb" else "{}").format(sql.Identifier(name)) for name, kind in columns
        )
        with translated():
            async with self._connection.cursor() as cursor:
                async for row in cursor.stream(sql.SQL("SELECT {} FROM {}").format(what, _named(table))):
                    yield row

    async def empty(self, tables: Sequence[str]) -> None:
        """Delete all rows of these tables: the copy begins again."""
        with translated():
            async with self._connection.transaction():
                await self._connection.execute(
                    sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(_named(table) for table in tables))
                )
                await self._connection.execute("DELETE FROM meshhost.unfinished_copy")

    async def finish(self, last_ids: Mapping[str, int], sequences: Mapping[str, int]) -> None:
        """Let no id be given twice, and room servers open the database. `last_ids` are of tables, as the source gave them."""
        with translated():
            async with self._connection.transaction():
                for table, last in last_ids.items():
                    found = await self._connection.execute(_NUMBERED, (f"meshhost.{table}",))
                    for (column,) in await found.fetchall():
                        await self._connection.execute(
                            sql.SQL(
                                "SELECT setval(pg_get_serial_sequence(%(table)s, %(column)s), "
                                "greatest(%(last)s, (SELECT coalesce(max({}), 0) FROM {}), 1))"
                            ).format(sql.Identifier(column), _named(table)),
                            {"table": f"meshhost.{table}", "column": column, "last": last},
                        )
                for sequence, last in sequences.items():
                    await self._connection.execute(
                        "SELECT setval(to_regclass(%s), greatest(%s, 1))", (f"meshhost.{sequence}", last)
                    )
                await self._connection.execute("DROP TABLE meshhost.unfinished_copy")
            # Without statistics the first statements over large tables would be planned as over empty ones.
            await self._connection.execute(
                sql.SQL("ANALYZE {}").format(sql.SQL(", ").join(_named(table) for table in last_ids))
            )

    async def _refuse_others(self, own: set[str]) -> None:
        for table in await self.tables():
            if table in own:
                continue
            found = await self._connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(_named(table)))
            if await found.fetchone() == (True,):
                raise SettingsError(
                    f"the database {self._place} is not empty: it has rows in {table}; choose another one"
                )


@asynccontextmanager
async def opened_target(url: str) -> AsyncIterator[PostgresTarget]:
    """The database at `url`, which no room server may use meanwhile. Raises SettingsError, OSError."""
    database = PostgresDatabase(url, connections=1)
    async with database.session() as connection:
        if not await is_session(connection):
            raise SettingsError(f"{database.name} is a pooler: give the address of PostgreSQL itself")
        await check_server(connection, is_copying=True)
        use = ExclusiveUse(database, wait_seconds=0.0)
        await use.open()
        try:
            yield PostgresTarget(connection, database.name)
        finally:
            await use.close()


def _named(table: str) -> sql.Identifier:
    return sql.Identifier("meshhost", table)


def _listed(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(column) for column in columns)
