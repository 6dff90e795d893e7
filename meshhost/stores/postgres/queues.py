"""Queues in PostgreSQL: the queue store of any number of room servers.

Keeps the contract of `meshhost.stores.queues.QueueStore`; read that first. A message is a row in `messages` (small, rewritten
by each lease) and one in `contents` (written once); see `migrations/queues` for what their columns say. What happens to
messages is in the package `messages`: sends and acks that wait at the same time share one statement; a lease claims rows with
SKIP LOCKED and commits without waiting for the disk: after a power cut such a message is handed out once more, which
at-least-once delivery allows. Messages of one key come and go under a lock of that key, in whichever server.

Draining or deleting a queue of any size is one small transaction, which leaves its messages behind where nobody looks
(`dropped_lanes`); `sweep` deletes them in small batches, in any process, also after a crash. `max_depth` is kept as the
contract says, without a row that all senders lock (`depths.py`). What the queues of rooms hold is read in `overview.py`.
"""

from collections.abc import Collection, Sequence

from meshhost.clock import Clock, SystemClock
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.messages import MessagePage, MessageQuery, MessageRecord, MessageState
from meshhost.stores.postgres.database import Connection, PostgresDatabase
from meshhost.stores.postgres.dead_letters import read_dead_letters, replay_dead_letters
from meshhost.stores.postgres.depths import Depths
from meshhost.stores.postgres.messages.claiming import claim, prolong, release_all
from meshhost.stores.postgres.messages.records import find_messages, get_message, next_messages
from meshhost.stores.postgres.messages.sending import Sending
from meshhost.stores.postgres.messages.settling import Acks, cancel_message, end_expired, give_back
from meshhost.stores.postgres.messages.starts import change_settings, sweep_starts
from meshhost.stores.postgres.messages.tables import SQL, QueueTables
from meshhost.stores.postgres.overview import QueueOverview
from meshhost.stores.postgres.queue_rows import delete_some, is_storable, keys_of, lock_queue, names_of
from meshhost.stores.postgres.stored_messages import read_stored, restore_messages
from meshhost.stores.queue_settings import Changes, QueueSettings, parse_settings
from meshhost.stores.queues import (
    DeadLetter,
    Delay,
    Deliveries,
    EndReason,
    HolderId,
    Lease,
    NewMessage,
    QueueKey,
    QueueLimits,
    StoredIds,
    StoredMessage,
)
from meshhost.stores.shared.refusals import check_message, check_name, queue_missing

__all__ = ["PostgresQueueStore"]

# Rows that a sweep or a deletion of queues changes in one transaction.
_BATCH = 1000
_NO_QUEUE = -1


class PostgresQueueStore(QueueOverview):
    """Keeps the contract of QueueStore in `database`, which several processes may use at once."""

    def __init__(
        self,
        database: PostgresDatabase,
        *,
        limits: QueueLimits = QueueLimits(),  # noqa: B008 - immutable
        clock: Clock | None = None,
    ) -> None:
        super().__init__(database, clock=clock or SystemClock())
        self._limits = limits
        self._tables = QueueTables(database, limits, self._clock, self._steady)
        self._depths = Depths(limits.max_depth, self._depth)
        self._sending = Sending(self._tables, self._depths)
        self._acks = Acks(self._tables)

    async def close(self) -> None:
        """See QueueStore."""
        await super().close()
        await self._sending.wait()
        await self._acks.wait()

    async def check(self) -> None:
        """See QueueStore."""
        await self.database.rows(SQL["check"], {"now": self._clock.time()})

    async def create(self, queue: QueueKey) -> None:
        """See QueueStore."""
        check_name(queue)
        await self.database.rows(SQL["create_queue"], names_of(queue))

    async def delete(self, queue: QueueKey) -> None:
        """See QueueStore."""

        async def operation(connection: Connection) -> None:
            number, lane = await lock_queue(connection, queue)
            await connection.execute(SQL["drop_lane"], {"lane": lane, "queue": number})
            await connection.execute(SQL["delete_queue"], {"queue": number})

        await self.database.transaction(operation, tenant=queue.room.tenant)
        self._depths.left(queue, self._limits.max_depth)
        self._depths.may_hold(queue, None)

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See QueueStore."""
        values = {"tenant": tenant, "room": room, "limit": _BATCH}
        while names := await self.database.rows(SQL["drop_some_queues"], values):
            for name_of_room, name in names:
                self._depths.left(QueueKey(RoomKey(tenant, name_of_room), name), self._limits.max_depth)
        while await self.database.transaction(delete_some):
            pass

    async def exists(self, queue: QueueKey) -> bool:
        """See QueueStore."""
        return is_storable(queue) and await self.database.row(SQL["exists"], names_of(queue)) is not None

    async def send(self, queue: QueueKey, message: NewMessage, *, create: bool = True) -> int:
        """See QueueStore."""
        self.check_open()
        return await self._sending.send(queue, message, create=create)

    async def send_many(self, queue: QueueKey, messages: Sequence[NewMessage], *, create: bool = True) -> StoredIds:
        """See QueueStore."""
        self.check_open()
        return await self._sending.send_many(queue, messages, create=create)

    async def find_sent(self, queue: QueueKey, sender_id: str) -> int | None:
        """See QueueStore."""
        self.check_open()
        if not is_storable(queue):
            return None
        encoded = sender_id.encode(errors="surrogatepass")  # for one that no message can have been sent under
        return (await self._sending.find(queue, [encoded])).get(encoded)

    async def lease(
        self, queue: QueueKey, holder: HolderId, *, seconds: float, limit: int = 1, by: str = ""
    ) -> Deliveries:
        """See QueueStore."""
        self.check_open()
        found, ended = await claim(self._tables, queue, holder, seconds=seconds, limit=limit, by=by)
        self._depths.left(queue, ended)
        return found

    async def ack(self, lease: Lease, *, result: str | None = None) -> bool:
        """See QueueStore."""
        self.check_open()
        may_follow = await self._acks.ack(lease, result)
        self._depths.left(lease.queue)
        return may_follow

    async def ack_many(self, acks: Sequence[tuple[Lease, str | None]]) -> Sequence[bool | None]:
        """See QueueStore."""
        self.check_open()
        outcomes = await self._acks.ack_many(acks)
        for (lease, _), outcome in zip(acks, outcomes, strict=True):
            if outcome is not None:
                self._depths.left(lease.queue)
        return outcomes

    async def nack(self, lease: Lease, *, reason: EndReason, error: str = "", delay: Delay = 0.0) -> bool:
        """See QueueStore."""
        self.check_open()
        is_dead, has_ended = await give_back(self._tables, lease, reason=reason, error=error, delay=delay)
        self._depths.left(lease.queue, int(has_ended))
        return is_dead

    async def extend(self, lease: Lease, *, seconds: float, progress: str | None = None) -> Lease:
        """See QueueStore."""
        self.check_open()
        return await prolong(self._tables, lease, seconds=seconds, progress=progress)

    async def get(self, queue: QueueKey, message_id: int) -> MessageRecord | None:
        """See QueueStore."""
        self.check_open()
        return await get_message(self._tables, queue, message_id)

    async def find(self, queue: QueueKey, query: MessageQuery) -> MessagePage:
        """See QueueStore."""
        self.check_open()
        return await find_messages(self._tables, queue, query)

    async def peek(self, queue: QueueKey, *, limit: int) -> Sequence[MessageRecord]:
        """See QueueStore."""
        self.check_open()
        return await next_messages(self._tables, queue, limit)

    async def cancel(self, queue: QueueKey, message_id: int) -> MessageState | None:
        """See QueueStore."""
        self.check_open()
        state, has_ended = await cancel_message(self._tables, queue, message_id)
        self._depths.left(queue, int(has_ended))
        return state

    async def settings(self, queue: QueueKey) -> QueueSettings:
        """See QueueStore."""
        row = await self.database.row(SQL["settings"], names_of(queue)) if is_storable(queue) else None
        if row is None:
            raise queue_missing(queue)
        return parse_settings(row[0])

    async def configure(self, queue: QueueKey, changes: Changes) -> QueueSettings:
        """See QueueStore."""
        values = names_of(queue)

        async def operation(connection: Connection) -> QueueSettings | None:
            settings = await change_settings(connection, values, changes, self._steady.time())
            if settings is not None:
                await connection.execute(SQL["configure"], {**values, "settings": settings.to_json()})
            return settings

        tenant = queue.room.tenant
        settings = await self.database.transaction(operation, tenant=tenant) if is_storable(queue) else None
        if settings is None:
            raise queue_missing(queue)
        self._depths.may_hold(queue, settings.max_depth)
        return settings

    async def release_holder(self, holder: HolderId, *, reason: EndReason, grace: float = 0.0) -> Sequence[QueueKey]:
        """See QueueStore."""
        self.check_open()
        touched, ended = await release_all(self._tables, holder, reason=reason, grace=grace)
        for queue in ended:
            self._depths.left(queue)
        return touched

    async def sweep(self) -> Sequence[QueueKey]:
        """See QueueStore. Also deletes what drained and deleted queues left behind, a batch at a time."""
        found: dict[QueueKey, None] = {}
        is_more = True
        while is_more:
            self.check_open()
            counts, followed, is_more = await end_expired(self._tables, _BATCH)
            for queue, count in counts.items():
                self._depths.left(queue, count)
            found.update(dict.fromkeys(followed))
        while True:
            rows = await self.database.rows(SQL["sweep"], {"now": self._steady.time(), "limit": _BATCH})
            # A lane that was dropped meanwhile has no queue.
            found.update(dict.fromkeys(keys_of(row[1:4] for row in rows if row[1] is not None)))
            if sum(row[4] for row in rows) < _BATCH:
                break
        found.update(dict.fromkeys(await sweep_starts(self.database, self._steady.time(), limit=_BATCH)))
        while await self.database.transaction(delete_some):
            pass
        for forget in ("forget_sent", "forget_outcomes"):
            while await self.database.count(SQL[forget], {"steady": self._steady.time(), "limit": _BATCH}) == _BATCH:
                pass
        return sorted(found)

    async def next_due(self) -> float | None:
        """See QueueStore."""
        row = await self.database.row(SQL["next_due"])
        return None if row is None or row[0] is None else self._steady.as_wall(row[0])

    async def drain(self, queue: QueueKey) -> int:
        """See QueueStore."""

        async def operation(connection: Connection) -> int:
            number, lane = await lock_queue(connection, queue)
            (count, _) = await (await connection.execute(SQL["depth"], names_of(queue))).fetchone() or (0, None)
            if count:
                await connection.execute(SQL["drop_lane"], {"lane": lane, "queue": _NO_QUEUE})
                await connection.execute(SQL["new_lane"], {"queue": number})
            return int(count)

        count = await self.database.transaction(operation, tenant=queue.room.tenant)
        self._depths.left(queue, count)
        return count

    async def dead_letters(
        self,
        queue: QueueKey,
        *,
        limit: int = 100,
        before: tuple[float, int] | None = None,
        max_bytes: int | None = None,
    ) -> Sequence[DeadLetter]:
        """See QueueStore."""
        return await read_dead_letters(self.database, queue, limit=limit, before=before, max_bytes=max_bytes)

    async def replay(self, queue: QueueKey, message_ids: Sequence[int] | None = None) -> int:
        """See QueueStore."""
        count = await replay_dead_letters(self.database, queue, message_ids)
        self._depths.left(queue, -count)
        return count

    async def stored(self, queue: QueueKey, *, after: int, limit: int, max_bytes: int) -> Sequence[StoredMessage]:
        """See QueueStore."""
        shift = self._clock.time() - self._steady.time()
        page = {"after": after, "limit": limit, "max_bytes": max_bytes}
        return await read_stored(self.database, queue, shift=shift, **page)

    async def restore(self, queue: QueueKey, messages: Sequence[StoredMessage]) -> None:
        """See QueueStore."""
        check_name(queue)
        contents = [
            NewMessage(message.body, message.headers, priority=message.priority, key=message.key)
            for message in messages
        ]
        headers = [check_message(content, self._limits) for content in contents]
        now, steady = self._clock.time(), self._steady.time()
        await restore_messages(self.database, queue, messages, headers, now=now, steady=steady)
        self._depths.left(queue, -sum(message.died_at is None for message in messages))

    async def referred(self, names: Collection[str]) -> Collection[str]:
        """See QueueStore."""
        rows = await self.database.rows(SQL["referred"], {"names": [name.encode() for name in names]})
        return {bytes(name).decode() for (name,) in rows}

    async def _depth(self, queue: QueueKey) -> tuple[int, int | None]:
        """How many messages the queue holds, and how many it may hold if that is set for it."""
        row = await self._database.row(SQL["depth"], names_of(queue))
        return (0, None) if row is None else (row[0], row[1])
