"""The database server that the contract suites run on."""

from collections.abc import Iterator

import psycopg
import pytest
from doubles.postgres import running_postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL, started at first use. It does not wait for the disk: no test here cuts the power."""
    with running_postgres() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield url
