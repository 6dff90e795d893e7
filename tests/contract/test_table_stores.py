"""What every store of tables promises: the one with processes, and the same operations within this process."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from meshhost.errors import AlreadyExistsError, InvalidRequestError, LimitExceededError, NotFoundError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.files import open_object_store
from meshhost.stores.listing.area import ObjectArea
from meshhost.tables.contract import IndexKind, Search, TableIndex, TablePart, TableStore, TenantTables
from meshhost.tables.encoding import encode_rows
from meshhost.tables.frames import RefusedError
from meshhost.tables.limits import TableLimits
from meshhost.tables.store import LanceTables, _error_of

# Loading LanceDB takes a second.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

TENANT = TenantId("tenant")
ROOM = RoomKey(TENANT, "room")
TEXT, INT, FLOAT = {"type": "text"}, {"type": "int"}, {"type": "float"}
VECTOR = {"type": "vector", "size": 8, "element_type": FLOAT}
SCHEMA: Mapping[str, Any] = {
    "id": TEXT,
    "n": INT,
    "x": FLOAT,
    "ok": {"type": "bool"},
    "raw": {"type": "binary"},
    "day": {"type": "date"},
    "at": {"type": "timestamp"},
    "near": VECTOR,
}
LIMITS = TableLimits(result_bytes=100_000)


class InThisProcess(LanceTables):
    """Does each request at once, with what a worker process runs."""

    def __init__(self, area: ObjectArea, location: Path) -> None:
        from meshhost.tables.worker.database import Databases
        from meshhost.tables.worker.operations import Operations, refusal_of

        super().__init__(area, location, limits=LIMITS)
        self._refusal_of = refusal_of
        base = str(location / area.name / TENANT)
        self._operations = Operations(Databases(base, memory_bytes=2**28), result_bytes=LIMITS.result_bytes)

    async def _ask(
        self, room: RoomKey, op: str, body: dict[str, Any], data: bytes, *, seconds: float, is_read: bool
    ) -> tuple[dict[str, Any], bytes]:
        request = json.loads(json.dumps({"room": room.name, **body}))
        try:
            return await self._operations.run(op, request, data)
        except RefusedError as refused:
            raise _error_of(refused) from None
        except Exception as error:  # noqa: BLE001 - as a worker does
            raise _error_of(self._refusal_of(error, request)) from None


@pytest.fixture(params=["processes", "this process"])
async def tables(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TableStore]:
    location = tmp_path / "storage"
    area = ObjectArea(open_object_store(location), "tables")
    if request.param == "this process":
        yield InThisProcess(area, location)
        return
    async with LanceTables(area, location, limits=LIMITS) as store:
        yield store


def row(number: int) -> dict[str, Any]:
    return {
        "id": f"row {number}",
        "n": number,
        "x": number / 4,
        "ok": number % 2 == 0,
        "raw": {"encoding": "base64", "data": "AP8="},
        "day": "2026-01-31",
        "at": "2026-01-31T12:00:00+01:00",
        "near": [float(number), *[1.0] * 7],
    }


async def filled(tables: TableStore, rows: int = 10) -> None:
    await tables.create(ROOM, "t", rows=await encode_rows([row(n) for n in range(rows)]), schema=SCHEMA, mode="create")


async def found(tables: TableStore, table: str = "t", **search: Any) -> list[Any]:
    result = await tables.search(ROOM, table, Search(**search))
    rows: list[Any] = json.loads(result.text)
    assert len(rows) == result.count
    return rows


async def test_rows_come_back_as_they_went_in(tables: TableStore) -> None:
    await filled(tables, 1)
    await tables.insert(ROOM, "t", await encode_rows([{"id": "row 1"}, {"n": 2.0, "id": {"a": [1]}}]))
    first, *others = sorted(await found(tables), key=lambda row: str(row["id"]), reverse=True)
    by_id = {each["id"]: each for each in [first, *others]}
    assert by_id["row 0"] == {**row(0), "at": "2026-01-31T11:00:00+00:00"}
    assert by_id["row 1"] == dict.fromkeys(SCHEMA) | {"id": "row 1"}
    assert by_id['{"a": [1]}']["n"] == 2


async def test_a_table_is_made_once_anew_or_if_it_is_not_there(tables: TableStore) -> None:
    assert await tables.create(ROOM, "t", rows=None, schema={"a": INT}, mode="create_if_not_exists")
    with pytest.raises(AlreadyExistsError, match="table 't' exists"):
        await tables.create(ROOM, "t", rows=None, schema={"b": INT}, mode="create")
    assert not await tables.create(ROOM, "t", rows=None, schema={"b": INT}, mode="create_if_not_exists")
    await tables.insert(ROOM, "t", b'[{"a": 1}]')
    assert not await tables.create(ROOM, "t", rows=b'[{"b": 2}]', schema=None, mode="overwrite")
    assert await found(tables) == [{"b": 2}]
    assert await tables.list(ROOM) == ["t"]
    assert await tables.drop(ROOM, "t")
    assert not await tables.drop(ROOM, "t", ignore_missing=True)
    with pytest.raises(NotFoundError, match="no table 't' in this room"):
        await tables.drop(ROOM, "t")
    assert await tables.list(ROOM) == []


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([{"a": 1}, {"a": 2.5}], {"a": 2.5}),
        ([{"a": True}], {"a": True}),
        ([{"a": None}], {"a": None}),
        ([{"a": [1.5, 2]}, {"a": [0.5, 1]}], {"a": [0.5, 1.0]}),
        ([{"a": [1, 2]}, {"a": [3]}], {"a": [3]}),
        ([{"a": [1.5]}, {"a": [3, 4]}], {"a": [3.0, 4.0]}),
        ([{"a": ["x"]}, {"a": []}], {"a": []}),
        ([{"a": {"encoding": "base64", "data": "YQ=="}}], {"a": {"encoding": "base64", "data": "YQ=="}}),
        ([{"a": {"b": 1}}, {"a": "text"}], {"a": "text"}),
        ([{"b": 1}, {"a": "x"}], {"b": None, "a": "x"}),
    ],
)
async def test_types_are_taken_from_rows(tables: TableStore, rows: Any, columns: Any) -> None:
    await tables.create(ROOM, "t", rows=await encode_rows(rows), schema=None, mode="create")
    assert columns in await found(tables)


@pytest.mark.parametrize("values", [[1, "x"], [[1], ["x"]], [[1], 2], [True, 1], [[{}]]])
async def test_values_of_several_types_are_refused(tables: TableStore, values: list[Any]) -> None:
    rows = await encode_rows([{"a": value} for value in values])
    with pytest.raises(InvalidRequestError, match="data: column 'a': expected"):
        await tables.create(ROOM, "t", rows=rows, schema=None, mode="create")
    assert await tables.list(ROOM) == []


WRONG = {
    "id": [1, True],
    "n": ["1", 1.5, True, 2**70],
    "x": ["1", True],
    "ok": [1, "true"],
    "raw": ["text", {"encoding": "base64", "data": "%"}, {"encoding": "hex", "data": "00"}],
    "day": [1, "yesterday"],
    "at": [1, "noon"],
    "near": [[1, 2], "x", [*"12345678"], 1],
}


@pytest.mark.parametrize(("column", "value"), [(name, value) for name, values in WRONG.items() for value in values])
async def test_a_wrong_value_is_refused_by_its_column(tmp_path: Path, column: str, value: Any) -> None:
    tables = InThisProcess(ObjectArea(open_object_store(tmp_path), "tables"), tmp_path)
    await tables.create(ROOM, "t", rows=None, schema=SCHEMA, mode="create")
    with pytest.raises(InvalidRequestError, match=f"records: column '{column}': expected"):
        await tables.insert(ROOM, "t", await encode_rows([{column: value}]))
    with pytest.raises(InvalidRequestError, match=f"values: column '{column}': expected"):
        await tables.update(ROOM, "t", where="true", values={column: value}, values_sql={})
    assert await found(tables) == []


async def test_changes_are_to_the_rows_that_match(tables: TableStore) -> None:
    await filled(tables)
    values = row(100) | {"id": "it's", "x": None}
    await tables.update(ROOM, "t", where="n = 3", values=values, values_sql={})
    await tables.update(ROOM, "t", where="n < 2", values={}, values_sql={"x": "x + 1"})
    [changed] = await found(tables, where="n = 100")
    assert changed == values | {"at": "2026-01-31T11:00:00+00:00"}
    assert [each["x"] for each in await found(tables, where="n < 3", select=["x"])].count(0.5) == 1
    await tables.delete(ROOM, "t", "n >= 2")
    assert sorted(each["x"] for each in await found(tables)) == [1.0, 1.25]
    with pytest.raises(InvalidRequestError, match=r"where: .*No field named nothing"):
        await tables.delete(ROOM, "t", "nothing = 1")
    with pytest.raises(NotFoundError, match="no column 'nothing'"):
        await tables.update(ROOM, "t", where="true", values={"nothing": 1}, values_sql={})


async def test_a_merge_replaces_and_adds(tables: TableStore) -> None:
    await filled(tables, 3)
    rows = [{"id": "row 1", "n": 5}, {"id": "row 1", "n": 6}, {"id": "new", "n": 7}, {"id": None, "n": 8}]
    await tables.merge(ROOM, "t", on="id", rows=await encode_rows(rows))
    merged = {(each["id"], each["n"]): each for each in await found(tables)}
    assert set(merged) == {("row 0", 0), ("row 1", 6), ("row 2", 2), ("new", 7), (None, 8)}
    assert merged["row 1", 6]["x"] == 0.25
    with pytest.raises(InvalidRequestError, match="records: no column 'nothing'"):
        await tables.merge(ROOM, "t", on="id", rows=b'[{"id": "x", "nothing": 1}]')
    with pytest.raises(NotFoundError, match="no column 'nothing'"):
        await tables.merge(ROOM, "t", on="nothing", rows=b"[]")
    for rows_of_anybody in (b"x", b"1", b"[1]"):
        with pytest.raises(InvalidRequestError, match="records: expected a JSON array of objects"):
            await tables.merge(ROOM, "t", on="id", rows=rows_of_anybody)


async def test_searches_rank_filter_and_page(tables: TableStore) -> None:
    await filled(tables, 300)
    near = [7.1, *[1.0] * 7]
    for _ in range(2):  # without indexes, and with them
        ids = [each["id"] for each in await found(tables, vector=near, limit=3, select=["id"])]
        assert (ids[0], set(ids)) == ("row 7", {"row 7", "row 8", "row 6"})
        assert [each["n"] for each in await found(tables, vector=near, where="n > 100", limit=1)] == [101]
        assert len(await found(tables, vector=near)) == 10
        assert len(await found(tables, vector=near, limit=5, offset=2)) == 5
        assert len(await found(tables, where="n >= 290", limit=20, offset=3)) == 7
        assert [each["n"] for each in await found(tables, text="7", vector=near, limit=1)] == [7]
        await tables.create_index(ROOM, "t", column="near", kind=IndexKind.VECTOR)
        await tables.create_index(ROOM, "t", column="n", kind=IndexKind.SCALAR)
        await tables.create_index(ROOM, "t", column="ok", kind=IndexKind.SCALAR)
        await tables.create_index(ROOM, "t", column="id", kind=IndexKind.FULL_TEXT)
    assert [each["n"] for each in await found(tables, text="42", limit=1)] == [42]
    assert len(await found(tables, text="42", vector=near, limit=4, offset=1)) == 4
    with pytest.raises(InvalidRequestError, match="select: no column 'nothing'"):
        await found(tables, select=["nothing"])
    with pytest.raises(InvalidRequestError, match="vector: no column of vectors of 2 numbers; there is: near \\(8\\)"):
        await found(tables, vector=[1.0, 2.0])
    await tables.insert(ROOM, "t", await encode_rows([{"id": "x" * 1000}] * 200))
    with pytest.raises(LimitExceededError, match="rows of over 100000 bytes"):
        await found(tables, where="x IS NULL", limit=10_000_000)


async def test_numbers_that_json_has_not_are_null(tables: TableStore) -> None:
    await filled(tables, 1)
    await tables.update(ROOM, "t", where="true", values={}, values_sql={"x": "0.0 / 0.0", "n": "1"})
    assert [each["x"] for each in await found(tables)] == [None]


async def test_indexes_are_made_listed_and_dropped(tables: TableStore) -> None:
    await filled(tables, 300)
    await tables.create_index(ROOM, "t", column="near", kind=IndexKind.VECTOR)
    await tables.create_index(ROOM, "t", column="id", kind=IndexKind.SCALAR)
    await tables.create_index(ROOM, "t", column="id", kind=IndexKind.FULL_TEXT)
    assert await tables.indexes(ROOM, "t") == [
        TableIndex("id_fts", ["id"], "FTS"),
        TableIndex("id_idx", ["id"], "BTree"),
        TableIndex("near_idx", ["near"], "IvfPq"),
    ]
    for column, kind in (("near", IndexKind.VECTOR), ("id", IndexKind.SCALAR), ("id", IndexKind.FULL_TEXT)):
        with pytest.raises(AlreadyExistsError, match=f"column '{column}' has an index"):
            await tables.create_index(ROOM, "t", column=column, kind=kind, replace=False)
    await tables.drop_index(ROOM, "t", "id_idx")
    with pytest.raises(NotFoundError, match="no index 'id_idx'"):
        await tables.drop_index(ROOM, "t", "id_idx")
    for column, kind in (("n", IndexKind.VECTOR), ("n", IndexKind.FULL_TEXT), ("near", IndexKind.SCALAR)):
        with pytest.raises(InvalidRequestError, match="column: expected a column of"):
            await tables.create_index(ROOM, "t", column=column, kind=kind)
    await tables.delete(ROOM, "t", "n >= 200")
    with pytest.raises(InvalidRequestError, match="needs at least 256 rows, there are 200"):
        await tables.create_index(ROOM, "t", column="near", kind=IndexKind.VECTOR)
    await tables.optimize(ROOM, "t")
    assert len(await found(tables, vector=row(3)["near"])) == 10


async def test_vectors_of_odd_sizes_and_lists_have_indexes(tables: TableStore) -> None:
    rows = [{"near": [number + 0.5, 1, 2], "tags": ["x", str(number)]} for number in range(256)]
    await tables.create(ROOM, "t", rows=await encode_rows(rows), schema=None, mode="create")
    await tables.create_index(ROOM, "t", column="near", kind=IndexKind.VECTOR)
    await tables.create_index(ROOM, "t", column="tags", kind=IndexKind.SCALAR)
    assert [index.kind for index in await tables.indexes(ROOM, "t")] == [IndexKind.VECTOR, IndexKind.SCALAR]
    assert [each["tags"] for each in await found(tables, vector=[7.5, 1, 2], limit=1)] == [["x", "7"]]
    assert len(await found(tables, where="array_has_any(tags, ['7', '8'])")) == 2


async def test_columns_come_and_go(tables: TableStore) -> None:
    await filled(tables, 1)
    await tables.add_columns(ROOM, "t", {"twice": "n * 2", "later": VECTOR, "note": "'none'"})
    await tables.drop_columns(ROOM, "t", [name for name in SCHEMA if name != "id"])
    assert await found(tables) == [{"id": "row 0", "twice": 0, "note": "none", "later": None}]
    with pytest.raises(AlreadyExistsError, match="column 'twice' exists"):
        await tables.add_columns(ROOM, "t", {"twice": "1"})
    with pytest.raises(NotFoundError, match="no column 'nothing'"):
        await tables.drop_columns(ROOM, "t", ["nothing"])
    with pytest.raises(InvalidRequestError, match="columns: "):
        await tables.add_columns(ROOM, "t", {"c": "nothing + 1"})


async def test_a_former_version_is_read_and_restored(tables: TableStore) -> None:
    await filled(tables, 2)
    first = (await tables.versions(ROOM, "t"))[-1].version
    await tables.delete(ROOM, "t", "n = 0")
    assert len(await found(tables, version=first)) == 2
    assert len(await found(tables)) == 1
    await tables.restore(ROOM, "t", first)
    assert len(await found(tables)) == 2
    versions = await tables.versions(ROOM, "t")
    assert [each.version for each in versions] == sorted(each.version for each in versions)
    for doing in (tables.restore(ROOM, "t", 99), tables.search(ROOM, "t", Search(version=99))):
        with pytest.raises(NotFoundError, match="table 't' has no version 99"):
            await doing


async def test_writes_of_one_table_at_once_are_all_done(tables: TableStore) -> None:
    await filled(tables, 1)
    await asyncio.gather(*(tables.insert(ROOM, "t", b'[{"n": 1}]') for _ in range(20)))
    assert len(await found(tables)) == 21


async def test_a_table_is_taken_apart_and_put_together(tables: TableStore) -> None:
    await filled(tables, 120)
    parts = [part async for part in tables.parts(ROOM, "t")]
    assert len(parts) > 1
    other = RoomKey(TENANT, "other")
    for number, part in enumerate(parts):
        await tables.restore_part(other, TablePart("copy", part.data), is_first=number == 0)
    copied = await tables.search(other, "copy", Search())
    assert json.loads(copied.text) == await found(tables)
    await tables.drop(ROOM, "t")
    await tables.create(ROOM, "t", rows=None, schema={"a": INT}, mode="create")
    [empty] = [part async for part in tables.parts(ROOM, "t")]
    await tables.restore_part(other, TablePart("empty", empty.data), is_first=True)
    assert await tables.list(other) == ["copy", "empty"]
    with pytest.raises(InvalidRequestError, match="not rows of a table"):
        await tables.restore_part(other, TablePart("x", b"\xff\xff"), is_first=True)
    with pytest.raises(InvalidRequestError, match="table: expected 1-128"):
        await tables.restore_part(other, TablePart("../x", empty.data), is_first=True)


async def test_a_tenant_is_counted_and_its_rooms_deleted(tables: TableStore) -> None:
    await filled(tables)
    other = RoomKey(TENANT, "room-2")
    await tables.create(other, "t", rows=b'[{"a": 1}]', schema=None, mode="create")
    assert (await tables.of_tenant(TENANT)).tables == 2
    assert (await tables.of_tenant(TENANT)).stored_bytes > 1000
    assert await tables.rooms(TENANT) == ["room", "room-2"]
    await tables.delete_all(TENANT, "room")
    assert await tables.rooms(TENANT) == ["room-2"]
    assert await tables.list(ROOM) == []
    await tables.create(ROOM, "t", rows=b'[{"b": 1}]', schema=None, mode="create")
    assert await found(tables) == [{"b": 1}]
    await tables.delete_all(TENANT)
    assert await tables.of_tenant(TENANT) == TenantTables(0, 0)


@pytest.mark.parametrize(("kind", "error"), [("full", OSError), ("failed", RoomError), ("limit", LimitExceededError)])
def test_other_errors_of_a_process_have_their_classes(kind: str, error: type[Exception]) -> None:
    assert isinstance(_error_of(RefusedError(kind, "text")), error)


async def test_errors_of_the_library_say_nothing_of_where_they_are_from() -> None:
    from meshhost.tables.worker.operations import refusal_of

    text = "lance error: LanceError(IO): bad thing, /root/.cargo/registry/src/lance/src/io.rs:12:34"
    assert refusal_of(ValueError(text), {}).text == "LanceError(IO): bad thing"
    assert refusal_of(OSError("No space left on device"), {}).kind == "full"
    assert refusal_of(OSError("disk on fire"), {}).kind == "failed"
    assert refusal_of(ValueError("Table 't' was not found"), {"table": "t"}).kind == "not_found"
    assert refusal_of(RuntimeError("cast"), {"where": "x"}).field == "where"
