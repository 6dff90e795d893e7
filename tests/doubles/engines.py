"""Runs a contract suite over every engine: one store of each, opened for a test and closed after it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import pytest

from doubles.postgres import PostgresServer, empty_database
from meshhost.stores.engine import Openable
from meshhost.stores.postgres.database import PostgresDatabase

__all__ = ["EVERY_ENGINE", "opened_store"]

S = TypeVar("S", bound=Openable)

EVERY_ENGINE = ["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
"""The parameters of a fixture that gives a store; `make check` leaves out what starts a database."""


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
            store = postgresql(await stack.enter_async_context(empty_database(server)))
        await store.open()
        stack.push_async_callback(store.close)
        yield store
