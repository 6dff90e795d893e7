"""Looks after a PostgreSQL database from outside of a room server: checks and migrates it, names the command that dumps it.

PostgreSQL has good backups of its own (`pg_dump`, those of providers), so nothing here copies data. A look is one read-only
transaction on a connection of its own, and whether a server holds the database is read from `pg_locks`, without taking a lock.
"""

import re
import shlex
import shutil
import subprocess
from typing import Literal, LiteralString

from psycopg.conninfo import conninfo_to_dict

from meshhost.errors import SettingsError
from meshhost.stores.postgres.database import Connection, PostgresDatabase, newest_versions
from meshhost.stores.postgres.exclusive import LOCK, ExclusiveUse
from meshhost.stores.upkeep import DatabaseReport, Migration, StoreReport

__all__ = ["PostgresUpkeep", "tool_version"]

# Of one moment, since the transaction is repeatable read.
_INVARIANTS: dict[str, LiteralString] = {
    "messages without their content": """
        SELECT count(*) FROM (SELECT id FROM meshhost.messages UNION ALL SELECT id FROM meshhost.dead_letters) AS live
        WHERE NOT EXISTS (SELECT FROM meshhost.contents WHERE message_id = live.id)
    """,
    "contents without a message": """
        SELECT count(*) FROM meshhost.contents
        WHERE NOT EXISTS (SELECT FROM meshhost.messages WHERE id = message_id)
          AND NOT EXISTS (SELECT FROM meshhost.dead_letters WHERE id = message_id)
    """,
    "messages that are both dead and alive": """
        SELECT count(*) FROM meshhost.messages JOIN meshhost.dead_letters USING (id)
    """,
}
_HELD: LiteralString = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND classid::bigint = %(key)s >> 32 AND objid::bigint = %(key)s & 4294967295
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_SIZES: LiteralString = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'meshhost' AND c.relkind = 'r'
"""


class PostgresUpkeep:
    """Looks after the database at `url`. `wait_seconds` is how long `migrate` waits for a server to leave.

    Raises SettingsError for a URL that cannot be read.
    """

    name: Literal["postgresql"] = "postgresql"

    def __init__(self, url: str, *, wait_seconds: float = 5.0) -> None:
        self._database = PostgresDatabase(url, connections=2)
        self._target = conninfo_to_dict(url)
        self._wait_seconds = wait_seconds

    async def look(self) -> DatabaseReport:
        """See `Upkeep`. Raises SettingsError, OSError."""
        database = self._database
        await database.open()  # checks version and encoding
        try:
            # Not from the pool: to count takes longer than an operation of a server may.
            return await database.snapshot(self._report)
        finally:
            await database.close()

    async def migrate(self) -> list[Migration]:
        """See `Upkeep`. Behind a pooler nothing shows whether a server runs: stop it first."""
        database, newest = self._database, newest_versions()
        await database.open()
        try:
            if await self._versions() == newest:
                return []
            use = ExclusiveUse(database, wait_seconds=self._wait_seconds)
            await use.open()
            try:
                before = await self._versions()
                for store in newest:
                    await database.migrate(store)
            finally:
                await use.close()
        finally:
            await database.close()
        changes = [Migration(store, before.get(store, 0), version) for store, version in newest.items()]
        return [change for change in changes if change.before != change.after]

    async def server_version(self) -> int:
        """The major version of the server. Raises OSError, SettingsError."""
        async with self._database.session() as connection:
            return connection.info.server_version // 10000

    def dump_command(self, file: str) -> str:
        """The command that writes a consistent backup of our tables while the server runs. It has no password in it."""
        return shlex.join(["pg_dump", "--format=custom", "--schema=meshhost", f"--file={file}", *self._options()])

    def restore_command(self, file: str) -> str:
        """The command that restores such a backup into an empty database, all or nothing."""
        options = ["--single-transaction", "--exit-on-error", "--no-owner"]
        return shlex.join(["pg_restore", *options, *self._options(), file])

    def list_command(self, file: str) -> str:
        """The command that shows whether such a backup can be read."""
        return shlex.join(["pg_restore", "--list", file])

    def _options(self) -> list[str]:
        names = {"host": "host", "port": "port", "user": "username", "dbname": "dbname"}
        given = {option: self._target.get(name) for name, option in names.items()}
        return [f"--{option}={value}" for option, value in given.items() if value]

    async def _has_versions(self) -> bool:
        row = await self._database.row("SELECT to_regclass('meshhost.versions') IS NOT NULL")
        return row is not None and bool(row[0])

    async def _versions(self) -> dict[str, int]:
        if not await self._has_versions():
            return {}
        found = {
            str(store): int(version) for store, version in await self._database.rows("SELECT * FROM meshhost.versions")
        }
        return {store: found[store] for store in newest_versions() if store in found}

    async def _report(self, connection: Connection) -> DatabaseReport:
        newest = newest_versions()
        versions: dict[str, int] = {}
        exists = await (await connection.execute("SELECT to_regclass('meshhost.versions') IS NOT NULL")).fetchone()
        if exists == (True,):
            rows = await (await connection.execute("SELECT store, version FROM meshhost.versions")).fetchall()
            versions = dict(rows)
        problem = None
        if versions.get("queues") == newest["queues"]:
            for what, statement in _INVARIANTS.items():
                count = await _number(connection, statement)
                if count:
                    problem = f"the database has {count} {what}"
                    break
        # The tables of all stores share the schema: their size is that of the queues' row, as nearly all of it is.
        size = await _number(connection, _SIZES)
        held = None
        if self._database.has_sessions:
            held = bool(await _number(connection, _HELD, {"key": LOCK}))
        stores = [
            StoreReport(
                store,
                versions.get(store),
                newest[store],
                size if store == "queues" else 0,
                problem if store == "queues" else None,
            )
            for store in newest
        ]
        server = f"PostgreSQL {connection.info.server_version // 10000}.{connection.info.server_version % 10000}"
        return DatabaseReport("postgresql", self._database.name, held, stores, server)


def tool_version(name: str) -> int | None:
    """The major version of an installed program of PostgreSQL, such as `pg_dump`; None when there is none."""
    path = shutil.which(name)
    if path is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - found on the PATH, with a fixed argument
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(found[1]) if found else None


async def _number(connection: Connection, statement: LiteralString, values: dict[str, object] | None = None) -> int:
    row = await (await connection.execute(statement, values)).fetchone()
    if row is None:
        raise SettingsError("PostgreSQL returned no row")
    return int(row[0])
