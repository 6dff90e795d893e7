"""Copies an installation from SQLite files to a PostgreSQL database: the work of `meshhost db copy`.

Each table is read once, in an order that does not change, converted, and written in batches, each of which is a transaction
that also notes how many rows are there. A copy that was killed and is run again reads all rows again, for their checksum, and
writes those that are missing. Then everything is read back from the target and compared: number of rows and checksum of each
table. When a copy that was resumed does not match, because the source changed in between, all is copied once more.

No room server can use the source meanwhile (`sqlite/upkeep/source.py`), and none opens the target before the copy is whole
(`postgres/upkeep/target.py`). The source is not changed.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from meshhost.stores.moving.tables import FUNCTIONS, MESSAGE_IDS, NOT_COPIED, TABLES, Table
from meshhost.stores.moving.values import Checksum, Column, converted
from meshhost.stores.postgres.upkeep.target import PostgresTarget, opened_target
from meshhost.stores.sqlite.upkeep.files import DatabaseFile
from meshhost.stores.sqlite.upkeep.source import SqliteSource, opened_source

__all__ = ["Advance", "CopiedTable", "Copy", "copy_to_postgres"]

# What one transaction writes at most.
_BATCH_ROWS = 2000
_BATCH_BYTES = 4 * 1024 * 1024
_LEASED = (
    "SELECT count(*) FROM messages JOIN queues ON queues.id = queue_id WHERE holder IS NOT NULL AND due IS NOT NULL"
)

Advance = Callable[[int], None]
"""Is called with the number of rows that were just copied or checked."""


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """A table of the target that has been compared with the source."""

    name: str
    rows: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Copy:
    """A finished copy. `leased` messages were under lease. `resumed` rows were there from a run before."""

    tables: Sequence[CopiedTable]
    leased: int
    resumed: int

    @property
    def rows(self) -> int:
        """How many rows were copied, over all tables."""
        return sum(table.rows for table in self.tables)


async def copy_to_postgres(
    files: Sequence[DatabaseFile], url: str, *, progress: Callable[[int], AbstractContextManager[Advance]]
) -> Copy:
    """Copy all stores of a data directory into an empty database, or go on with a copy into it that did not finish.

    `progress` is called with the number of rows there are, each of which is copied and checked. Blocks the event loop while it
    reads files. Raises SettingsError when source or target are in use or not fit for it, InvalidRequestError for a row that
    PostgreSQL cannot store, OSError when either fails or the copy differs from its source.
    """
    with opened_source(files, FUNCTIONS) as source:
        async with opened_target(url) as target:
            copied = await target.begin([table.name for table in TABLES], own=[*NOT_COPIED])
            total = sum(source.number(table.store, table.count()) for table in TABLES)
            with progress(2 * total) as advance:
                tables = await _copy_and_compare(source, target, copied, advance)
            await _finish(source, target)
            return Copy(tables, source.number("queues", _LEASED), sum(copied.values()))


async def _copy_and_compare(
    source: SqliteSource, target: PostgresTarget, copied: dict[str, int], advance: Advance
) -> Sequence[CopiedTable]:
    differing = "nothing"
    for have in [copied, {}] if any(copied.values()) else [{}]:
        if have is not copied:
            await target.empty([table.name for table in TABLES])
        expected = [await _copy(source, target, table, have.get(table.name, 0), advance) for table in TABLES]
        found = [await _read_back(target, table, advance) for table in TABLES]
        different = [table.name for table, one, other in zip(TABLES, expected, found, strict=True) if one != other]
        if not different:
            return [CopiedTable(table.name, one.rows, str(one)) for table, one in zip(TABLES, expected, strict=True)]
        differing = ", ".join(different)
    raise OSError(f"the copy differs from its source in {differing}: run it again")


async def _copy(source: SqliteSource, target: PostgresTarget, table: Table, have: int, advance: Advance) -> Checksum:
    """Write the rows behind the first `have`; return the checksum of all."""
    columns = await _columns(target, table)
    names = tuple(column.name for column in columns)
    checksum = Checksum()
    batch: list[tuple[object, ...]] = []
    size = 0
    for row in source.rows(table.store, table.select(names)):
        values = converted(table.name, columns, row)
        checksum.add(values)
        if checksum.rows <= have:
            continue
        batch.append(values)
        size += sum(len(value) for value in values if isinstance(value, bytes | str))
        if len(batch) >= _BATCH_ROWS or size >= _BATCH_BYTES:
            await target.write(table.name, names, batch, copied=checksum.rows)
            advance(len(batch))
            batch, size = [], 0
    if batch:
        await target.write(table.name, names, batch, copied=checksum.rows)
    advance(len(batch) + min(have, checksum.rows))
    return checksum


async def _read_back(target: PostgresTarget, table: Table, advance: Advance) -> Checksum:
    columns = await _columns(target, table)
    checksum = Checksum()
    async for row in target.rows(table.name, [(column.name, column.type) for column in columns]):
        checksum.add(converted(table.name, columns, row))
        advance(1)
    return checksum


async def _columns(target: PostgresTarget, table: Table) -> list[Column]:
    return [Column(name, kind) for name, kind in await target.columns(table.name)]


async def _finish(source: SqliteSource, target: PostgresTarget) -> None:
    given = {
        (store, table): last
        for store in {table.store for table in TABLES}
        if source.number(store, "SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_sequence'")
        for table, last in source.last_ids(store).items()
    }
    last_ids = {table.name: given.get((table.store, table.source), 0) for table in TABLES}
    await target.finish(last_ids, {MESSAGE_IDS: last_ids["messages"]})
