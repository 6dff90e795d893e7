"""Queues in PostgreSQL: the queue store of any number of room servers.

Keeps the contract of `meshhost.stores.queues.QueueStore`; read that first. A message is a row in `messages` (small, rewritten
by each lease) and one in `contents` (written once); see `migrations/queues` for what their columns say. Sends and acks that
wait at the same time share one statement (`batches.py`). A lease claims rows with SKIP LOCKED, so servers that lease from
one queue do not wait for each other, and commits without waiting for the disk: after a power cut such a message is handed out
once more, which at-least-once delivery allows.

Draining or deleting a queue of any size is one small transaction, which leaves its messages behind where nobody looks
(`dropped_lanes`); `sweep` deletes them in small batches, in any process, also after a crash. `max_depth` is kept as the
contract says, without a row that all senders lock (`depths.py`). What the queues of rooms hold is read in `overview.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from meshhost.clock import Clock, SystemClock
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.poison import is_interruption, poison
from meshhost.stores.postgres.batches import Batcher
from meshhost.stores.postgres.database import Connection, PostgresDatabase, Values
from meshhost.stores.postgres.dead_letters import read_dead_letters, replay_dead_letters
from meshhost.stores.postgres.depths import Depths
from meshhost.stores.postgres.overview import QueueOverview
from meshhost.stores.postgres.queue_rows import (
    delete_some,
    delivery_of,
    is_possible,
    is_storable,
    keys_of,
    lock_queue,
    names_of,
    values_of,
)
from meshhost.stores.postgres.stored_messages import read_stored, restore_messages
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
    StoredMessage,
)
from meshhost.stores.refusals import check_message, check_name, lease_lost, queue_full, queue_missing
from meshhost.stores.statements import read_statements

__all__ = ["PostgresQueueStore"]

_SQL = read_statements("meshhost.stores.postgres", "queues.sql")
# Rows that a sweep or a deletion of queues changes in one transaction.
_BATCH = 1000
_NO_QUEUE = -1


@dataclass(frozen=True, slots=True)
class _Send:
    queue: QueueKey
    body: bytes
    headers: bytes
    create: bool
    sender_id: bytes | None


# The id of a message, and whether it was stored just now; None when there is no queue.
_Sent = tuple[int, bool] | None


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
        self._sends: Batcher[_Send, _Sent] = Batcher(self._send_many)
        self._acks: Batcher[Lease, bool] = Batcher(self._ack_many)
        self._depths = Depths(limits.max_depth, self._depth)

    async def close(self) -> None:
        """See QueueStore."""
        await super().close()
        await self._sends.wait()
        await self._acks.wait()

    async def check(self) -> None:
        """See QueueStore."""
        await self.database.rows(_SQL["check"], {"now": self._clock.time()})

    async def create(self, queue: QueueKey) -> None:
        """See QueueStore."""
        check_name(queue)
        await self.database.rows(_SQL["create_queue"], names_of(queue))

    async def delete(self, queue: QueueKey) -> None:
        """See QueueStore."""

        async def operation(connection: Connection) -> None:
            number, lane = await lock_queue(connection, queue)
            await connection.execute(_SQL["drop_lane"], {"lane": lane, "queue": number})
            await connection.execute(_SQL["delete_queue"], {"queue": number})

        await self.database.transaction(operation)
        self._depths.left(queue, self._limits.max_depth)

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See QueueStore."""
        values = {"tenant": tenant, "room": room, "limit": _BATCH}
        while names := await self.database.rows(_SQL["drop_some_queues"], values):
            for name_of_room, name in names:
                self._depths.left(QueueKey(RoomKey(tenant, name_of_room), name), self._limits.max_depth)
        while await self.database.transaction(delete_some):
            pass

    async def exists(self, queue: QueueKey) -> bool:
        """See QueueStore."""
        return is_storable(queue) and await self.database.row(_SQL["exists"], names_of(queue)) is not None

    async def send(self, queue: QueueKey, message: NewMessage, *, create: bool = True) -> int:
        """See QueueStore."""
        self.check_open()
        headers = check_message(message, self._limits)
        if create:
            check_name(queue)
        elif not is_storable(queue):
            raise queue_missing(queue)
        sender_id = message.sender_id.encode() if message.sender_id else None
        if not await self._depths.reserve(queue):
            if message.sender_id and (first := await self.find_sent(queue, message.sender_id)) is not None:
                return first
            raise queue_full(queue, self._limits.max_depth)
        is_stored = True  # also when nobody knows, because this call was cancelled or the connection was lost
        try:
            sent = await self._sends.do(_Send(queue, message.body.encode(), headers.encode(), create, sender_id))
            is_stored = sent is not None and sent[1]
        finally:
            self._depths.sent(queue, is_stored=is_stored)
        if sent is None:
            raise queue_missing(queue)
        return sent[0]

    async def find_sent(self, queue: QueueKey, sender_id: str) -> int | None:
        """See QueueStore."""
        if not is_storable(queue):
            return None
        encoded = sender_id.encode(errors="surrogatepass")  # for one that no message can have been sent under
        values = {"sender_id": encoded, "steady": self._steady.time(), **names_of(queue)}
        row = await self.database.row(_SQL["find_sent"], values)
        return None if row is None else int(row[0])

    async def lease(self, queue: QueueKey, holder: HolderId, *, seconds: float, limit: int = 1) -> Sequence[Delivery]:
        """See QueueStore."""
        if not is_storable(queue):
            raise queue_missing(queue)
        found: list[Delivery] = []
        while True:
            now = self._steady.time()
            values = {"now": now, "until": now + seconds, "holder": holder, "limit": limit - len(found)}
            rows = await self.database.rows(_SQL["lease"], {**values, **names_of(queue)})
            if not rows:
                raise queue_missing(queue)
            poisoned = [row for row in rows if row[0] is not None and self._is_poison(row[5])]
            found += [
                delivery_of(queue, holder, self._steady.as_wall(now + seconds), row)
                for row in rows
                if row[0] is not None and not self._is_poison(row[5])
            ]
            if not poisoned:
                return sorted(found, key=lambda delivery: delivery.lease.message_id)
            for message_id, *_, interruptions, _, _ in poisoned:
                await self._bury(queue, message_id, poison(queue, interruptions))

    async def ack(self, lease: Lease) -> None:
        """See QueueStore."""
        self.check_open()
        if not (is_possible(lease) and await self._acks.do(lease)):
            raise lease_lost(lease)
        self._depths.left(lease.queue)

    async def nack(self, lease: Lease, *, reason: EndReason, error: str = "", delay: Delay = 0.0) -> bool:
        """See QueueStore."""
        if not is_possible(lease):
            raise lease_lost(lease)
        failed, interrupted = reason is EndReason.FAILED, is_interruption(reason)

        async def operation(connection: Connection) -> bool:
            found = await (await connection.execute(_SQL["lock_leased"], values_of(lease))).fetchone()
            if found is None:
                raise lease_lost(lease)
            failures, interruptions = found
            if failed and failures + 1 >= self._limits.max_attempts:
                await connection.execute(_SQL["bury"], self._burial(lease.message_id, error, failed=1, counted=1))
                return True
            if interrupted and self._is_poison(interruptions + 1):
                why = poison(lease.queue, interruptions + 1)
                await connection.execute(_SQL["bury"], self._burial(lease.message_id, why, counted=1))
                return True
            seconds = delay(max(failures + failed, 1)) if callable(delay) else delay
            values = {
                "id": lease.message_id,
                "due": self._steady.time() + seconds if seconds > 0 else None,
                "failed": int(failed),
                "counted": int(reason is not EndReason.RELEASED),
                "interrupted": int(interrupted),
            }
            await connection.execute(_SQL["give_back"], values)
            return False

        is_dead = await self.database.transaction(operation)
        if is_dead:
            self._depths.left(lease.queue)
        return is_dead

    async def extend(self, lease: Lease, *, seconds: float) -> Lease:
        """See QueueStore."""
        until = self._steady.time() + seconds
        if not (is_possible(lease) and await self.database.count(_SQL["extend"], {**values_of(lease), "until": until})):
            raise lease_lost(lease)
        return Lease(lease.queue, lease.message_id, lease.token, lease.holder, self._steady.as_wall(until))

    async def release_holder(self, holder: HolderId, *, reason: EndReason, grace: float = 0.0) -> Sequence[QueueKey]:
        """See QueueStore."""
        interrupted = is_interruption(reason)

        async def operation(connection: Connection) -> list[QueueKey]:
            touched = keys_of(await (await connection.execute(_SQL["queues_of_holder"], {"holder": holder})).fetchall())
            if grace > 0:
                values: Values = {"holder": holder, "soon": self._steady.time() + grace}
                await connection.execute(_SQL["shorten_holder"], values)
                return touched
            if interrupted:
                await self._bury_poisoned(connection, holder)
            counts = {"counted": int(reason is not EndReason.RELEASED), "interrupted": int(interrupted)}
            await connection.execute(_SQL["release_holder"], {"holder": holder, **counts})
            return touched

        return await self.database.transaction(operation)

    async def sweep(self) -> Sequence[QueueKey]:
        """See QueueStore. Also deletes what drained and deleted queues left behind, a batch at a time."""
        found: dict[QueueKey, None] = {}
        while True:
            rows = await self.database.rows(_SQL["sweep"], {"now": self._steady.time(), "limit": _BATCH})
            # A lane that was dropped meanwhile has no queue.
            found.update(dict.fromkeys(keys_of(row[1:4] for row in rows if row[1] is not None)))
            if sum(row[4] for row in rows) < _BATCH:
                break
        while await self.database.transaction(delete_some):
            pass
        old: Values = {"steady": self._steady.time(), "limit": _BATCH}
        while await self.database.count(_SQL["forget_sent"], old) == _BATCH:
            pass
        return sorted(found)

    async def next_due(self) -> float | None:
        """See QueueStore."""
        row = await self.database.row(_SQL["next_due"])
        return None if row is None else self._steady.as_wall(row[0])

    async def drain(self, queue: QueueKey) -> int:
        """See QueueStore."""

        async def operation(connection: Connection) -> int:
            number, lane = await lock_queue(connection, queue)
            (count,) = await (await connection.execute(_SQL["depth"], names_of(queue))).fetchone() or (0,)
            if count:
                await connection.execute(_SQL["drop_lane"], {"lane": lane, "queue": _NO_QUEUE})
                await connection.execute(_SQL["new_lane"], {"queue": number})
            return int(count)

        count = await self.database.transaction(operation)
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
        headers = [check_message(NewMessage(message.body, message.headers), self._limits) for message in messages]
        now, steady = self._clock.time(), self._steady.time()
        await restore_messages(self.database, queue, messages, headers, now=now, steady=steady)
        self._depths.left(queue, -sum(message.died_at is None for message in messages))

    async def _send_many(self, sends: Sequence[_Send]) -> Sequence[_Sent]:
        """Store them, None where there is no queue."""
        ids = await self._add(sends)
        # All messages of a queue that is missing are sent again here, so that they stay in order.
        while missing := [
            send for send, message_id in zip(sends, ids, strict=True) if message_id is None and send.create
        ]:
            for queue in {send.queue for send in missing}:
                await self._database.rows(_SQL["create_queue"], names_of(queue))
            added = iter(await self._add(missing))
            ids = [
                next(added) if message_id is None and send.create else message_id
                for send, message_id in zip(sends, ids, strict=True)
            ]
        return ids

    async def _add(self, sends: Sequence[_Send]) -> list[_Sent]:
        steady = self._steady.time()
        values = {
            "tenants": [send.queue.room.tenant for send in sends],
            "rooms": [send.queue.room.name for send in sends],
            "names": [send.queue.name for send in sends],
            "bodies": [send.body for send in sends],
            "headers": [send.headers for send in sends],
            "sender_ids": [send.sender_id for send in sends],
            "now": self._clock.time(),
            "steady": steady,
            "forget_at": steady + self._limits.remember_ids_seconds,
        }
        rows = await self._database.rows(_SQL["send"], values)
        return [None if message_id is None else (message_id, is_new) for message_id, is_new in rows]

    async def _ack_many(self, leases: Sequence[Lease]) -> Sequence[bool]:
        values = {
            "ids": [lease.message_id for lease in leases],
            "tokens": [lease.token for lease in leases],
            "holders": [lease.holder for lease in leases],
            "tenants": [lease.queue.room.tenant for lease in leases],
            "rooms": [lease.queue.room.name for lease in leases],
            "names": [lease.queue.name for lease in leases],
        }
        settled = {number for (number,) in await self._database.rows(_SQL["ack"], values)}
        return [number in settled for number in range(1, len(leases) + 1)]

    async def _depth(self, queue: QueueKey) -> int:
        row = await self._database.row(_SQL["depth"], names_of(queue))
        return 0 if row is None else int(row[0])

    def _is_poison(self, interruptions: int) -> bool:
        return interruptions >= self._limits.max_interruptions

    async def _bury(self, queue: QueueKey, message_id: int, reason: str) -> None:
        await self.database.rows(_SQL["bury"], self._burial(message_id, reason))
        self._depths.left(queue)

    async def _bury_poisoned(self, connection: Connection, holder: HolderId) -> None:
        """Bury what this holder leased, where its end makes one interruption too many."""
        most = self._limits.max_interruptions
        rows = await connection.execute(_SQL["poisoned_of_holder"], {"holder": holder, "most": most - 1})
        for message_id, *names in await rows.fetchall():
            (queue,) = keys_of([tuple(names)])
            await connection.execute(_SQL["bury"], self._burial(message_id, poison(queue, most), counted=1))
            self._depths.left(queue)

    def _burial(self, message_id: int, reason: str, *, failed: int = 0, counted: int = 0) -> dict[str, object]:
        text = reason.encode(errors="backslashreplace")  # an exception's text may hold lone surrogates
        now = self._clock.time()
        return {"id": message_id, "reason": text, "now": now, "failed": failed, "counted": counted}
