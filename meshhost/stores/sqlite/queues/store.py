"""`SqliteQueueStore`: the contract of `meshhost.stores.queues.QueueStore` over one file; read that first.

Every method is one operation on the file's thread (`../thread.py`), so it is atomic and group-committed. The file belongs to
one process at a time, which makes the promises about several processes easy: ids come from AUTOINCREMENT, `max_depth` is a
counter per queue that is changed in the transaction of each send and settlement, and two sweeps cannot overlap.

A message is a row in `messages` (small, rewritten by each lease) and one in `contents` (body and headers, written once).
`ready` and `due` tell its state: see the comments in `../migrations/queues`.

No operation may hold the thread for long, however much is in a queue. What a drain or deletion leaves is removed in the
background (`removal.py`), what time changes is changed in batches, and what only reads has a connection of its own.

Longer than 400 lines because every method of the contract is one here.
"""

import json
import logging
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from meshhost.clock import Clock, SteadyTime, SystemClock
from meshhost.errors import LeaseLostError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.messages import SENT_BY_SECONDS, MessagePage, MessageQuery, MessageRecord, MessageState
from meshhost.stores.queue_settings import LONGEST_RESULT_TTL, Changes, QueueSettings
from meshhost.stores.queues import (
    LONGEST_DELAY,
    LONGEST_LEASE,
    DeadLetter,
    Delay,
    Deliveries,
    EndReason,
    HolderId,
    Lease,
    NewMessage,
    QueueKey,
    QueueLimits,
    QueueStats,
    StoredIds,
    StoredMessage,
    TenantQueues,
)
from meshhost.stores.shared.fair import TenantWeights
from meshhost.stores.shared.refusals import check_batch, check_message, check_name
from meshhost.stores.sqlite.database import SqliteDatabase
from meshhost.stores.sqlite.pace import DEFAULT_PACE, Pace
from meshhost.stores.sqlite.queues import archive, life
from meshhost.stores.sqlite.queues.dead_letters import read_dead_letters, replay_dead_letters
from meshhost.stores.sqlite.queues.leasing import Times, ack_plain, claim, end, end_what_is_over, release
from meshhost.stores.sqlite.queues.removal import DEAD, OUTCOMES, Removals, hide_some_queues, mark
from meshhost.stores.sqlite.queues.rows import (
    LeasedRow,
    execute,
    find,
    find_leased,
    find_or_create,
    find_sent,
    keys_of,
    look_up,
    names_of,
    rooms_with_work,
    stats_of,
)
from meshhost.stores.sqlite.queues.sending import send
from meshhost.stores.sqlite.queues.starts import (
    begin_anew,
    bound_wakes,
    move_starts,
    next_wake,
    sweep_starts,
)

__all__ = ["SqliteQueueStore"]

logger = logging.getLogger(__name__)

# Batches of ids and outcomes that one sweep forgets.
_FORGET_BATCHES = 20

_MOST_HOLDERS = 100_000
# Messages that one operation makes ready or ends, when time does it to many at once.
_BATCH = 500


class SqliteQueueStore:
    """Keeps the contract of QueueStore in the file `path`, which one process at a time can have open."""

    def __init__(
        self,
        path: Path,
        *,
        limits: QueueLimits = QueueLimits(),  # noqa: B008 - immutable
        clock: Clock | None = None,
        weights: TenantWeights | None = None,
        pace: Pace = DEFAULT_PACE,
    ) -> None:
        self.database = SqliteDatabase(path, migrations="queues", what="queue store", weights=weights, pace=pace)
        self.removals = Removals(self.database)
        self._limits = limits
        self._clock = clock or SystemClock()
        # For leases, delays and ids: `due` and `forget_at`. What people read (`sent_at`, `died_at`) is plain wall clock.
        self._steady = SteadyTime(self._clock)
        # Of the holders that leased something.
        self._tenants: dict[HolderId, TenantId] = {}

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
        await self.database.run(lambda db: execute(db, "create_queue", **names_of(queue)), tenant=queue.room.tenant)

    async def delete(self, queue: QueueKey) -> None:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> None:
            found = find(db, queue)
            execute(db, "delete_queue", queue=found.id)
            mark(db, found.id)
            mark(db, found.first, DEAD)
            mark(db, found.first, OUTCOMES)

        await self.database.run(operation, tenant=queue.room.tenant)
        self.removals.start()

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See QueueStore."""
        while await self.database.run(lambda db: hide_some_queues(db, tenant, room), tenant=tenant):
            pass
        await self.removals.finished()

    async def exists(self, queue: QueueKey) -> bool:
        """See QueueStore."""
        return await self.database.run(lambda db: look_up(db, queue) is not None, tenant=queue.room.tenant)

    async def send(self, queue: QueueKey, message: NewMessage, *, create: bool = True) -> int:
        """See QueueStore."""
        (message_id,) = await self.send_many(queue, (message,), create=create)
        return message_id

    async def send_many(self, queue: QueueKey, messages: Sequence[NewMessage], *, create: bool = True) -> StoredIds:
        """See QueueStore."""
        check_batch(messages)
        texts = [(message, check_message(message, self._limits)) for message in messages]
        if create:
            check_name(queue)

        def operation(db: sqlite3.Connection) -> StoredIds:
            self.database.require_space(db)
            found = find_or_create(db, queue) if create else find(db, queue)
            now = self._now()
            return send(db, queue, found, texts, self._limits, now=now.wall, steady=now.steady)

        return await self.database.run(operation, tenant=queue.room.tenant)

    async def find_sent(self, queue: QueueKey, sender_id: str) -> int | None:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> int | None:
            row = look_up(db, queue)
            return None if row is None else find_sent(db, row, sender_id, now=self._steady.time())

        try:
            return await self.database.run(operation, tenant=queue.room.tenant)
        except UnicodeEncodeError:  # no message can have been sent under it
            return None

    async def lease(
        self, queue: QueueKey, holder: HolderId, *, seconds: float, limit: int = 1, by: str = ""
    ) -> Deliveries:
        """See QueueStore."""
        self._remember(holder, queue.room.tenant)

        def operation(db: sqlite3.Connection) -> Deliveries | None:
            found, now = find(db, queue), self._now()
            if found.settings.paused:
                return Deliveries()
            if execute(db, "promote", queue=found.id, now=now.steady, limit=_BATCH).rowcount == _BATCH:
                return None  # there may be more, and one that comes first among them
            return claim(db, queue, found, self._limits, holder=holder, by=by, seconds=seconds, limit=limit, now=now)

        while (deliveries := await self.database.run(operation, is_durable=False, tenant=queue.room.tenant)) is None:
            pass
        return deliveries

    async def ack(self, lease: Lease, *, result: str | None = None) -> bool:
        """See QueueStore."""
        return await self.database.run(lambda db: self._ack(db, lease, result), tenant=lease.queue.room.tenant)

    async def ack_many(self, acks: Sequence[tuple[Lease, str | None]]) -> Sequence[bool | None]:
        """See QueueStore."""
        plain: dict[QueueKey, list[int]] = {}
        for number, (lease, result) in enumerate(acks):
            if result is None:
                plain.setdefault(lease.queue, []).append(number)

        def operation(db: sqlite3.Connection) -> list[bool | None]:
            settled: dict[int, bool] = {}
            for numbers in plain.values():
                done = ack_plain(db, [acks[number][0] for number in numbers], self._now())
                settled |= {numbers[place]: follows for place, follows in done.items()}
            outcomes: list[bool | None] = []
            for number, (lease, result) in enumerate(acks):
                follows = settled.get(number)
                if follows is None:
                    with suppress(LeaseLostError):
                        follows = self._ack(db, lease, result)
                outcomes.append(follows)
            return outcomes

        tenant = acks[0][0].queue.room.tenant if acks else ""
        return await self.database.run(operation, tenant=tenant)

    def _ack(self, db: sqlite3.Connection, lease: Lease, result: str | None) -> bool:
        found = find_leased(db, lease)
        of_queue = (found.queue, found.first, found.settings_text)
        follows = end(db, *of_queue, lease.message_id, MessageState.DONE, self._now(), result=result)
        return follows or found.settings.concurrency is not None

    async def nack(self, lease: Lease, *, reason: EndReason, error: str = "", delay: Delay = 0.0) -> bool:
        """See QueueStore."""
        text = error.encode(errors="backslashreplace").decode()  # an exception's text may hold lone surrogates

        def operation(db: sqlite3.Connection) -> bool:
            found, now = find_leased(db, lease), self._now()
            is_dead = release(db, lease, found, self._limits, reason=reason, error=text, now=now)
            if is_dead is False:
                failures = found.failures + (reason is EndReason.FAILED)
                seconds = delay(max(failures, 1), found.settings) if callable(delay) else delay
                due = now.steady + seconds if seconds > 0 else None
                execute(db, "give_back", id=lease.message_id, due=due, now=now.steady)
            return bool(is_dead)

        return await self.database.run(operation, tenant=lease.queue.room.tenant)

    async def extend(self, lease: Lease, *, seconds: float, progress: str | None = None) -> Lease:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> Lease:
            found = find_leased(db, lease)
            until = self._steady.time() + seconds
            execute(db, "extend", id=lease.message_id, until=until, progress=progress)
            return replace(lease, expires_at=until, is_cancelled=bool(found.is_cancelled))

        return await self.database.run(operation, is_durable=False, tenant=lease.queue.room.tenant)

    async def release_holder(self, holder: HolderId, *, reason: EndReason, grace: float = 0.0) -> Sequence[QueueKey]:
        """See QueueStore."""
        # Its end must not overtake its acks, which wait among the operations of its tenant.
        tenant = self._tenants.get(holder, "") if grace > 0 else self._tenants.pop(holder, "")

        def operation(db: sqlite3.Connection) -> list[QueueKey]:
            now = self._now()
            touched = keys_of(execute(db, "queues_of_holder", holder=holder))
            if grace > 0:
                execute(db, "shorten_holder", holder=holder, soon=now.steady + grace)
                return touched
            for message_id, *row in execute(db, "leased_by", holder=holder).fetchall():
                (queue,) = keys_of([tuple(row[-3:])])
                lease = Lease(queue, message_id, 0, holder, 0.0)
                found = LeasedRow(*row[:-3])
                if release(db, lease, found, self._limits, reason=reason, error="", now=now) is False:
                    execute(db, "give_back", id=message_id, due=None, now=now.steady)
            return touched

        return await self.database.run(operation, tenant=tenant)

    async def get(self, queue: QueueKey, message_id: int) -> MessageRecord | None:
        """See QueueStore."""
        return await self.database.read(
            lambda db: life.get(db, find(db, queue), message_id, self._now()), tenant=queue.room.tenant
        )

    async def find(self, queue: QueueKey, query: MessageQuery) -> MessagePage:
        """See QueueStore."""
        return await self.database.read(
            lambda db: life.find_page(db, find(db, queue), query, self._now()), tenant=queue.room.tenant
        )

    async def peek(self, queue: QueueKey, *, limit: int) -> Sequence[MessageRecord]:
        """See QueueStore."""
        return await self.database.read(
            lambda db: life.peek(db, find(db, queue), limit, self._now()), tenant=queue.room.tenant
        )

    async def cancel(self, queue: QueueKey, message_id: int) -> MessageState | None:
        """See QueueStore."""
        return await self.database.run(
            lambda db: life.cancel(db, find(db, queue), message_id, self._now()), tenant=queue.room.tenant
        )

    async def referred(self, names: Collection[str]) -> Collection[str]:
        """See QueueStore."""
        return await self.database.read(lambda db: life.referred(db, names))

    async def settings(self, queue: QueueKey) -> QueueSettings:
        """See QueueStore."""
        return (await self.database.run(lambda db: find(db, queue), tenant=queue.room.tenant)).settings

    async def configure(self, queue: QueueKey, changes: Changes) -> QueueSettings:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> QueueSettings:
            found = find(db, queue)
            settings = found.settings.changed(changes)
            begin_anew(db, found, settings, self._steady.time())
            execute(db, "configure", queue=found.id, settings=settings.to_json())
            return settings

        return await self.database.run(operation, tenant=queue.room.tenant)

    async def sweep(self) -> Sequence[QueueKey]:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> tuple[bool, list[QueueKey]]:
            self._follow_the_clock(db)
            now = self._now()
            over, ready = end_what_is_over(db, now, limit=_BATCH)
            ready += sweep_starts(db, now.steady, limit=_BATCH)
            rows = execute(db, "sweep", now=now.steady, limit=_BATCH).fetchall()
            ids = json.dumps(list({queue for (queue,) in rows}))
            return _BATCH in (over, len(rows)), ready + keys_of(execute(db, "queues_of_ids", ids=ids))

        for what in ("forget_sent", "forget_outcomes"):
            await self._forget(what)
        found: set[QueueKey] = set()
        has_more = True
        while has_more:
            has_more, queues = await self.database.run(operation)
            found.update(queues)
        return sorted(found)

    async def _forget(self, what: str) -> None:
        def operation(db: sqlite3.Connection) -> int:
            return execute(db, what, now=self._steady.time(), limit=_BATCH).rowcount

        for _ in range(_FORGET_BATCHES):
            if await self.database.run(operation) < _BATCH:
                return

    def _follow_the_clock(self, db: sqlite3.Connection) -> None:
        if jump := self._steady.jump():
            logger.warning(
                "the wall clock was set: leases and delays keep their lengths", extra={"seconds": round(jump, 3)}
            )
            for statement in ("move_dues", "move_delays", "move_ends", "move_sent_ids", "move_outcomes"):
                execute(db, statement, seconds=jump)
            move_starts(db, jump)
            self._steady.follow(jump)

    def _bound_times(self, db: sqlite3.Connection) -> None:
        """Bound what a clock that was set back while nobody had the file open would prolong."""
        self._steady = SteadyTime(self._clock)
        now = self._steady.time()
        execute(db, "bound_leases", latest=now + LONGEST_LEASE)
        execute(db, "bound_delays", latest=now + LONGEST_DELAY)
        execute(db, "bound_ends", latest=now + LONGEST_DELAY)
        bound_wakes(db, now)
        execute(db, "bound_outcomes", latest=now + LONGEST_RESULT_TTL)
        execute(
            db, "bound_sent_ids", latest=now + max(self._limits.remember_ids_seconds, LONGEST_DELAY + SENT_BY_SECONDS)
        )

    async def next_due(self) -> float | None:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> list[float]:
            rows = (execute(db, statement).fetchone() for statement in ("next_due", "next_end"))
            times = [row[0] for row in rows if row is not None]
            return times if (wake := next_wake(db)) is None else [*times, wake]

        return min(await self.database.run(operation), default=None)

    async def drain(self, queue: QueueKey) -> int:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> int:
            found = find(db, queue)
            if found.depth:
                execute(db, "delete_queue", queue=found.id)
                kept = {"first": found.first, "settings": found.settings_text}
                execute(db, "recreate_queue", **kept, **names_of(queue))
                mark(db, found.id)
            return found.depth

        depth = await self.database.run(operation, tenant=queue.room.tenant)
        self.removals.start()
        return depth

    async def stats(self, room: RoomKey) -> Sequence[QueueStats]:
        """See QueueStore."""
        return await self.database.read(lambda db: self._stats(db, room), tenant=room.tenant)

    async def overview(self, tenant: TenantId | None = None) -> Sequence[tuple[RoomKey, QueueStats]]:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> list[tuple[RoomKey, QueueStats]]:
            rooms = [RoomKey(TenantId(owner), name) for owner, name in execute(db, "rooms", tenant=tenant)]
            return [(room, stats) for room in rooms for stats in self._stats(db, room)]

        return await self.database.read(operation, tenant=tenant or "")

    async def rooms_with_work(self, *, within: float, room: RoomKey | None = None) -> Sequence[RoomKey]:
        """See QueueStore."""
        soon = self._steady.time() + within
        return await self.database.read(lambda db: rooms_with_work(db, soon=soon, room=room))

    async def rooms_of(self, tenant: TenantId) -> Sequence[str]:
        """See QueueStore."""
        return await self.database.read(
            lambda db: [name for (name,) in execute(db, "rooms_of", tenant=tenant)], tenant=tenant
        )

    async def totals(self) -> QueueStats:
        """See QueueStore."""

        def operation(db: sqlite3.Connection) -> QueueStats:
            now = self._clock.time()
            return stats_of(now, *execute(db, "totals", now=self._steady.time()).fetchone())

        return await self.database.read(operation)

    async def of_tenant(self, tenant: TenantId) -> TenantQueues:
        """See QueueStore."""
        # Among the operations that write, not beside them: a count has seen those that began before it (`quotas.counts`).
        queues, messages = await self.database.run(
            lambda db: execute(db, "of_tenant", tenant=tenant).fetchone(), tenant=tenant
        )
        return TenantQueues(queues, messages)

    async def dead_letters(
        self,
        queue: QueueKey,
        *,
        limit: int = 100,
        before: tuple[float, int] | None = None,
        max_bytes: int | None = None,
    ) -> Sequence[DeadLetter]:
        """See QueueStore."""
        look = partial(find, queue=queue)
        return await read_dead_letters(
            self.database, look, tenant=queue.room.tenant, limit=limit, before=before, max_bytes=max_bytes
        )

    async def replay(self, queue: QueueKey, message_ids: Sequence[int] | None = None) -> int:
        """See QueueStore."""
        look = partial(find, queue=queue)
        return await replay_dead_letters(self.database, look, message_ids, tenant=queue.room.tenant)

    async def stored(self, queue: QueueKey, *, after: int, limit: int, max_bytes: int) -> Sequence[StoredMessage]:
        """See QueueStore. Read beside the thread that writes: an archive holds up nobody."""

        def operation(db: sqlite3.Connection) -> list[StoredMessage]:
            page = {"after": after, "limit": limit, "max_bytes": max_bytes}
            return archive.stored_page(db, find(db, queue), now=self._now(), **page)

        return await self.database.read(operation, tenant=queue.room.tenant)

    async def restore(self, queue: QueueKey, messages: Sequence[StoredMessage]) -> None:
        """See QueueStore."""
        check_name(queue)
        headers = [check_message(archive.new_message(message), self._limits) for message in messages]

        def operation(db: sqlite3.Connection) -> None:
            self.database.require_space(db)
            found, now = find_or_create(db, queue), self._now()
            for message, text in zip(messages, headers, strict=True):
                archive.restore(db, found, message, text, now)

        await self.database.run(operation, tenant=queue.room.tenant)

    def _stats(self, db: sqlite3.Connection, room: RoomKey) -> list[QueueStats]:
        now = self._clock.time()
        rows = execute(db, "stats", tenant=room.tenant, room=room.name, now=self._steady.time())
        return [stats_of(now, *row) for row in rows]

    def _remember(self, holder: HolderId, tenant: TenantId) -> None:
        if holder not in self._tenants and len(self._tenants) >= _MOST_HOLDERS:
            del self._tenants[next(iter(self._tenants))]
        self._tenants[holder] = tenant

    def _now(self) -> Times:
        return Times(self._clock.time(), self._steady.time())
