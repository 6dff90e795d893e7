"""Runs a contract suite over every engine: one store of each, opened for a test and closed after it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import pytest

from doubles.postgres import PostgresServer, empty_database
from meshhost.stores.engine import Openable
from meshhost.stores.postgres.database import PostgresDatabase

__all__ = ["EVERY_ENGINE", "EVERY_STORE", "opened_store"]

S = TypeVar("S", bound=Openable)

EVERY_ENGINE = ["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
"""The parameters of a fixture that gives an engine; `make check` leaves out what starts a database."""

EVERY_STORE = [*EVERY_ENGINE, pytest.param("pgbouncer", marks=pytest.mark.slow)]
"""The parameters of a fixture that gives a store: also PostgreSQL behind pgbouncer in transaction mode."""


@asynccontextmanager
async def opened_store(
    request: pytest.FixtureRequest,
    *,
    memory: Callable[[], S],
    sqlite: Callable[[], S],
    postgresql: Callable[[PostgresDatabase], S],
) -> AsyncIterator[S]:
    """The store of the engine that `request.param` names, open. A database that it needs is empty."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            store = memory()
        elif request.param == "sqlite":
            store = sqlite()
        else:
            server: PostgresServer = request.getfixturevalue("postgres_server")
            url = request.getfixturevalue("pgbouncer") if request.param == "pgbouncer" else None
            store = postgresql(await stack.enter_async_context(empty_database(server, url)))
        await store.open()
        stack.push_async_callback(store.close)
        yield store
