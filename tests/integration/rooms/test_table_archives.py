"""Tables in archives: rows and indexes come over with a room or tenant, and what anybody may have written is refused."""

import asyncio
import io
import json
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.quotas.quota import Resource
from meshhost.room.services.tables.data_types import FloatDataType, IntDataType, TextDataType, VectorDataType
from meshhost.tables.contract import IndexKind, TablePart, TableStore
from tests.integration.rooms.test_archives import RECORD, export, forged, load
from tests.integration.rooms.test_tenants_rest import OPERATOR_KEY, Rest

# Each test starts processes that load LanceDB.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SCHEMA = {"id": IntDataType(), "text": TextDataType(), "near": VectorDataType(size=4, element_type=FloatDataType())}


@pytest.fixture
async def rest(serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession) -> Rest:
    return Rest(http, await stack.enter_async_context(serve(operator_key=OPERATOR_KEY)))


def tables_of(rest: Rest) -> TableStore:
    tables = rest.server.server.engines.tables
    assert tables is not None
    return tables


async def fill(rest: Rest, room: str = "room") -> None:
    async with rest.server.client(room) as client:
        await client.database.create_table_with_schema(name="large", schema=SCHEMA)
        rows = [{"id": number, "text": f"row {number}", "near": [number, 0.5, 1, 2]} for number in range(700)]
        await client.database.insert(table="large", records=rows)
        await client.database.delete(table="large", where="id >= 600")
        await client.database.create_vector_index(table="large", column="near")
        await client.database.create_scalar_index(table="large", column="id")
        await client.database.create_full_text_search_index(table="large", column="text")
        await client.database.create_table_with_schema(name="empty", schema=SCHEMA)


async def content(rest: Rest, room: str) -> Any:
    async with rest.server.client(room) as client:
        names = await client.database.list_tables()
        rows = {name: await client.database.search(table=name) for name in names}
        indexes = {name: await client.database.list_indexes(table=name) for name in names}
    return {name: sorted(found, key=lambda row: row["id"]) for name, found in rows.items()}, indexes


async def test_tables_come_over_with_their_room(rest: Rest) -> None:
    await fill(rest)
    tenant = rest.server.key.project_id
    archive = await export(rest, rest.server.api_key, f"/tenants/{tenant}/rooms/room")
    status, answer = await load(rest, rest.server.api_key, f"/tenants/{tenant}/rooms/copy", archive)
    assert (status, answer["tables"]) == (200, 2), answer
    assert answer["table_bytes"] > 600 * 16
    assert await content(rest, "copy") == await content(rest, "room")
    rows, _ = await content(rest, "copy")
    assert (len(rows["large"]), rows["empty"]) == (600, [])
    # A room that has nothing but tables is there.
    assert (await load(rest, rest.server.api_key, f"/tenants/{tenant}/rooms/copy", archive))[0] == 409


async def test_tables_come_over_with_their_tenant(rest: Rest) -> None:
    await fill(rest)
    archive = await export(rest, OPERATOR_KEY, f"/tenants/{rest.server.key.project_id}")
    status, answer = await load(rest, OPERATOR_KEY, "/tenants/copy", archive)
    assert (status, answer["tables"]) == (200, 2), answer
    tables, there = tables_of(rest), RoomKey(TenantId(answer["id"]), "room")
    assert await tables.list(there) == ["empty", "large"]
    assert (await tables.of_tenant(there.tenant)).tables == 2
    status, _ = await rest(OPERATOR_KEY, "DELETE", "/tenants/copy")
    assert status == 200
    assert await tables.rooms(there.tenant) == []


async def test_an_archive_that_anybody_wrote_is_checked(rest: Rest) -> None:
    tables, tenant = tables_of(rest), rest.server.key.project_id
    await fill(rest)
    [part] = [part async for part in tables.parts(RoomKey(TenantId(tenant), "room"), "empty")]
    one = ("rooms/room/tables/t/00000001.arrow", part.data)
    wrong: list[tuple[list[tuple[str, bytes]], str]] = [
        ([("rooms/room/tables/t/00000001.arrow", b"no rows")], "not rows of a table"),
        ([("rooms/room/tables/t/00000001.arrow", part.data[:100])], "not rows of a table"),
        ([("rooms/room/tables/t/00000002.arrow", part.data)], "no table 't'"),
        ([("rooms/room/tables/t/1.arrow", part.data)], "unknown name"),
        ([("rooms/room/tables/.t/00000001.arrow", part.data)], "no table has the name"),
        ([one, ("rooms/room/tables/t/indexes.json", b"{}")], "indexes: expected a list"),
        ([one, ("rooms/room/tables/t/indexes.json", b'{"indexes": [{"column": "id"}]}')], "columns and kinds"),
        ([one, ("rooms/room/tables/t/indexes.json", b'{"indexes": [{"column": "a`b", "kind": "scalar"}]}')], "column"),
    ]
    for number, (entries, text) in enumerate(wrong):
        path = f"/tenants/{tenant}/rooms/forged-{number}"
        status, answer = await load(rest, rest.server.api_key, path, forged(RECORD, *entries))
        assert status in (400, 404), (entries, answer)
        assert text in json.dumps(answer), answer
    async with asyncio.timeout(10):  # what was imported of them is deleted by itself
        while await tables.rooms(TenantId(tenant)) != ["room"]:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.05)
    # An index that cannot be made any more is left out.
    indexes = json.dumps({"indexes": [{"column": "near", "kind": "vector"}, {"column": "gone", "kind": "scalar"}]})
    archive = forged(RECORD, one, ("rooms/room/tables/t/indexes.json", indexes.encode()))
    status, answer = await load(rest, rest.server.api_key, f"/tenants/{tenant}/rooms/whole", archive)
    assert (status, answer["tables"]) == (200, 1), answer


async def test_metadata_of_an_archive_reaches_no_table(rest: Rest) -> None:
    arrow = pytest.importorskip("pyarrow")
    field = arrow.field(
        "x", arrow.string(), metadata={"lance-encoding:blob": "true", "ARROW:extension:name": "lance.json"}
    )
    rows = arrow.Table.from_arrays([arrow.array(["a"])], schema=arrow.schema([field], metadata={"k": "v"}))
    sink = io.BytesIO()
    with arrow.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    tables, room = tables_of(rest), RoomKey(TenantId(rest.server.key.project_id), "room")
    await tables.restore_part(room, TablePart("t", sink.getvalue()), is_first=True)
    [part] = [part async for part in tables.parts(room, "t")]
    schema = arrow.ipc.open_stream(part.data).schema
    assert (schema.metadata, schema.field("x").metadata) == (None, None)
    await tables.create_index(room, "t", column="x", kind=IndexKind.SCALAR)


async def test_a_server_without_tables_refuses_an_archive_that_has_some(
    serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession
) -> None:
    rest = Rest(http, await stack.enter_async_context(serve(operator_key=OPERATOR_KEY)))
    deletions: Any = rest.server.server.parts.deletions
    object.__setattr__(deletions._kept, "tables", None)
    archive = forged(RECORD, ("rooms/room/tables/t/00000001.arrow", b""))
    path = f"/tenants/{rest.server.key.project_id}/rooms/room"
    status, answer = await load(rest, rest.server.api_key, path, archive)
    assert (status, "does not keep" in json.dumps(answer)) == (400, True), answer


async def test_what_is_imported_is_counted(rest: Rest) -> None:
    await fill(rest)
    tenant = rest.server.key.project_id
    archive = await export(rest, rest.server.api_key, f"/tenants/{tenant}/rooms/room")
    await rest(OPERATOR_KEY, "PATCH", f"/tenants/{tenant}/quota", json={"max_tables": 1})
    status, answer = await load(rest, rest.server.api_key, f"/tenants/{tenant}/rooms/copy", archive)
    assert (status, Resource.TABLES.limit_name in json.dumps(answer)) == (429, True), answer


def test_a_worker_ends_when_its_server_does() -> None:
    options = {"base": "/nowhere", "memory_mb": 512, "result_bytes": 1000}
    command = [sys.executable, "-m", "meshhost.tables.worker", json.dumps(options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.read(1)  # it is ready
        worker.stdin.close()
        assert worker.wait(timeout=10) == 0
