"""Queues in a SQLite file: the queue store of a single room server.

Keeps the contract of `meshhost.stores.queues.QueueStore`; read that first. Every method is one operation on the file's thread
(`thread.py`), so it is atomic and group-committed. The file belongs to one process at a time, which makes the promises about
several processes easy: ids come from AUTOINCREMENT, `max_depth` is a counter per queue that is changed in the transaction of
each send and settlement, and two sweeps cannot overlap.

A message is a row in `messages` (small, rewritten by each lease) and one in `contents` (body and headers, written once).
`ready` and `due` tell its state: see the comments in `migrations/queues`.

No operation may hold the thread for long, however much is in a queue. What a drain or deletion leaves is removed in the
background (`removal.py`), what time makes ready is changed in batches, and what only reads has a connection of its own.

Longer than 400 lines because every method of the contract is an operation here, and they share its private parts.
"""

import functools
import json
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meshhost.clock import Clock, SteadyTime, SystemClock
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.poison import is_interruption, poison
from meshhost.stores.queues import (
    LONGEST_DELAY,
    LONGEST_LEASE,
    DeadLetter,
    Delay,
    Delivery,
    EndReason,
    HolderId,
    Lease,
    NewMessage,
    QueueKey,
    QueueLimits,
    QueueStats,
    TenantQueues,
)
from meshhost.stores.refusals import check_message, check_name, queue_full
from meshhost.stores.sqlite.database import SqliteDatabase
from meshhost.stores.sqlite.dead_letters import read_dead_letters, replay_dead_letters
from meshhost.stores.sqlite.queue_rows import (
    bury,
    delivery_of,
    execute,
    find,
    find_ids,
    find_leased,
    find_or_create,
    keys_of,
    look_up,
    names_of,
    remove,
    stats_of,
)
from meshhost.stores.sqlite.removal import Removals, hide_some_queues, mark

__all__ = ["SqliteQueueStore"]

logger = logging.getLogger(__name__)

# Batches of ids that one sweep forgets.
_FORGET_BATCHES = 20

# Messages that one operation makes ready, when time does it to many at once.
_BATCH = 500


class SqliteQueueStore:
    """Keeps the contract of QueueStore in the file `path`, which one process at a time can have open."""

    def __init__(
        self,
        path: Path,
        *,
        limits: QueueLimits = QueueLimits(),  # noqa: B008 - immutable
        clock: Clock | None = None,
    ) -> None:
        self.database = SqliteDatabase(path, migrations="queues", what="queue store")
        self.removals = Removals(self.database)
        self._limits = limits
        self._clock = clock or SystemClock()
        # For leases, delays and ids: `due` and `forget_at`. What people read (`sent_at`, `died_at`) is plain wall clock.
        self._steady = SteadyTime(self._clock)

    def __repr__(self) -> str:
        return f"<SqliteQueueStore {str(self.database.path)!r} open={self.database.is_open}>"

    async def open(self) -> None:
        """See QueueStore."""
        await self.database.open()
        await self.database.run(self._bound_times)
        self.removals.start()

    async def close(self) -> None:
        """See QueueStore."""
        await self.removals.stop()
        await self.database.close()

    async def check(self) -> None:
        """See QueueStore."""
        await self.database.check()

    async def create(self, queue: QueueKey) -> None:
        """See QueueStore."""
        check_name(queue)
        await self.database.run(lambda db: execute(db, "create_queue", **names_of(queue)))

    async def delete(self, queue: QueueKey) -> None:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> None:
            found, first = find_ids(db, queue)
            execute(db, "delete_queue", queue=found)
            mark(db, found)
            mark(db, first, dead=True)

        await self.database.run(operation)
        self.removals.start()

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See QueueStore."""
        while await self.database.run(lambda db: hide_some_queues(db, tenant, room)):
            pass
        await self.removals.finished()

    async def exists(self, queue: QueueKey) -> bool:
        """See QueueStore."""
        return await self.database.run(lambda db: look_up(db, queue) is not None)

    async def send(self, queue: QueueKey, message: NewMessage, *, create: bool = True) -> int:
        """See QueueStore."""
        headers = check_message(message, self._limits)
        body, sender_id = message.body, message.sender_id
        if create:
            check_name(queue)

        def operation(db: sqlite3.Connection) -> int:
            self.database.require_space(db)
            found, depth = find_or_create(db, queue) if create else find(db, queue)
            if sender_id and (first := self._find_sent(db, found, sender_id)) is not None:
                return first
            if depth >= self._limits.max_depth:
                raise queue_full(queue, self._limits)
            message_id = execute(db, "add_message", queue=found, now=self._clock.time()).lastrowid
            execute(db, "add_content", id=message_id, body=body, headers=headers)
            execute(db, "change_depth", queue=found, change=1)
            if sender_id:
                until = self._steady.time() + self._limits.remember_ids_seconds
                execute(db, "remember_sent", queue=found, sender_id=sender_id, id=message_id, until=until)
            return message_id or 0

        return await self.database.run(operation)

    async def find_sent(self, queue: QueueKey, sender_id: str) -> int | None:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> int | None:
            row = look_up(db, queue)
            return None if row is None else self._find_sent(db, row[0], sender_id)

        try:
            return await self.database.run(operation)
        except UnicodeEncodeError:  # no message can have been sent under it
            return None

    async def lease(self, queue: QueueKey, holder: HolderId, *, seconds: float, limit: int = 1) -> Sequence[Delivery]:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> list[Delivery] | None:
            found, _ = find(db, queue)
            now = self._steady.time()
            if execute(db, "promote", queue=found, now=now, limit=_BATCH).rowcount == _BATCH:
                return None  # there may be more, and an older one among them
            rows: list[tuple[Any, ...]] = []
            while True:
                left = limit - len(rows)
                claimed = execute(db, "claim", queue=found, holder=holder, until=now + seconds, limit=left).fetchall()
                healthy = [row[:-1] for row in claimed if not self._is_poison(row[-1])]
                for message_id, *_, interruptions in claimed:
                    if self._is_poison(interruptions):
                        bury(db, found, message_id, poison(queue, interruptions), self._clock.time())
                rows += healthy
                if len(healthy) == len(claimed):
                    break
            return [delivery_of(db, queue, holder, now + seconds, row) for row in sorted(rows)]

        while (deliveries := await self.database.run(operation)) is None:
            pass
        return deliveries

    async def ack(self, lease: Lease) -> None:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> None:
            found, *_ = find_leased(db, lease)
            execute(db, "delete_content", id=lease.message_id)
            remove(db, found, lease.message_id)

        await self.database.run(operation)

    async def nack(self, lease: Lease, *, reason: EndReason, error: str = "", delay: Delay = 0.0) -> bool:
        """See QueueStore."""
        text = error.encode(errors="backslashreplace").decode()  # an exception's text may hold lone surrogates

        def operation(db: sqlite3.Connection) -> bool:
            found, failures, interruptions = find_leased(db, lease)
            failed, interrupted = reason is EndReason.FAILED, is_interruption(reason)
            if failed and failures + 1 >= self._limits.max_attempts:
                bury(db, found, lease.message_id, text, self._clock.time(), failed=1, counted=1)
                return True
            if interrupted and self._is_poison(interruptions + 1):
                why = poison(lease.queue, interruptions + 1)
                bury(db, found, lease.message_id, why, self._clock.time(), counted=1)
                return True
            seconds = delay(max(failures + failed, 1)) if callable(delay) else delay
            due = self._steady.time() + seconds if seconds > 0 else None
            counted = reason is not EndReason.RELEASED
            values = {"failed": failed, "counted": counted, "interrupted": interrupted}
            execute(db, "give_back", id=lease.message_id, due=due, **values)
            return False

        return await self.database.run(operation)

    async def extend(self, lease: Lease, *, seconds: float) -> Lease:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> Lease:
            find_leased(db, lease)
            until = self._steady.time() + seconds
            execute(db, "extend", id=lease.message_id, until=until)
            return Lease(lease.queue, lease.message_id, lease.token, lease.holder, until)

        return await self.database.run(operation)

    async def release_holder(self, holder: HolderId, *, reason: EndReason, grace: float = 0.0) -> Sequence[QueueKey]:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> list[QueueKey]:
            touched = keys_of(execute(db, "queues_of_holder", holder=holder))
            if grace <= 0:
                if is_interruption(reason):
                    self._bury_poisoned(db, holder)
                counted = reason is not EndReason.RELEASED
                execute(db, "release_holder", holder=holder, counted=counted, interrupted=is_interruption(reason))
            else:
                execute(db, "shorten_holder", holder=holder, soon=self._steady.time() + grace)
            return touched

        return await self.database.run(operation)

    async def sweep(self) -> Sequence[QueueKey]:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> tuple[int, list[QueueKey]]:
            self._follow_the_clock(db)
            rows = execute(db, "sweep", now=self._steady.time(), limit=_BATCH).fetchall()
            ids = json.dumps(list({queue for (queue,) in rows}))
            return len(rows), keys_of(execute(db, "queues_of_ids", ids=ids))

        await self._forget_sent()
        found: set[QueueKey] = set()
        while True:
            count, queues = await self.database.run(operation)
            found.update(queues)
            if count < _BATCH:
                return sorted(found)

    async def _forget_sent(self) -> None:
        def operation(db: sqlite3.Connection) -> int:
            return execute(db, "forget_sent", now=self._steady.time(), limit=_BATCH).rowcount

        for _ in range(_FORGET_BATCHES):
            if await self.database.run(operation) < _BATCH:
                return

    def _follow_the_clock(self, db: sqlite3.Connection) -> None:
        if jump := self._steady.jump():
            logger.warning(
                "the wall clock was set: leases and delays keep their lengths", extra={"seconds": round(jump, 3)}
            )
            for statement in ("move_dues", "move_sent_ids"):
                execute(db, statement, seconds=jump)
            self._steady.follow(jump)

    def _bound_times(self, db: sqlite3.Connection) -> None:
        """Bound what a clock that was set back while nobody had the file open would prolong."""
        self._steady = SteadyTime(self._clock)
        now = self._steady.time()
        execute(db, "bound_leases", latest=now + LONGEST_LEASE)
        execute(db, "bound_delays", latest=now + LONGEST_DELAY)
        execute(db, "bound_sent_ids", latest=now + self._limits.remember_ids_seconds)

    async def next_due(self) -> float | None:
        """See QueueStore."""
        row = await self.database.run(lambda db: execute(db, "next_due").fetchone())
        return None if row is None else float(row[0])

    async def drain(self, queue: QueueKey) -> int:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> int:
            (found, first), (_, depth) = find_ids(db, queue), find(db, queue)
            if depth:
                execute(db, "delete_queue", queue=found)
                execute(db, "recreate_queue", first=first, **names_of(queue))
                mark(db, found)
            return depth

        depth = await self.database.run(operation)
        self.removals.start()
        return depth

    async def stats(self, room: RoomKey) -> Sequence[QueueStats]:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> list[QueueStats]:
            now = self._clock.time()
            rows = execute(db, "stats", tenant=room.tenant, room=room.name, now=self._steady.time())
            return [stats_of(now, *row) for row in rows]

        return await self.database.read(operation)

    async def of_tenant(self, tenant: TenantId) -> TenantQueues:
        """See QueueStore."""
        # Among the operations that write, not beside them: a count has seen those that began before it (`quotas.counts`).
        queues, messages = await self.database.run(lambda db: execute(db, "of_tenant", tenant=tenant).fetchone())
        return TenantQueues(queues, messages)

    async def rooms_with_work(self, *, within: float, room: RoomKey | None = None) -> Sequence[RoomKey]:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> list[RoomKey]:
            soon = self._steady.time() + within
            if room is None:
                rows = execute(db, "rooms_with_work", soon=soon)
            else:
                rows = execute(db, "room_with_work", tenant=room.tenant, room=room.name, soon=soon)
            return [RoomKey(TenantId(tenant), name) for tenant, name in rows]

        return await self.database.read(operation)

    async def rooms_of(self, tenant: TenantId) -> Sequence[str]:
        """See QueueStore."""
        return await self.database.read(lambda db: [name for (name,) in execute(db, "rooms_of", tenant=tenant)])

    async def totals(self) -> QueueStats:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> QueueStats:
            now = self._clock.time()
            return stats_of(now, *execute(db, "totals", now=self._steady.time()).fetchone())

        return await self.database.read(operation)

    async def dead_letters(
        self,
        queue: QueueKey,
        *,
        limit: int = 100,
        before: tuple[float, int] | None = None,
        max_bytes: int | None = None,
    ) -> Sequence[DeadLetter]:
        """See QueueStore."""
        find = functools.partial(find_ids, queue=queue)
        return await read_dead_letters(self.database, find, limit=limit, before=before, max_bytes=max_bytes)

    async def replay(self, queue: QueueKey, message_ids: Sequence[int] | None = None) -> int:
        """See QueueStore."""
        return await replay_dead_letters(self.database, functools.partial(find_ids, queue=queue), message_ids)

    def _find_sent(self, db: sqlite3.Connection, queue: int, sender_id: str) -> int | None:
        row = execute(db, "find_sent", queue=queue, sender_id=sender_id, now=self._steady.time()).fetchone()
        return None if row is None else row[0]

    def _is_poison(self, interruptions: int) -> bool:
        return interruptions >= self._limits.max_interruptions

    def _bury_poisoned(self, db: sqlite3.Connection, holder: HolderId) -> None:
        """Bury what this holder leased, where its end makes one interruption too many."""
        most = self._limits.max_interruptions
        for message_id, found, *names in execute(db, "poisoned_of_holder", holder=holder, most=most - 1).fetchall():
            (queue,) = keys_of([tuple(names)])
            bury(db, found, message_id, poison(queue, most), self._clock.time(), counted=1)
