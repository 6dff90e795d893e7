"""What a write counts for its tenant whose outcome is unknown."""

from types import SimpleNamespace
from typing import Any

import pytest

from meshhost.errors import InvalidRequestError, RequestTimeoutError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.quotas.counts import LocalCounts
from meshhost.quotas.quota import Resource, ServerQuota
from meshhost.server.services.tables.bodies import Create, RowsBody
from meshhost.server.services.tables.service import TablesService

ACME = TenantId("acme")


class Tables:
    """Fails each write."""

    def __init__(self, error: RoomError) -> None:
        self._error = error

    async def create(self, *_: Any, **__: Any) -> bool:
        raise self._error

    async def insert(self, *_: Any, **__: Any) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "tables", "stored"),
    [(RequestTimeoutError("it may have been done"), 1, 2_000), (InvalidRequestError("data", "no"), 0, 0)],
)
async def test_a_write_counts_until_it_is_known_that_it_was_not_done(
    error: RoomError, tables: int, stored: int
) -> None:
    room = SimpleNamespace(key=RoomKey(ACME, "lobby"))
    async with LocalCounts(lambda _: ServerQuota()) as counts:
        operations: Any = TablesService(Tables(error), counts=counts).operations()  # type: ignore[arg-type]
        body = Create.model_validate({"name": "t", "data": []})
        request: Any = SimpleNamespace(
            room=room, participant=SimpleNamespace(slots={}), message=SimpleNamespace(payload=None)
        )
        rows = RowsBody.model_validate({"table": "t", "records": [{"x": "y" * 2_000}]})
        for call in (
            operations["database.create_table"].run(request, body),
            operations["database.insert"].run(request, rows),
        ):
            with pytest.raises(type(error)):
                await call
        use = await counts.use(ACME)
        assert use.get(Resource.TABLES, 0) == tables
        assert use.get(Resource.STORED_BYTES, 0) >= stored
        assert (use.get(Resource.STORED_BYTES, 0) > 0) is (stored > 0)
