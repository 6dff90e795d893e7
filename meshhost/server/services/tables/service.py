"""The tables of a room (room-protocol §14): made, filled, searched and indexed over a `TableStore`.

Each operation is one request to the store, which runs outside this process. A participant that checks out a version of a
table reads that version from then on, and only it does: others read the latest one. It may not write the table meanwhile,
which would be based on what it does not see; restoring a version, or checking out the latest, ends that.

What is stored counts for the tenant's quota: tables by number, and their files, with those of former versions, among the
stored bytes. Bytes are taken for what a request brings, and counted anew where they are kept after a table was rewritten.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from meshhost.errors import InvalidRequestError, NotFoundError, RequestTimeoutError, RoomError
from meshhost.identity.grants import ApiScope
from meshhost.protocol.messages import EmptyResponse, EncodedJson, JsonResponse
from meshhost.quotas.counts import UNCOUNTED, TenantCounts
from meshhost.quotas.quota import Resource
from meshhost.server.core.participants import Participant
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.server.core.slots import Slot
from meshhost.server.services.tables.bodies import (
    AddColumns,
    Create,
    CreateIndex,
    Delete,
    Drop,
    DropColumns,
    DropIndex,
    Merge,
    Nothing,
    RowsBody,
    SearchBody,
    TableBody,
    Update,
    Version,
)
from meshhost.tables.contract import IndexKind, Search, TableStore
from meshhost.tables.encoding import encode_rows

__all__ = ["TablesService"]

# Versions that a participant has checked out at once.
_MAX_CHECKED_OUT = 1000


class TablesService(RoomService):
    """The database service, over a store of tables."""

    def __init__(self, tables: TableStore, *, counts: TenantCounts = UNCOUNTED) -> None:
        self._tables = tables
        self._counts = counts
        # The versions that a participant reads, by table.
        self._checked_out: Slot[dict[str, int]] = Slot(dict)

    def operations(self) -> Operations:
        """See RoomService."""
        indexes = {
            "database.create_vector_index": IndexKind.VECTOR,
            "database.create_scalar_index": IndexKind.SCALAR,
            "database.create_full_text_search_index": IndexKind.FULL_TEXT,
        }
        return {
            "database.list_tables": Operation(Nothing, self._list, _may_list),
            "database.create_table": Operation(Create, self._create, _may_alter_named, _name_of),
            "database.drop_table": Operation(Drop, self._drop, _may_alter_named, _name_of),
            "database.add_columns": Operation(AddColumns, self._add_columns, _may_alter, _subject),
            "database.drop_columns": Operation(DropColumns, self._drop_columns, _may_alter, _subject),
            "database.insert": Operation(RowsBody, self._insert, _may_write, _subject),
            "database.update": Operation(Update, self._update, _may_write, _subject),
            "database.delete": Operation(Delete, self._delete, _may_write, _subject),
            "database.merge": Operation(Merge, self._merge, _may_write, _subject),
            "database.search": Operation(SearchBody, self._search, _may_read, _subject),
            "database.optimize": Operation(TableBody, self._optimize, _may_alter, _subject),
            "database.list_versions": Operation(TableBody, self._list_versions, _may_read, _subject),
            "database.checkout": Operation(Version, self._checkout, _may_read, _subject),
            "database.restore": Operation(Version, self._restore, _may_alter, _subject),
            "database.list_indexes": Operation(TableBody, self._list_indexes, _may_read, _subject),
            "database.drop_index": Operation(DropIndex, self._drop_index, _may_alter, _subject),
            **{
                name: Operation(CreateIndex, self._create_index(kind), _may_alter, _subject)
                for name, kind in indexes.items()
            },
        }

    async def left(self, room: Room, participant: Participant) -> None:
        """See RoomService: what the participant had checked out is forgotten."""
        self._checked_out.of(participant).clear()

    async def _list(self, request: Request, _: Nothing) -> Answer:
        return JsonResponse(json={"tables": list(await self._tables.list(request.room.key))})

    async def _create(self, request: Request, body: Create) -> Answer:
        rows = await self._rows(request, body)
        if rows is None and body.columns is None:
            raise InvalidRequestError("schema", "expected a schema, or data with rows to take one from")
        tenant = request.room.key.tenant
        async with self._stored(request, len(rows or b"")):
            # One that is there already is not one more.
            is_there = body.mode in ("overwrite", "create_if_not_exists") and body.name in await self._tables.list(
                request.room.key
            )
            await self._counts.take(tenant, Resource.TABLES, may_refuse=not is_there)
            since, is_new = self._counts.mark(), False
            try:
                is_new = await self._tables.create(
                    request.room.key, body.name, rows=rows, schema=body.columns, mode=body.mode or "create"
                )
            except (asyncio.CancelledError, RequestTimeoutError):
                is_new = True  # perhaps
                self._counts.doubt(tenant, Resource.TABLES)
                raise
            finally:
                if is_new:
                    self._counts.keep(tenant, Resource.TABLES, since=since)
                else:
                    self._counts.give_back(tenant, Resource.TABLES)
        self._checked_out.of(request.participant).pop(body.name, None)
        return EmptyResponse()

    async def _drop(self, request: Request, body: Drop) -> Answer:
        tenant, since = request.room.key.tenant, self._counts.mark()
        if await self._tables.drop(request.room.key, body.name, ignore_missing=body.ignore_missing):
            self._counts.free(tenant, Resource.TABLES, since=since)
        self._counts.doubt(tenant, Resource.STORED_BYTES)
        self._checked_out.of(request.participant).pop(body.name, None)
        return EmptyResponse()

    async def _add_columns(self, request: Request, body: AddColumns) -> Answer:
        self._check_latest(request, body)
        async with self._stored(request):
            await self._tables.add_columns(request.room.key, body.table, body.new_columns)
        return EmptyResponse()

    async def _drop_columns(self, request: Request, body: DropColumns) -> Answer:
        self._check_latest(request, body)
        await self._tables.drop_columns(request.room.key, body.table, body.columns)
        return EmptyResponse()

    async def _insert(self, request: Request, body: RowsBody) -> Answer:
        self._check_latest(request, body)
        rows = await self._some_rows(request, body)
        async with self._stored(request, len(rows)):
            await self._tables.insert(request.room.key, body.table, rows)
        return EmptyResponse()

    async def _update(self, request: Request, body: Update) -> Answer:
        self._check_latest(request, body)
        values, expressions = body.values or {}, body.values_sql or {}
        if not values and not expressions:
            raise InvalidRequestError("values", "expected values, or values_sql, for at least one column")
        if twice := sorted(values.keys() & expressions.keys()):
            raise InvalidRequestError("values_sql", f"expected no column that values has: {twice[0]!r}")
        async with self._stored(request):
            await self._tables.update(
                request.room.key, body.table, where=body.where, values=values, values_sql=expressions
            )
        return EmptyResponse()

    async def _delete(self, request: Request, body: Delete) -> Answer:
        self._check_latest(request, body)
        await self._tables.delete(request.room.key, body.table, body.where)
        return EmptyResponse()

    async def _merge(self, request: Request, body: Merge) -> Answer:
        self._check_latest(request, body)
        rows = await self._some_rows(request, body)
        async with self._stored(request, len(rows)):
            await self._tables.merge(request.room.key, body.table, on=body.on, rows=rows)
        return EmptyResponse()

    async def _search(self, request: Request, body: SearchBody) -> Answer:
        found = await self._tables.search(
            request.room.key,
            body.table,
            Search(
                where=body.where,
                text=body.text,
                vector=body.vector,
                limit=body.limit,
                offset=body.offset or 0,
                select=body.select,
                version=self._checked_out.of(request.participant).get(body.table),
            ),
        )
        return EncodedJson(text=f'{{"results": {found.text}}}')

    async def _optimize(self, request: Request, body: TableBody) -> Answer:
        await self._tables.optimize(request.room.key, body.table)
        self._counts.doubt(request.room.key.tenant, Resource.STORED_BYTES)
        return EmptyResponse()

    async def _list_versions(self, request: Request, body: TableBody) -> Answer:
        versions = await self._tables.versions(request.room.key, body.table)
        return JsonResponse(json={"versions": [version._asdict() for version in versions]})

    async def _checkout(self, request: Request, body: Version) -> Answer:
        versions = [each.version for each in await self._tables.versions(request.room.key, body.table)]
        if body.version not in versions:
            raise NotFoundError(f"table {body.table!r} has no version {body.version}")
        checked_out = self._checked_out.of(request.participant)
        if body.version == versions[-1]:
            checked_out.pop(body.table, None)
        elif len(checked_out) >= _MAX_CHECKED_OUT and body.table not in checked_out:
            raise InvalidRequestError("table", f"expected at most {_MAX_CHECKED_OUT} tables that are checked out")
        else:
            checked_out[body.table] = body.version
        return EmptyResponse()

    async def _restore(self, request: Request, body: Version) -> Answer:
        await self._tables.restore(request.room.key, body.table, body.version)
        self._checked_out.of(request.participant).pop(body.table, None)
        return EmptyResponse()

    def _create_index(self, kind: IndexKind) -> Callable[[Request, CreateIndex], Coroutine[Any, Any, Answer]]:
        async def create(request: Request, body: CreateIndex) -> Answer:
            async with self._stored(request):
                await self._tables.create_index(
                    request.room.key, body.table, column=body.column, kind=kind, replace=body.replace is not False
                )
            return EmptyResponse()

        return create

    async def _list_indexes(self, request: Request, body: TableBody) -> Answer:
        indexes = await self._tables.indexes(request.room.key, body.table)
        return JsonResponse(
            json={"indexes": [{**index._asdict(), "columns": list(index.columns)} for index in indexes]}
        )

    async def _drop_index(self, request: Request, body: DropIndex) -> Answer:
        await self._tables.drop_index(request.room.key, body.table, body.name)
        self._counts.doubt(request.room.key.tenant, Resource.STORED_BYTES)
        return EmptyResponse()

    def _check_latest(self, request: Request, body: TableBody) -> None:
        version = self._checked_out.of(request.participant).get(body.table)
        if version is not None:
            raise InvalidRequestError(
                "table", f"you have checked out version {version} of it: restore it, or check out the latest, to write"
            )

    async def _rows(self, request: Request, body: Create | RowsBody) -> bytes | None:
        if request.message.payload:
            return request.message.payload
        return None if body.rows is None else await encode_rows(body.rows)

    async def _some_rows(self, request: Request, body: RowsBody) -> bytes:
        rows = await self._rows(request, body)
        if rows is None:
            raise InvalidRequestError("records", "expected a list of objects")
        return rows

    @asynccontextmanager
    async def _stored(self, request: Request, size: int = 0) -> AsyncIterator[None]:
        """Take `size` bytes of the quota for what the block stores. Raises QuotaExceededError."""
        tenant, counts = request.room.key.tenant, self._counts
        await counts.take(tenant, Resource.STORED_BYTES, size)
        since, is_stored = counts.mark(), True
        try:
            yield
        except RequestTimeoutError:  # it may have been done
            raise
        except RoomError:
            is_stored = False
            raise
        finally:  # a write whose client is gone goes on
            if is_stored:
                counts.keep(tenant, Resource.STORED_BYTES, size, since=since)
            else:
                counts.give_back(tenant, Resource.STORED_BYTES, size)
            # What it takes on the disk is another number, and a rewritten table takes that of both versions: an expression
            # that computes a column may make any amount of them.
            counts.doubt(tenant, Resource.STORED_BYTES, may_be_more=not size)


def _may_list(scope: ApiScope, _: Body) -> bool:
    return scope.database is not None and scope.database.list_tables


def _may_read(scope: ApiScope, body: TableBody) -> bool:
    return scope.database is not None and scope.database.can_read(body.table)


def _may_write(scope: ApiScope, body: TableBody) -> bool:
    return scope.database is not None and scope.database.can_write(body.table)


def _may_alter(scope: ApiScope, body: TableBody) -> bool:
    return scope.database is not None and scope.database.can_alter(body.table)


def _may_alter_named(scope: ApiScope, body: Create | Drop) -> bool:
    return scope.database is not None and scope.database.can_alter(body.name)


def _subject(body: TableBody) -> str:
    return body.table


def _name_of(body: Create | Drop) -> str:
    return body.name
