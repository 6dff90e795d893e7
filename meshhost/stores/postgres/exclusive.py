"""Keeps a second room server away from a database, until several can share its rooms.

Rooms live in one server: two servers over one database would each have a room of the same name, with half of its participants,
and would both write its documents. So the engine holds an advisory lock of PostgreSQL, which belongs to a session and is gone
with it, also after `kill -9`. A server that starts waits a little for the one it replaces.

The lock is held by one task. When its session is lost, it is taken again; a server that finds it taken by another says so in
its log every few seconds, since both then serve the same rooms. Behind a pooler there is no session to hold a lock: there
nothing is checked, and the log says that too.
"""

import asyncio
import logging
import random

import psycopg

from meshhost.backoff import Backoff
from meshhost.errors import SettingsError
from meshhost.stores.postgres.database import OPEN_SECONDS, Connection, PostgresDatabase
from meshhost.tasks import TaskOwner

__all__ = ["LOCK", "ExclusiveUse"]

logger = logging.getLogger(__name__)

# "meshroom" as a number; advisory locks are apart for each database.
LOCK = 0x6D657368726F6F6D
# The session only waits; so often it is asked whether it is still there.
_LOOK_SECONDS = 5.0
_RETRY = Backoff(first_delay=0.2, max_delay=5.0)
# A server that lost its power ends its session only when PostgreSQL misses it: ask for that within half a minute.
_KEEPALIVE = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"


class ExclusiveUse:
    """The right to serve the rooms of `database`, from `open` to `close`.

    `wait_seconds` is how long `open` waits for another room server to leave.
    """

    def __init__(self, database: PostgresDatabase, *, wait_seconds: float = 10.0) -> None:
        self._database = database
        self._wait_seconds = wait_seconds
        self._tasks = TaskOwner("exclusive use")

    async def open(self) -> None:
        """Take the lock. Raises SettingsError when another room server keeps it, OSError."""
        if not self._database.has_sessions:
            logger.warning("PostgreSQL is behind a pooler: nothing keeps a second room server from this database")
            return
        held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks.spawn(self._hold(held), name="hold")
        try:
            await asyncio.shield(held)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Give the lock back. Idempotent."""
        await self._tasks.stop()

    async def _hold(self, held: "asyncio.Future[None]") -> None:
        attempt = 0
        while True:
            try:
                async with self._database.session() as connection:
                    await connection.execute(_KEEPALIVE)
                    await self._take(connection, held)
                    attempt = 0
                    while True:
                        await asyncio.sleep(_LOOK_SECONDS)
                        async with asyncio.timeout(OPEN_SECONDS):
                            await connection.execute("SELECT 1")
            except Exception as error:
                if not held.done():
                    held.set_exception(error if isinstance(error, SettingsError | OSError) else OSError(str(error)))
                    return
                if not isinstance(error, OSError | psycopg.Error):
                    raise
                attempt += 1
                await asyncio.sleep(_RETRY.delay(attempt, random.random))

    async def _take(self, connection: Connection, held: "asyncio.Future[None]") -> None:
        end = asyncio.get_running_loop().time() + self._wait_seconds
        while True:
            (is_mine,) = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))).fetchone() or (
                False,
            )
            if is_mine:
                break
            if held.done():
                logger.critical(
                    "another room server uses this database: both now serve the same rooms; stop one of them"
                )
                await asyncio.sleep(_LOOK_SECONDS)
            elif asyncio.get_running_loop().time() > end:
                raise SettingsError(
                    "MESHHOST_DATABASE_URL: another room server uses this database; several on one are not supported yet"
                )
            else:
                await asyncio.sleep(0.2)
        if not held.done():
            held.set_result(None)
