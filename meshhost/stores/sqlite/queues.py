"""Queues in a SQLite file: the queue store of a single room server.

Keeps the contract of `meshhost.stores.queues.QueueStore`; read that first. Every method is one operation on the file's thread
(`thread.py`), so it is atomic and group-committed. The file belongs to one process at a time, which makes the promises about
several processes easy: ids come from AUTOINCREMENT, `max_depth` is a counter per queue that is changed in the transaction of
each send and settlement, and two sweeps cannot overlap.

A message is a row in `messages` (small, rewritten by each lease) and one in `contents` (body and headers, written once).
`ready` and `due` tell its state: see the comments in `migrations/queues`.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from meshhost.clock import Clock, SystemClock
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.poison import is_interruption, poison
from meshhost.stores.queues import (
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
from meshhost.stores.refusals import check_message, check_name, lease_lost, queue_full, queue_missing
from meshhost.stores.sqlite.database import SqliteDatabase
from meshhost.stores.sqlite.statements import Statements

__all__ = ["SqliteQueueStore"]


_SQL = Statements("queues.sql")
_execute = _SQL.execute


class SqliteQueueStore:
    """Keeps the contract of QueueStore in the file `path`, which one process at a time can have open."""

    def __init__(
        self,
        path: Path,
        *,
        limits: QueueLimits = QueueLimits(),  # noqa: B008 - immutable
        clock: Clock | None = None,
    ) -> None:
        self._database = SqliteDatabase(path, migrations="queues", what="queue store")
        self._limits = limits
        self._clock = clock or SystemClock()

    def __repr__(self) -> str:
        return f"<SqliteQueueStore {str(self._database.path)!r} open={self._database.is_open}>"

    async def open(self) -> None:
        """See QueueStore."""
        await self._database.open()

    async def close(self) -> None:
        """See QueueStore."""
        await self._database.close()

    async def create(self, queue: QueueKey) -> None:
        """See QueueStore."""
        check_name(queue)
        await self._database.run(lambda db: _execute(db, "create_queue", **_names(queue)))

    async def delete(self, queue: QueueKey) -> None:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> None:
            found, _ = _find(db, queue)
            _drain(db, found)
            for statement in ("delete_dead_contents", "delete_dead_letters", "delete_queue"):
                _execute(db, statement, queue=found)

        await self._database.run(operation)

    async def exists(self, queue: QueueKey) -> bool:
        """See QueueStore."""
        return await self._database.run(lambda db: _look_up(db, queue) is not None)

    async def send(self, queue: QueueKey, message: NewMessage, *, create: bool = True) -> int:
        """See QueueStore."""
        headers = check_message(message, self._limits)
        body = message.body
        if create:
            check_name(queue)

        def operation(db: sqlite3.Connection) -> int:
            found, depth = _find_or_create(db, queue) if create else _find(db, queue)
            if depth >= self._limits.max_depth:
                raise queue_full(queue, self._limits)
            message_id = _execute(db, "add_message", queue=found, now=self._clock.time()).lastrowid
            _execute(db, "add_content", id=message_id, body=body, headers=headers)
            _execute(db, "change_depth", queue=found, change=1)
            return message_id or 0

        return await self._database.run(operation)

    async def lease(self, queue: QueueKey, holder: HolderId, *, seconds: float, limit: int = 1) -> Sequence[Delivery]:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> list[Delivery]:
            found, _ = _find(db, queue)
            now = self._clock.time()
            _execute(db, "promote", queue=found, now=now)
            rows: list[tuple[Any, ...]] = []
            while True:
                left = limit - len(rows)
                claimed = _execute(db, "claim", queue=found, holder=holder, until=now + seconds, limit=left).fetchall()
                healthy = [row[:-1] for row in claimed if not self._is_poison(row[-1])]
                for message_id, *_, interruptions in claimed:
                    if self._is_poison(interruptions):
                        _bury(db, found, message_id, poison(queue, interruptions), now)
                rows += healthy
                if len(healthy) == len(claimed):
                    break
            return [_delivery(db, queue, holder, now + seconds, row) for row in sorted(rows)]

        return await self._database.run(operation)

    async def ack(self, lease: Lease) -> None:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> None:
            found, *_ = _find_leased(db, lease)
            _execute(db, "delete_content", id=lease.message_id)
            _remove(db, found, lease.message_id)

        await self._database.run(operation)

    async def nack(self, lease: Lease, *, reason: EndReason, error: str = "", delay: Delay = 0.0) -> bool:
        """See QueueStore."""
        text = error.encode(errors="backslashreplace").decode()  # an exception's text may hold lone surrogates

        def operation(db: sqlite3.Connection) -> bool:
            found, failures, interruptions = _find_leased(db, lease)
            failed, interrupted = reason is EndReason.FAILED, is_interruption(reason)
            if failed and failures + 1 >= self._limits.max_attempts:
                _bury(db, found, lease.message_id, text, self._clock.time(), failed=1, counted=1)
                return True
            if interrupted and self._is_poison(interruptions + 1):
                why = poison(lease.queue, interruptions + 1)
                _bury(db, found, lease.message_id, why, self._clock.time(), counted=1)
                return True
            seconds = delay(max(failures + failed, 1)) if callable(delay) else delay
            due = self._clock.time() + seconds if seconds > 0 else None
            counted = reason is not EndReason.RELEASED
            values = {"failed": failed, "counted": counted, "interrupted": interrupted}
            _execute(db, "give_back", id=lease.message_id, due=due, **values)
            return False

        return await self._database.run(operation)

    async def extend(self, lease: Lease, *, seconds: float) -> Lease:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> Lease:
            _find_leased(db, lease)
            until = self._clock.time() + seconds
            _execute(db, "extend", id=lease.message_id, until=until)
            return Lease(lease.queue, lease.message_id, lease.token, lease.holder, until)

        return await self._database.run(operation)

    async def release_holder(self, holder: HolderId, *, reason: EndReason, grace: float = 0.0) -> Sequence[QueueKey]:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> list[QueueKey]:
            touched = _keys(_execute(db, "queues_of_holder", holder=holder))
            if grace <= 0:
                if is_interruption(reason):
                    self._bury_poisoned(db, holder)
                counted = reason is not EndReason.RELEASED
                _execute(db, "release_holder", holder=holder, counted=counted, interrupted=is_interruption(reason))
            else:
                _execute(db, "shorten_holder", holder=holder, soon=self._clock.time() + grace)
            return touched

        return await self._database.run(operation)

    async def sweep(self) -> Sequence[QueueKey]:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> list[QueueKey]:
            now = self._clock.time()
            queues = _keys(_execute(db, "queues_due", now=now))
            if queues:
                _execute(db, "sweep", now=now)
            return queues

        return await self._database.run(operation)

    async def next_due(self) -> float | None:
        """See QueueStore."""
        due: float | None = await self._database.run(lambda db: _execute(db, "next_due").fetchone()[0])
        return due

    async def drain(self, queue: QueueKey) -> int:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> int:
            found, depth = _find(db, queue)
            _drain(db, found)
            _execute(db, "change_depth", queue=found, change=-depth)
            return depth

        return await self._database.run(operation)

    async def stats(self, room: RoomKey) -> Sequence[QueueStats]:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> list[QueueStats]:
            now = self._clock.time()
            rows = _execute(db, "stats", tenant=room.tenant, room=room.name, now=now)
            return [_stats(now, *row) for row in rows]

        return await self._database.run(operation)

    async def of_tenant(self, tenant: TenantId) -> TenantQueues:
        """See QueueStore."""
        return await self._database.run(lambda db: TenantQueues(*_execute(db, "of_tenant", tenant=tenant).fetchone()))

    async def dead_letters(self, queue: QueueKey, *, limit: int = 100) -> Sequence[DeadLetter]:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> list[DeadLetter]:
            found, _ = _find(db, queue)
            rows = _execute(db, "dead_letters", queue=found, limit=limit)
            return [DeadLetter(key, body, json.loads(headers), *rest) for key, body, headers, *rest in rows]

        return await self._database.run(operation)

    async def replay(self, queue: QueueKey, message_ids: Sequence[int] | None = None) -> int:
        """See QueueStore."""
        ids = None if message_ids is None else json.dumps(list(message_ids))

        def operation(db: sqlite3.Connection) -> int:
            found, _ = _find(db, queue)
            count = _execute(db, "replay", queue=found, ids=ids).rowcount
            _execute(db, "forget_replayed", queue=found, ids=ids)
            _execute(db, "change_depth", queue=found, change=count)
            return count

        return await self._database.run(operation)

    def _is_poison(self, interruptions: int) -> bool:
        return interruptions >= self._limits.max_interruptions

    def _bury_poisoned(self, db: sqlite3.Connection, holder: HolderId) -> None:
        """Bury what this holder leased, where its end makes one interruption too many."""
        most = self._limits.max_interruptions
        for message_id, found, *names in _execute(db, "poisoned_of_holder", holder=holder, most=most - 1).fetchall():
            (queue,) = _keys([tuple(names)])
            _bury(db, found, message_id, poison(queue, most), self._clock.time(), counted=1)


def _names(queue: QueueKey) -> dict[str, str]:
    return {"tenant": queue.room.tenant, "room": queue.room.name, "name": queue.name}


def _look_up(db: sqlite3.Connection, queue: QueueKey) -> tuple[int, int] | None:
    try:
        row: tuple[int, int] | None = _execute(db, "find_queue", **_names(queue)).fetchone()
    except UnicodeEncodeError:  # no such queue can have been made
        return None
    return row


def _find(db: sqlite3.Connection, queue: QueueKey) -> tuple[int, int]:
    row = _look_up(db, queue)
    if row is None:
        raise queue_missing(queue)
    return row


def _find_or_create(db: sqlite3.Connection, queue: QueueKey) -> tuple[int, int]:
    if (row := _look_up(db, queue)) is not None:
        return row
    _execute(db, "create_queue", **_names(queue))
    return _find(db, queue)


def _find_leased(db: sqlite3.Connection, lease: Lease) -> tuple[int, int, int]:
    """Return the queue's id, and how often the message failed and was interrupted. Raises LeaseLostError."""
    values = {"id": lease.message_id, "token": lease.token, "holder": lease.holder, **_names(lease.queue)}
    try:
        row: tuple[int, int, int] | None = _execute(db, "find_leased", **values).fetchone()
    except (OverflowError, UnicodeEncodeError):  # values no lease of ours has
        row = None
    if row is None:
        raise lease_lost(lease)
    return row


def _remove(db: sqlite3.Connection, queue: int, message_id: int) -> None:
    _execute(db, "delete_message", id=message_id)
    _execute(db, "change_depth", queue=queue, change=-1)


def _bury(
    db: sqlite3.Connection, queue: int, message_id: int, reason: str, now: float, *, failed: int = 0, counted: int = 0
) -> None:
    _execute(db, "bury", id=message_id, reason=reason, now=now, failed=failed, counted=counted)
    _remove(db, queue, message_id)


def _drain(db: sqlite3.Connection, queue: int) -> None:
    _execute(db, "drain_contents", queue=queue)
    _execute(db, "drain_messages", queue=queue)


def _delivery(
    db: sqlite3.Connection, queue: QueueKey, holder: HolderId, until: float, row: tuple[int, int, int, int, float]
) -> Delivery:
    message_id, token, failures, ended, sent_at = row
    body, headers = _execute(db, "find_content", id=message_id).fetchone()
    return Delivery(
        lease=Lease(queue, message_id, token, holder, until),
        body=body,
        headers=json.loads(headers),
        attempt=failures + 1,
        delivery=ended + 1,
        sent_at=sent_at,
    )


def _stats(now: float, name: str, depth: int, waiting: int, leased: int, dead: int, oldest: float | None) -> QueueStats:
    return QueueStats(
        name=name,
        ready=depth - waiting,
        leased=leased,
        delayed=waiting - leased,
        dead=dead,
        oldest_age=None if oldest is None else max(now - oldest, 0.0),
    )


def _keys(rows: Iterable[tuple[Any, ...]]) -> list[QueueKey]:
    return [QueueKey(RoomKey(TenantId(tenant), room), name) for tenant, room, name in rows]
