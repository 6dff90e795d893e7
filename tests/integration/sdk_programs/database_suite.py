"""What programs do with `room.database`: run by MeshAgent's SDK in its own Python, and by our client, with the same results.

`types` has the data types by name. Rows are sorted by the program where the server promises no order.
"""

from collections.abc import Callable
from typing import Any


def by(column: str) -> Callable[[Any], Any]:
    return lambda row: row[column]


async def refused(doing: Any) -> str:
    """The text of the error that an awaitable ends with."""
    try:
        result = await doing
    except Exception as error:  # noqa: BLE001 - it is what the suite asks for
        return str(error)
    return f"no error but {result!r}"


async def run(database: Any, types: Any) -> dict[str, Any]:
    """Use every method; return what they gave."""
    found: dict[str, Any] = {"none": await database.list_tables()}
    vector = types.VectorDataType(size=3, element_type=types.FloatDataType())
    schema = {
        "id": types.TextDataType(),
        "n": types.IntDataType(),
        "x": types.FloatDataType(),
        "raw": types.BinaryDataType(),
        "day": types.DateDataType(),
        "at": types.TimestampDataType(),
        "near": vector,
    }
    await database.create_table_with_schema(name="things", schema=schema)
    found["again"] = await refused(database.create_table_with_schema(name="things", schema=schema))
    await database.create_table_with_schema(name="things", schema=schema, mode="create_if_not_exists", data=None)
    rows = [
        {
            "id": f"thing {number}",
            "n": number,
            "x": number / 2,
            "raw": bytes([number, 0, 255]),
            "day": f"2026-01-{number + 1:02}",
            "at": f"2026-01-01T00:00:{number:02}Z",
            "near": [number, 0.0, 1.0],
        }
        for number in range(20)
    ]
    await database.insert(table="things", records=rows)
    await database.insert(table="things", records=[{"id": 'it\'s "quoted"', "n": 100}])
    found["tables"] = await database.list_tables()
    found["one"] = await database.search(table="things", where={"id": "thing 3"})
    found["quoted"] = await database.search(table="things", where={"id": 'it\'s "quoted"', "n": 100}, select=["n"])
    found["where"] = sorted(
        await database.search(table="things", where="n >= 17 AND n < 100", select=["id"]), key=by("id")
    )
    found["time"] = await database.search(table="things", where="at >= timestamp '2026-01-01 00:00:19'", select=["n"])
    found["page"] = len(await database.search(table="things", where="n < 20", limit=8, offset=15, select=["n"]))
    nearest = await database.search(table="things", vector=[4.2, 0, 1], limit=2, select=["id"])
    found["nearest"] = [row["id"] for row in nearest]
    found["no text"] = await refused(database.search(table="things", text="seven"))

    await database.create_scalar_index(table="things", column="n")
    await database.create_full_text_search_index(table="things", column="id")
    found["few vectors"] = await refused(database.create_vector_index(table="things", column="near"))
    found["index again"] = await refused(database.create_scalar_index(table="things", column="n", replace=False))
    indexes = await database.list_indexes(table="things")
    found["indexes"] = [[index.name, list(index.columns), index.type] for index in indexes]
    found["text"] = [row["id"] for row in await database.search(table="things", text="quoted", select=["id"])]
    both = await database.search(table="things", text="quoted", vector=[7, 0, 1], limit=2, select=["id"])
    found["both"] = sorted(row["id"] for row in both)

    await database.update(table="things", where="n = 1", values={"id": "one", "near": [9.0, 9.0, 9.0], "x": None})
    await database.update(table="things", where="n = 2", values_sql={"x": "x * 100"})
    found["updated"] = sorted(
        await database.search(table="things", where="n in (1, 2)", select=["id", "x", "near"]), key=by("id")
    )
    before = max(version.version for version in await database.list_versions(table="things"))
    await database.merge(table="things", on="id", records=[{"id": "one", "n": 11}, {"id": "new", "n": 12}])
    merged = await database.search(table="things", where="id in ('one', 'new')", select=["id", "n", "near"])
    found["merged"] = sorted(merged, key=by("id"))
    await database.delete(table="things", where="n > 5 AND n < 100")
    found["left"] = sorted(row["n"] for row in await database.search(table="things", select=["n"]))

    await database.checkout(table="things", version=before)
    found["then"] = len(await database.search(table="things", select=["n"]))
    found["write then"] = await refused(database.delete(table="things", where="true"))
    await database.restore(table="things", version=before)
    found["restored"] = len(await database.search(table="things", select=["n"]))
    versions = await database.list_versions(table="things")
    found["versions"] = [version.version for version in versions] == list(range(1, len(versions) + 1))
    found["timestamp"] = versions[0].timestamp.tzinfo is not None

    await database.add_columns(table="things", new_columns={"twice": "n * 2", "other": types.TextDataType()})
    await database.drop_columns(table="things", columns=["x", "raw", "day", "at", "near"])
    found["columns"] = await database.search(table="things", where="n = 3")
    await database.optimize(table="things")
    await database.drop_index(table="things", name="n_idx")
    found["dropped index"] = [index.name for index in await database.list_indexes(table="things")]

    data = [
        {"name": "a", "size": 1, "tags": ["x", "y"], "ok": True},
        {"name": "b", "size": 2.5, "tags": None, "ok": None},
    ]
    await database.create_table_from_data(name="from_data", data=data)
    found["from data"] = sorted(await database.search(table="from_data"), key=by("name"))
    await database.create_table_from_data(name="from_data", data=[{"other": 1}], mode="overwrite")
    found["overwritten"] = await database.search(table="from_data")
    found["wrong"] = [
        await refused(database.insert(table="things", records=[{"n": "text"}])),
        await refused(database.insert(table="things", records=[{"nothing": 1}])),
        await refused(database.search(table="things", where="nothing = 1")),
        await refused(database.search(table="missing")),
        await refused(database.create_table_from_data(name="../x", data=data)),
        await refused(database.drop_table(name="missing")),
    ]
    await database.drop_table(name="missing", ignore_missing=True)
    await database.drop_table(name="from_data")
    found["end"] = await database.list_tables()
    for name in ("one", "updated", "merged", "columns"):
        found[name] = [
            {key: value.hex() if isinstance(value, bytes) else value for key, value in row.items()}
            for row in found[name]
        ]
    return found
