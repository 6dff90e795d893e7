"""Deletes the messages of drained and deleted queues a few at a time, behind the callers' backs.

To delete half a million rows in one transaction took the store's only thread for forty seconds, in which nobody else sent or
settled. So `drain` and `delete` only make the rows invisible, in one short transaction: no queue has the id that they carry any
more, and `removals` keeps that id. The task here then deletes them in operations of a few milliseconds, with a pause between
them for the others. The ids are on disk, so a start after `kill -9` goes on with them; nothing looks at these rows meanwhile.

The task runs while there is something to remove, between `start` and `stop`, and may be cancelled at any await.
"""

import asyncio
import logging
import sqlite3
import time

from meshhost.stores.sqlite.database import SqliteDatabase, Statements
from meshhost.tasks import TaskOwner

__all__ = ["BATCH", "DEAD", "MESSAGES", "OUTCOMES", "Removals", "hide_some_queues", "mark"]

logger = logging.getLogger(__name__)

# Rows that one operation deletes at most, and for how long it may: large bodies take longer than small ones.
BATCH = 250
_SECONDS = 0.005

_execute = Statements("queues/removals.sql").execute

# What is removed, as the table `removals` says it, and the tables' names in the statements.
MESSAGES, DEAD, OUTCOMES = range(3)
_NAMES = ("message", "dead", "outcome")


class Removals:
    """The task that deletes what `mark` named. `start` and `stop` follow those of the store.

    Between two operations the store's thread is for others for `pause_seconds`, as long as for one. One that fails is tried
    again after `retry_seconds`.
    """

    def __init__(self, database: SqliteDatabase, *, pause_seconds: float = 0.01, retry_seconds: float = 5.0) -> None:
        self.pause_seconds = pause_seconds
        self.retry_seconds = retry_seconds
        self._database = database
        self._tasks = TaskOwner("queue removals")
        self._running: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Go on with what is marked, if the task does not run; return the task."""
        if self._running is None or self._running.done():
            self._running = self._tasks.spawn(self._remove(), name="batches")
        return self._running

    async def stop(self) -> None:
        """End the task; what is left is removed after the next `start`."""
        await self._tasks.stop()

    async def finished(self) -> None:
        """Return when nothing that was marked before is left."""
        await asyncio.wait({self.start()})

    async def _remove(self) -> None:
        while True:
            try:
                if not await self._database.run(_remove_some):
                    return
                pause = self.pause_seconds
            except OSError as error:
                logger.warning("deleted messages still take space", extra={"reason": str(error)})
                pause = self.retry_seconds
            await asyncio.sleep(pause)


def mark(db: sqlite3.Connection, queue: int, what: int = MESSAGES) -> None:
    """Have the messages with this queue's id, its dead letters or outcomes removed. No queue may have that id any more."""
    _execute(db, "add_removal", queue=queue, what=what)


def hide_some_queues(db: sqlite3.Connection, tenant: str, room: str | None) -> bool:
    """Delete at most BATCH queues of a tenant or room, and mark what they held; return False when there were none."""
    found = _execute(db, "some_queues", tenant=tenant, room=room, limit=BATCH).fetchall()
    for queue, first in found:
        _execute(db, "hide_queue", queue=queue)
        mark(db, queue)
        mark(db, first, DEAD)
        mark(db, first, OUTCOMES)
    return bool(found)


def _remove_some(db: sqlite3.Connection) -> bool:
    """Delete at most BATCH rows; return False when there was nothing to do."""
    found = _execute(db, "next_removal").fetchone()
    if found is None:
        return False
    queue, what = found
    until = time.monotonic() + _SECONDS
    ids = _execute(db, f"some_{_NAMES[what]}s", queue=queue, limit=BATCH).fetchall()
    for (message_id,) in ids:
        _execute(db, "remove_content", id=message_id)
        _execute(db, f"remove_{_NAMES[what]}", id=message_id)
        if time.monotonic() > until:
            break
    if not ids:
        _execute(db, "end_removal", queue=queue, what=what)
    return True
