"""The PostgreSQL database of an engine: a pool of connections, migrations, errors in our words, and what its stores share.

Every store of this package is built on one `PostgresDatabase`, which the engine opens before them and closes after them.
Most operations of the stores are one statement, which is one round trip and one transaction; `transaction` is for those that
need more. A connection is borrowed for one operation only, so a pooler in transaction mode (pgbouncer) works in between. It
is recognised when the database is opened: then statements are not prepared and nobody may LISTEN, since both would need a
session of their own.

What psycopg raises becomes OSError, with the server's words and never the URL, which may hold a password. An operation that
was rolled back because it collided with another is tried again. After an error of the connection the idle connections of the
pool are looked at, so that a restart of PostgreSQL fails what was under way and not one operation for every connection. When
a session turns out to be read-only, all are replaced.

Invariant: a cancelled or failed operation leaves its connection without a transaction, or closed.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, LiteralString, TypeAlias, TypeVar

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from meshhost.errors import InvalidRequestError, RoomError, SettingsError
from meshhost.stores.shared.fair import TenantWeights
from meshhost.stores.shared.fair_gate import FairGate
from meshhost.tasks import TaskOwner

__all__ = [
    "OPEN_SECONDS",
    "Connection",
    "Lifetime",
    "PostgresDatabase",
    "Row",
    "Values",
    "check_server",
    "is_session",
    "migrate_store",
    "newest_versions",
    "translated",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]
Connection: TypeAlias = AsyncConnection[Row]
Values: TypeAlias = Mapping[str, object]

OPEN_SECONDS = 15.0
_KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
# For a free connection; after that the store has failed, so that every wait ends.
_BORROW_SECONDS = 10.0
# An operation that takes longer has failed: a connection may be dead without anybody having been told.
_OPERATION_SECONDS = 30.0
# Connections that can only read are replaced at most so often.
_RENEW_SECONDS = 1.0
# How often an operation is tried that collided with another one.
_TRIES = 5
_MIGRATIONS = resources.files("meshhost.stores.postgres") / "migrations"
# "meshhost" as a number: the advisory lock under which one process migrates.
_MIGRATION_LOCK = 0x6D657368686F7374

_VERSIONS: LiteralString = """
CREATE SCHEMA IF NOT EXISTS meshhost;
CREATE TABLE IF NOT EXISTS meshhost.versions (store text PRIMARY KEY, version integer NOT NULL);
"""


class PostgresDatabase:
    """The database at `url` (`postgresql://…`), used by at most `connections` operations at a time, tenants by turns.

    Raises SettingsError for a URL that psycopg cannot read; the text does not show it.
    """

    def __init__(self, url: str, *, connections: int = 10, weights: TenantWeights | None = None) -> None:
        try:
            self._target = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise SettingsError("MESHHOST_DATABASE_URL: expected postgresql://user:password@host/database") from None
        # A server that lost its power or its network says nothing: without these a statement would wait for it for hours.
        self._url = make_conninfo(
            url, **{name: value for name, value in _KEEPALIVE.items() if name not in self._target}
        )
        self._connections = connections
        self.weights = weights or TenantWeights()
        self._gate = FairGate(connections, weights=self.weights)
        self._pool: AsyncConnectionPool[Connection] | None = None
        self._tasks = TaskOwner("database")
        self._is_checking = False
        self.has_sessions = True

    def __repr__(self) -> str:
        return f"<PostgresDatabase {self.name} open={self._pool is not None}>"

    @property
    def name(self) -> str:
        """Where it is, for people: host and database, without user and password."""
        return f"{self._target.get('host', 'localhost')}/{self._target.get('dbname', '')}"

    async def open(self) -> None:
        """Connect. Raises SettingsError when the database is not one for us, OSError when it does not answer."""
        if self._pool is not None:
            return
        async with self.session() as connection:
            self.has_sessions = await is_session(connection)
            await check_server(connection)
        if not self.has_sessions:
            logger.info("PostgreSQL is behind a pooler: hints between servers wait for their next look")
        pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            self._url,
            min_size=min(2, self._connections),
            max_size=self._connections,
            timeout=_BORROW_SECONDS,
            open=False,
            name="meshhost",
            kwargs={"autocommit": True, "prepare_threshold": 5 if self.has_sessions else None},
        )
        try:
            with translated():
                await pool.open(wait=True, timeout=OPEN_SECONDS)
        except BaseException:
            await pool.close()
            raise
        self._pool = pool

    async def close(self) -> None:
        """Close all connections; operations under way get OSError. Idempotent; it may be opened again."""
        await self._tasks.stop()
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """A connection of its own, outside of the pool, for what needs a session (LISTEN)."""
        with translated():
            connection: Connection = await AsyncConnection.connect(
                self._url, autocommit=True, connect_timeout=int(OPEN_SECONDS), prepare_threshold=None
            )
        async with connection:
            yield connection

    async def rows(self, statement: LiteralString, values: Values = {}) -> list[Row]:  # noqa: B006 - never changed
        """Run one statement, which is a transaction of its own, and return its rows. Raises OSError, RoomError."""

        async def operation(connection: Connection) -> list[Row]:
            cursor = await connection.execute(statement, values)
            return await cursor.fetchall() if cursor.description is not None else []

        return await self._run(operation, _tenant_of(values))

    async def row(self, statement: LiteralString, values: Values = {}) -> Row | None:  # noqa: B006 - never changed
        """Run one statement and return its first row, or None."""
        rows = await self.rows(statement, values)
        return rows[0] if rows else None

    async def count(self, statement: LiteralString, values: Values = {}) -> int:  # noqa: B006 - never changed
        """Run one statement and return how many rows it changed."""

        async def operation(connection: Connection) -> int:
            return (await connection.execute(statement, values)).rowcount

        return await self._run(operation, _tenant_of(values))

    async def transaction(self, operation: Callable[[Connection], Awaitable[T]], *, tenant: str = "") -> T:
        """Run several statements as one transaction, for a tenant if there is one.

        `operation` may run more than once, each time from the beginning.
        """

        async def whole(connection: Connection) -> T:
            async with connection.transaction():
                return await operation(connection)

        return await self._run(whole, tenant)

    async def snapshot(self, operation: Callable[[Connection], Awaitable[T]]) -> T:
        """Run what only reads, and may take long, on a connection of its own; it sees one moment. Raises OSError."""
        async with self.session() as connection:
            with translated():
                async with connection.transaction():
                    await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                    return await operation(connection)

    async def migrate(self, store: str) -> None:
        """Bring the tables of a store to the version of this release; several processes may do so at once.

        Raises SettingsError when they are of a newer release.
        """

        async def operation(connection: Connection) -> None:
            await migrate_store(connection, store, place=self.name)

        await self.transaction(operation)

    async def _run(self, operation: Callable[[Connection], Awaitable[T]], tenant: str) -> T:
        pool = self._pool
        if pool is None:
            raise RoomError("the database is not open")
        with translated():
            for left in reversed(range(_TRIES)):
                try:
                    async with (
                        self._gate.place(tenant, seconds=_BORROW_SECONDS),
                        pool.connection() as connection,
                        asyncio.timeout(_OPERATION_SECONDS),
                    ):
                        return await operation(connection)
                except (errors.DeadlockDetected, errors.SerializationFailure):
                    if not left:
                        raise
                except psycopg.OperationalError:
                    self._check_soon(pool)
                    raise
                except errors.ReadOnlySqlTransaction:
                    # A session stays read-only when its server became a replica, or was made read-only for new sessions
                    # meanwhile: whether a new one can write is only seen with a new one.
                    self._check_soon(pool, renew=True)
                    raise
        raise AssertionError("the last try returns or raises")

    def _check_soon(self, pool: "AsyncConnectionPool[Connection]", *, renew: bool = False) -> None:
        """Let the pool look at its idle connections: when the server went away, they are all dead. `renew`: replace all."""
        if not self._is_checking:
            self._is_checking = True
            self._tasks.spawn(self._check(pool, renew=renew), name="check connections")

    async def _check(self, pool: "AsyncConnectionPool[Connection]", *, renew: bool) -> None:
        try:
            with contextlib.suppress(psycopg.Error, PoolClosed, PoolTimeout, TimeoutError):
                async with asyncio.timeout(OPEN_SECONDS):
                    await (pool.drain() if renew else pool.check())
            if renew:
                await asyncio.sleep(_RENEW_SECONDS)
        finally:
            self._is_checking = False


class Lifetime:
    """A store in `database`, with the tables of `migrations/<migrations>`; `what` is its name in errors.

    The engine opens the database first. Opening a store migrates its tables; closing it refuses what comes later. Operations
    that are under way when a store is closed end by themselves, or with the database.
    """

    def __init__(self, database: PostgresDatabase, *, migrations: str, what: str) -> None:
        self._database = database
        self._migrations = migrations
        self._what = what
        self._is_open = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._database.name} open={self._is_open}>"

    @property
    def database(self) -> PostgresDatabase:
        """The database, while the store is open. Raises RoomError when it is not."""
        self.check_open()
        return self._database

    def check_open(self) -> None:
        """Raise RoomError when the store is not open."""
        if not self._is_open:
            raise RoomError(f"the {self._what} is not open")

    async def open(self) -> None:
        """Bring the tables to the version of this release. Raises SettingsError when they are newer, OSError."""
        await self._database.migrate(self._migrations)
        self._is_open = True

    async def close(self) -> None:
        """Refuse operations from now on. Idempotent; the store may be opened again."""
        self._is_open = False


def newest_versions() -> dict[str, int]:
    """The version of each store's tables in this release."""
    stores = sorted(
        folder.name for folder in _MIGRATIONS.iterdir() if folder.is_dir() and not folder.name.startswith("_")
    )
    return {store: len(_files(store)) for store in stores}


def _files(store: str) -> list[tuple[str, Traversable]]:
    """The migrations of a store, in order."""
    return sorted((file.name, file) for file in (_MIGRATIONS / store).iterdir() if file.name.endswith(".sql"))


def _tenant_of(values: Values) -> str:
    """Whom a statement is for: those about one tenant name it. Batches are for several, and belong to the server."""
    tenant = values.get("tenant")
    return tenant if isinstance(tenant, str) else ""


async def migrate_store(connection: Connection, store: str, *, place: str) -> None:
    """Bring the tables of a store to the version of this release, within a transaction. Raises SettingsError."""
    files = _files(store)
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
    await connection.execute(_VERSIONS)
    found = await connection.execute("SELECT version FROM meshhost.versions WHERE store = %s", (store,))
    row = await found.fetchone()
    version = 0 if row is None else row[0]
    if version > len(files):
        raise SettingsError(
            f"the {store} of {place} are of version {version}, newer than {len(files)}: install a newer meshhost"
        )
    if version == len(files):
        return
    for _, file in files[version:]:
        await connection.execute(file.read_text(encoding="utf-8"))
    await connection.execute(
        "INSERT INTO meshhost.versions VALUES (%(store)s, %(version)s) "
        "ON CONFLICT (store) DO UPDATE SET version = excluded.version",
        {"store": store, "version": len(files)},
    )


@contextmanager
def translated() -> Iterator[None]:
    """What psycopg raises as OSError; the text is the server's first line, which names no password."""
    try:
        yield
    except errors.DiskFull as error:
        raise OSError(28, f"PostgreSQL has no space left: {_first_line(error)}") from error
    except PoolTimeout as error:
        raise OSError("PostgreSQL gave no connection in time") from error
    except TimeoutError as error:
        raise OSError("PostgreSQL did not answer in time") from error
    except PoolClosed as error:
        raise OSError("the connection to PostgreSQL was closed") from error
    except psycopg.DataError as error:
        # The one value that our tables cannot hold; psycopg notices it before it sends anything.
        if "NUL" in str(error):
            raise InvalidRequestError("text", "expected text without the character NUL") from None
        raise OSError(f"PostgreSQL: {_first_line(error)}") from error
    except psycopg.Error as error:
        raise OSError(f"PostgreSQL: {_first_line(error)}") from error


def _first_line(error: psycopg.Error) -> str:
    text = error.diag.message_primary or str(error)
    return text.strip().partition("\n")[0][:500] or type(error).__name__


async def is_session(connection: Connection) -> bool:
    """Whether this connection is a session of the server. A pooler answers with a process id that it made up."""
    with translated():
        (pid,) = await (await connection.execute("SELECT pg_backend_pid()")).fetchone() or (0,)
    return bool(pid == connection.info.backend_pid)


async def check_server(connection: Connection, *, is_copying: bool = False) -> None:
    """Raise SettingsError when the database is not one for us. `is_copying`: it may hold a copy that did not finish."""
    with translated():
        found = await connection.execute(
            "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), "
            "to_regclass('meshhost.unfinished_copy') IS NOT NULL"
        )
        version, encoding, is_unfinished = await found.fetchone() or (0, "", False)
    if version < 140000:
        raise SettingsError(f"MESHHOST_DATABASE_URL: expected PostgreSQL 14 or newer, not {version // 10000}")
    if encoding != "UTF8":
        raise SettingsError(f"MESHHOST_DATABASE_URL: expected a database with the encoding UTF8, not {encoding}")
    if is_unfinished and not is_copying:
        raise SettingsError(
            "MESHHOST_DATABASE_URL: a copy into this database did not finish: run `meshhost db copy` again"
        )
