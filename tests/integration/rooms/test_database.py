"""Tables of rooms, through the wire: by our client and by MeshAgent's SDK, with grants, quotas and what happens at a kill."""

import asyncio
import json
import os
import runpy
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from doubles.talking import TalkingPrograms

import meshhost.api.room_server_client as names
from meshhost.app.config_file import ServerFile
from meshhost.errors import (
    AccessDeniedError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    QuotaExceededError,
    RequestTimeoutError,
)
from meshhost.identity.grants import ApiScope
from meshhost.quotas.quota import Resource
from meshhost.room.client import RoomClient
from meshhost.room.services.tables.data_types import FloatDataType, IntDataType, TextDataType, VectorDataType
from meshhost.testing.server import RunningServer, running_server

# Each test starts a process that loads LanceDB.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

PROGRAMS = Path(__file__).parents[1] / "sdk_programs"
SCHEMA = {"id": IntDataType(), "text": TextDataType(), "near": VectorDataType(size=2, element_type=FloatDataType())}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "server") as running:
        yield running


@pytest.fixture
async def room(server: RunningServer) -> AsyncIterator[RoomClient]:
    async with server.client() as client:
        yield client


def process_of(server: RunningServer) -> int:
    tables: Any = server.server.engines.tables
    pid: int = tables.processes[server.key.project_id]
    return pid


async def suite_of_our_client(server: RunningServer, room: str) -> dict[str, Any]:
    run = runpy.run_path(str(PROGRAMS / "database_suite.py"))["run"]
    async with server.client(room) as client:
        found: dict[str, Any] = json.loads(json.dumps(await run(client.database, names)))
        return found


async def test_every_method_gives_what_it_should(server: RunningServer) -> None:
    found = await suite_of_our_client(server, "room")
    assert (found["none"], found["tables"], found["end"]) == ([], ["things"], ["things"])
    assert found["again"] == "table 'things' exists: overwrite it, or take another name"
    assert found["one"] == [
        {
            "id": "thing 3", "n": 3, "x": 1.5, "raw": "0300ff", "day": "2026-01-04",
            "at": "2026-01-01T00:00:03+00:00", "near": [3.0, 0.0, 1.0],
        }
    ]  # fmt: skip
    assert found["quoted"] == [{"n": 100}]
    assert [row["id"] for row in found["where"]] == ["thing 17", "thing 18", "thing 19"]
    assert (found["time"], found["page"], found["nearest"]) == ([{"n": 19}], 5, ["thing 4", "thing 5"])
    assert found["text"] == ['it\'s "quoted"']
    assert found["both"] == ['it\'s "quoted"', "thing 7"]
    assert found["indexes"] == [["id_fts", ["id"], "FTS"], ["n_idx", ["n"], "BTree"]]
    assert found["updated"] == [
        {"id": "one", "x": None, "near": [9.0, 9.0, 9.0]},
        {"id": "thing 2", "x": 100.0, "near": [2.0, 0.0, 1.0]},
    ]
    # Columns that were not given keep their values.
    assert found["merged"] == [
        {"id": "new", "n": 12, "near": None},
        {"id": "one", "n": 11, "near": [9.0, 9.0, 9.0]},
    ]
    assert (found["left"], found["then"], found["restored"]) == ([0, 2, 3, 4, 5, 100], 21, 21)
    assert found["columns"] == [{"id": "thing 3", "n": 3, "twice": 6, "other": None}]
    assert found["dropped index"] == ["id_fts"]
    assert found["from data"] == [
        {"name": "a", "size": 1.0, "tags": ["x", "y"], "ok": True},
        {"name": "b", "size": 2.5, "tags": None, "ok": None},
    ]
    assert found["wrong"] == [
        "records: column 'n': expected a whole number",
        "records: no column 'nothing': expected id, n, twice, other",
        "where: Invalid input, Schema error: No field named nothing. Valid fields are `id`, `n`, `twice`, `other`.",
        "no table 'missing' in this room",
        "name: expected 1-128 letters, digits, '_', '-' and '.', beginning with a letter, digit or '_'",
        "no table 'missing' in this room",
    ]


async def test_the_sdk_gets_the_same(sdk_python: Path, server: RunningServer, tmp_path: Path) -> None:
    programs = TalkingPrograms(sdk_python, tmp_path, PROGRAMS)
    async with programs.run("database", server, room="theirs") as program:
        [theirs] = await program.rest()
    assert theirs == await suite_of_our_client(server, "ours")


async def test_rows_in_the_payload_may_be_more_than_a_header_holds(room: RoomClient) -> None:
    await room.database.create_table_with_schema(name="large", schema=SCHEMA)
    rows = [{"id": number, "text": "x" * 1000, "near": [0.5, 0.5]} for number in range(3000)]
    await room.database.insert(table="large", records=rows)
    assert len(await room.database.search(table="large", select=["id"])) == 3000
    with pytest.raises(LimitExceededError, match="header"):
        await room.send_request("database.insert", {"table": "large", "records": rows})
    for payload in (b"no json", b"{}", b"[1]", b'[{"id": 1e999}]'):
        with pytest.raises(InvalidRequestError, match="records"):
            await room.send_request("database.insert", {"table": "large"}, payload)


async def test_a_result_has_its_bounds(room: RoomClient) -> None:
    await room.database.create_table_from_data(name="many", data=[{"id": number} for number in range(10_001)])
    with pytest.raises(LimitExceededError, match="over 10000 rows were found: ask for fewer with limit and offset"):
        await room.database.search(table="many")
    assert len(await room.database.search(table="many", limit=10_000)) == 10_000
    await room.database.create_table_from_data(name="wide", data=[{"id": 0, "text": "x" * 1000}] * 9000)
    with pytest.raises(LimitExceededError, match="rows of over 8388608 bytes"):
        await room.database.search(table="wide")
    assert len(await room.database.search(table="wide", select=["id"])) == 9000


async def test_requests_that_are_wrong_name_the_field(room: RoomClient) -> None:
    await room.database.create_table_with_schema(name="t", schema=SCHEMA)
    wrong = [
        ("create_table", {"name": "a/b"}, "name"),
        ("create_table", {"name": "a" * 129}, "name"),
        ("create_table", {"name": "x"}, "schema"),
        ("create_table", {"name": "x", "schema": {"a.b": {"type": "int"}}}, "schema"),
        ("create_table", {"name": "x", "schema": {"_distance": {"type": "int"}}}, "schema"),
        ("create_table", {"name": "x", "schema": {"a": {"type": "money"}}}, "schema"),
        ("create_table", {"name": "x", "schema": {"a": {"type": "vector", "size": 0}}}, "schema"),
        ("create_table", {"name": "x", "data": [1]}, "data"),
        ("create_table", {"name": "x", "data": [{"a": 1}, {"a": "x"}]}, "data"),
        ("create_table", {"name": "x", "data": [{"a'b": 1}]}, "data"),
        ("create_table", {"name": "x", "data": [{"a": 1}], "mode": "append"}, "mode"),
        ("insert", {"table": "t"}, "records"),
        ("insert", {"table": "t", "records": "x"}, "records"),
        ("insert", {"table": "t", "records": [{"near": [1, 2, 3]}]}, "records"),
        ("insert", {"table": "t", "records": [{"id": True}]}, "records"),
        ("update", {"table": "t", "values": {"id": 1}}, "where"),
        ("update", {"table": "t", "where": "true"}, "values"),
        ("update", {"table": "t", "where": "true", "values": {"id": 1}, "values_sql": {"id": "2"}}, "values_sql"),
        ("update", {"table": "t", "where": "true", "values": {"id": "x"}}, "values"),
        ("delete", {"table": "t", "where": " "}, "where"),
        ("search", {"table": "t", "where": "id = 'x"}, "where"),
        ("search", {"table": "t", "where": "id in (select 1)"}, "where"),
        ("search", {"table": "t", "where": "(" * 50 + "true" + ")" * 50}, "where"),
        ("search", {"table": "t", "where": "id = 1 OR " * 2000 + "true"}, "where"),
        ("search", {"table": "t", "vector": [1, 2, 3]}, "vector"),
        ("search", {"table": "t", "vector": ["x"]}, "vector"),
        ("search", {"table": "t", "limit": 0}, "limit"),
        ("search", {"table": "t", "offset": -1}, "offset"),
        ("search", {"table": "t", "select": ["nothing"]}, "select"),
        ("checkout", {"table": "t", "version": 0}, "version"),
        ("add_columns", {"table": "t", "new_columns": {"c": 1}}, "new_columns"),
        ("add_columns", {"table": "t", "new_columns": {"c": "nothing + 1"}}, "columns"),
        ("create_vector_index", {"table": "t", "column": "id"}, "column"),
        ("create_full_text_search_index", {"table": "t", "column": "id"}, "column"),
        ("create_scalar_index", {"table": "t", "column": "near"}, "column"),
    ]
    for name, body, field in wrong:
        with pytest.raises(InvalidRequestError) as error:
            await room.send_request(f"database.{name}", body)
        assert str(error.value).startswith(field), (name, body, str(error.value))
        assert "/root/" not in str(error.value)
    assert await room.database.list_tables() == ["t"]
    for name, body in [
        ("merge", {"table": "t", "on": "nothing", "records": []}),
        ("drop_columns", {"table": "t", "columns": ["nothing"]}),
        ("restore", {"table": "t", "version": 99}),
        ("checkout", {"table": "t", "version": 99}),
        ("drop_index", {"table": "t", "name": "nothing"}),
    ]:
        with pytest.raises(NotFoundError):
            await room.send_request(f"database.{name}", body)


async def test_a_grant_for_some_tables_is_for_these_only(server: RunningServer, room: RoomClient) -> None:
    for name in ("read", "written", "hidden"):
        await room.database.create_table_with_schema(name=name, schema=SCHEMA)
    tables = [{"name": "read"}, {"name": "written", "write": True, "read": False}]
    scope = ApiScope.model_validate({"database": {"tables": tables, "list_tables": False}})
    async with server.client(scope=scope) as other:
        database = other.database
        assert await database.search(table="read") == []
        await database.insert(table="written", records={"id": 1})
        for doing in (
            database.list_tables(),
            database.search(table="hidden"),
            database.search(table="written"),
            database.insert(table="read", records={"id": 1}),
            database.create_scalar_index(table="written", column="id"),
            database.drop_table(name="written"),
            database.create_table_with_schema(name="new", schema=SCHEMA),
        ):
            with pytest.raises(AccessDeniedError):
                await doing


async def test_what_one_checks_out_is_seen_by_nobody_else(server: RunningServer, room: RoomClient) -> None:
    await room.database.create_table_from_data(name="t", data=[{"id": 1}])
    await room.database.insert(table="t", records={"id": 2})
    async with server.client(name="other") as other:
        await other.database.checkout(table="t", version=1)
        assert len(await other.database.search(table="t")) == 1
        await room.database.insert(table="t", records={"id": 3})
        assert len(await room.database.search(table="t")) == 3
        latest = (await other.database.list_versions(table="t"))[-1].version
        await other.database.checkout(table="t", version=latest)
        await other.database.insert(table="t", records={"id": 4})
        assert len(await other.database.search(table="t")) == 4


async def test_tables_of_other_rooms_and_tenants_are_not_there(server: RunningServer, room: RoomClient) -> None:
    await room.database.create_table_from_data(name="t", data=[{"id": 1}])
    async with server.client("other") as other:
        assert await other.database.list_tables() == []
        with pytest.raises(NotFoundError):
            await other.database.search(table="t")


async def test_tables_count_for_the_quota(tmp_path: Path) -> None:
    file = ServerFile.model_validate({"quota": {"max_tables": 2, "max_stored_bytes": 500_000}})
    async with running_server(tmp_path, file=file) as server, server.client() as room:
        for name in ("a", "b"):
            await room.database.create_table_with_schema(name=name, schema=SCHEMA)
        with pytest.raises(QuotaExceededError, match="max_tables: 2 tables may exist"):
            await room.database.create_table_with_schema(name="c", schema=SCHEMA)
        await room.database.create_table_with_schema(name="b", schema=SCHEMA, mode="overwrite")
        await room.database.drop_table(name="b")
        await room.database.create_table_with_schema(name="c", schema=SCHEMA)
        with pytest.raises(QuotaExceededError, match="max_stored_bytes"):
            await room.database.insert(table="a", records=[{"text": "x" * 600_000}])
        await room.database.insert(table="a", records=[{"text": os.urandom(150_000).hex()}])
        use = await server.server.engines.counts.use(server.key.project_id)
        assert use[Resource.TABLES] == 2
        assert 150_000 < use[Resource.STORED_BYTES] < 500_000
        with pytest.raises(QuotaExceededError, match="max_stored_bytes"):
            await room.database.insert(table="a", records=[{"text": "x" * 400_000}])


async def test_a_query_that_takes_too_long_ends_and_frees_its_place(tmp_path: Path) -> None:
    file = ServerFile.model_validate({"tables": {"query_seconds": 3, "concurrent": 1}})
    async with running_server(tmp_path, file=file) as server, server.client() as room:
        await room.database.create_table_from_data(name="t", data=[{"id": n, "text": "ab" * 500} for n in range(9_000)])
        first = process_of(server)
        slow = " OR ".join(f"regexp_like(repeat(text, 100), '(a|b){{{n}}}c')" for n in range(20, 60))
        with pytest.raises(RequestTimeoutError, match="over 3 s and was ended"):
            await room.database.search(table="t", where=slow)
        assert len(await room.database.search(table="t", where="id < 3")) == 3
        assert process_of(server) != first


async def test_a_query_that_needs_too_much_memory_ends_alone(tmp_path: Path) -> None:
    file = ServerFile.model_validate({"tables": {"memory_mb": 384}})
    async with running_server(tmp_path, file=file) as server, server.client() as room:
        await room.database.create_table_from_data(name="t", data=[{"id": n, "text": "x"} for n in range(8_000)])
        with pytest.raises(LimitExceededError, match="over 384 MB of memory"):
            await room.database.search(table="t", where="regexp_like(repeat(text, 5000000), 'y')")
        assert len(await room.database.search(table="t", where="id < 3")) == 3


async def test_a_caller_who_gives_up_a_search_ends_it(server: RunningServer, room: RoomClient) -> None:
    await room.database.create_table_from_data(name="t", data=[{"id": n, "text": "ab" * 500} for n in range(9_000)])
    slow = " OR ".join(f"regexp_like(repeat(text, 100), '(a|b){{{n}}}c')" for n in range(20, 60))
    searches = [asyncio.ensure_future(room.database.search(table="t", where=slow)) for _ in range(4)]
    await asyncio.sleep(0.3)
    for search in searches:
        search.cancel()
    await asyncio.gather(*searches, return_exceptions=True)
    async with asyncio.timeout(10):  # their four places are free, long before their time is up
        assert len(await room.database.search(table="t", where="id < 3")) == 3


async def test_a_killed_process_costs_a_reader_nothing(server: RunningServer, room: RoomClient) -> None:
    await room.database.create_table_from_data(name="t", data=[{"id": 1}])
    for _ in range(3):
        os.kill(process_of(server), signal.SIGKILL)
        assert await room.database.search(table="t") == [{"id": 1}]


async def test_a_process_that_is_killed_in_a_merge_leaves_one_version(server: RunningServer, room: RoomClient) -> None:
    """Every row of a table has the number of the merge that wrote it: after any kill, all have the same."""
    rows = [{"id": number, "text": "0"} for number in range(20_000)]
    await room.database.create_table_from_data(name="t", data=rows)
    done = 0
    for turn in range(1, 9):
        merged = [{"id": number, "text": str(turn)} for number in range(20_000)]
        merge = asyncio.ensure_future(room.database.merge(table="t", on="id", records=merged))
        await asyncio.sleep(0.04 * turn)
        os.kill(process_of(server), signal.SIGKILL)
        try:
            await merge
        except RequestTimeoutError:
            pass
        else:
            done = turn
        found = {row["text"] for row in await room.database.search(table="t", where="id < 9000", select=["text"])}
        found |= {row["text"] for row in await room.database.search(table="t", where="id >= 11000", select=["text"])}
        assert len(found) == 1
        [last] = found
        assert last in {str(done), str(turn)}
        done = int(last)


async def test_deleting_a_room_deletes_its_tables(server: RunningServer, tmp_path: Path) -> None:
    key = server.key.project_id
    for name in ("room", "room-2"):
        async with server.client(name) as room:
            await room.database.create_table_from_data(name="t", data=[{"id": 1}])
    deletions = server.server.parts.deletions
    from meshhost.identity.tenant import RoomKey, TenantId

    assert await deletions.delete_room(RoomKey(TenantId(key), "room"), wait_seconds=10)
    tables: Any = server.server.engines.tables
    assert await tables.rooms(TenantId(key)) == ["room-2"]
    async with server.client("room-2") as room:
        assert await room.database.list_tables() == ["t"]


async def test_a_server_without_the_extra_says_what_is_missing(server: RunningServer, room: RoomClient) -> None:
    tables: Any = server.server.engines.tables
    tables._is_installed = False
    with pytest.raises(Exception, match=r"pip install 'meshhost\[database\]'"):
        await room.database.list_tables()
