"""The operations of a queue store that add or remove queues and messages, counted for the quota of their tenant.

`QueueService` uses it for exactly those operations. A message takes its place before it is stored and frees it when it is acked
or drained; one that dies keeps it, and one that was cancelled or whose ttl is over is noticed by the next count. Whether an
operation makes a queue is only known to the store, so it is asked once for each queue that this process has not seen; from then
on the queue is known, and a send costs no further query.

An operation whose caller was cancelled may have happened or not: then the tenant is counted again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

from meshhost.errors import QuotaExceededError
from meshhost.identity.tenant import TenantId
from meshhost.quotas.counts import TenantCounts
from meshhost.quotas.quota import Resource
from meshhost.stores.queues import Lease, MessageState, NewMessage, QueueKey, QueueStore, StoredIds

__all__ = ["CountedQueues"]

T = TypeVar("T")
# What an operation adds.
Places: TypeAlias = tuple[Resource, int]

_MOST_KNOWN = 100_000


class CountedQueues:
    """Runs operations of `store`, and tells `counts`. They raise what the store raises, and QuotaExceededError.

    Beyond `most_known` queues their names are forgotten and asked for again.
    """

    def __init__(self, store: QueueStore, counts: TenantCounts, *, most_known: int = _MOST_KNOWN) -> None:
        self._store = store
        self._counts = counts
        self._most_known = most_known
        self._known: set[QueueKey] = set()
        self._making: dict[QueueKey, asyncio.Lock] = {}

    async def send_many(self, queue: QueueKey, messages: Sequence[NewMessage], *, create: bool) -> StoredIds:
        """See QueueStore."""
        try:
            return await self._send(queue, messages, len(messages), create=create)
        except QuotaExceededError:
            # They may be stored already, and sent again because the answer was lost.
            new = await self._count_new(queue, messages)
            if new == len(messages):
                raise
        if not new:
            return await self._store.send_many(queue, messages, create=create)
        return await self._send(queue, messages, new, create=create)

    async def _send(self, queue: QueueKey, messages: Sequence[NewMessage], count: int, *, create: bool) -> StoredIds:
        def operation() -> Awaitable[StoredIds]:
            return self._store.send_many(queue, messages, create=create)

        taken = (Resource.MESSAGES, count)
        if create and queue not in self._known:
            return await self._make(queue, operation, taken)
        return await self._add(queue.room.tenant, operation, taken)

    async def _count_new(self, queue: QueueKey, messages: Sequence[NewMessage]) -> int:
        """How many of the messages are not stored yet. The first one says whether it is worth the queries for the others."""
        first, *others = messages
        if not await self._is_known(queue, first):
            return len(messages)
        return len([message for message in others if not await self._is_known(queue, message)])

    async def _is_known(self, queue: QueueKey, message: NewMessage) -> bool:
        return bool(message.sender_id) and await self._store.find_sent(queue, message.sender_id or "") is not None

    async def create(self, queue: QueueKey) -> None:
        """See QueueStore."""
        if queue not in self._known:
            await self._make(queue, lambda: self._store.create(queue))

    async def delete(self, queue: QueueKey) -> None:
        """See QueueStore."""
        self._known.discard(queue)
        since = self._counts.mark()
        try:
            await self._store.delete(queue)
        finally:
            # How many messages it had is not known here.
            self._counts.doubt(queue.room.tenant, Resource.MESSAGES)
        self._known.discard(queue)
        self._counts.free(queue.room.tenant, Resource.QUEUES, since=since)

    async def delete_all(self, tenant: TenantId, room: str | None) -> None:
        """See QueueStore."""

        def forget() -> None:
            self._known -= {queue for queue in self._known if queue.room.is_of(tenant, room)}

        forget()
        try:
            await self._store.delete_all(tenant, room)
        finally:
            forget()
            # How many there were is not known here.
            self._counts.doubt(tenant, Resource.QUEUES)
            self._counts.doubt(tenant, Resource.MESSAGES)

    async def ack(self, lease: Lease, *, result: str | None = None) -> bool:
        """See QueueStore."""
        tenant, since = lease.queue.room.tenant, self._counts.mark()
        try:
            is_next_ready = await self._store.ack(lease, result=result)
        except asyncio.CancelledError:
            self._counts.doubt(tenant, Resource.MESSAGES)
            raise
        self._counts.free(tenant, Resource.MESSAGES, since=since)
        return is_next_ready

    async def ack_many(self, queue: QueueKey, acks: Sequence[tuple[Lease, str | None]]) -> Sequence[bool | None]:
        """See QueueStore; all are messages of this queue."""
        tenant, since = queue.room.tenant, self._counts.mark()
        try:
            outcomes = await self._store.ack_many(acks)
        except BaseException:
            self._counts.doubt(tenant, Resource.MESSAGES)
            raise
        if done := sum(outcome is not None for outcome in outcomes):
            self._counts.free(tenant, Resource.MESSAGES, done, since=since)
        return outcomes

    async def cancel(self, queue: QueueKey, message_id: int) -> MessageState | None:
        """See QueueStore."""
        try:
            return await self._store.cancel(queue, message_id)
        finally:
            # Whether it had ended before is not known here.
            self._counts.doubt(queue.room.tenant, Resource.MESSAGES)

    async def drain(self, queue: QueueKey) -> int:
        """See QueueStore."""
        tenant, since = queue.room.tenant, self._counts.mark()
        try:
            drained = await self._store.drain(queue)
        except BaseException:
            self._counts.doubt(tenant, Resource.MESSAGES)
            raise
        self._counts.free(tenant, Resource.MESSAGES, drained, since=since)
        return drained

    async def _make(self, queue: QueueKey, operation: Callable[[], Awaitable[T]], *places: Places) -> T:
        """Run an operation that also makes this queue if it is missing. Raises as `_add` does."""
        tenant = queue.room.tenant
        if await self._store.exists(queue):
            self._remember(queue)
            return await self._add(tenant, operation, *places)
        # Of several requests that make a queue at the same moment, the first one does.
        making = self._making.setdefault(queue, asyncio.Lock())
        try:
            async with making:
                also = () if queue in self._known else ((Resource.QUEUES, 1),)
                made = await self._add(tenant, operation, *also, *places)
                self._remember(queue)
                return made
        finally:
            if not making.locked() and self._making.get(queue) is making:
                del self._making[queue]

    async def _add(self, tenant: str, operation: Callable[[], Awaitable[T]], *places: Places) -> T:
        """Run an operation that adds so many of each resource. Raises QuotaExceededError, and what the operation raises."""
        counts, taken = self._counts, 0
        since = counts.mark()
        try:
            for resource, amount in places:
                await counts.take(tenant, resource, amount)
                taken += 1
            since = counts.mark()
            done = await operation()
        except BaseException as error:
            is_unknown = isinstance(error, asyncio.CancelledError) and taken == len(places)
            for resource, amount in places[:taken]:
                if is_unknown:
                    counts.keep(tenant, resource, amount, since=since)
                    counts.doubt(tenant, resource)
                else:
                    counts.give_back(tenant, resource, amount)
            raise
        for resource, amount in places:
            counts.keep(tenant, resource, amount, since=since)
        return done

    def _remember(self, queue: QueueKey) -> None:
        if len(self._known) >= self._most_known:
            self._known.clear()
        self._known.add(queue)
