"""The operations of a queue store that add or remove queues and messages, counted for the quota of their tenant.

`QueueService` uses it for exactly those operations. A message takes its place before it is stored and frees it when it is acked
or drained; a message that dies keeps it. Whether an operation makes a queue is only known to the store, so it is asked once for
each queue that this process has not seen; from then on the queue is known, and a send costs no further query.

An operation whose caller was cancelled may have happened or not: then the tenant is counted again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from meshhost.errors import QuotaExceededError
from meshhost.identity.tenant import TenantId
from meshhost.quotas.counts import TenantCounts
from meshhost.quotas.quota import Resource
from meshhost.stores.queues import Lease, NewMessage, QueueKey, QueueStore

__all__ = ["CountedQueues"]

T = TypeVar("T")

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

    async def send(self, queue: QueueKey, message: NewMessage, *, create: bool) -> int:
        """See QueueStore."""

        def operation() -> Awaitable[int]:
            return self._store.send(queue, message, create=create)

        if create and queue not in self._known:
            sending = self._make(queue, operation, Resource.MESSAGES)
        else:
            sending = self._add(queue.room.tenant, operation, Resource.MESSAGES)
        try:
            return await sending
        except QuotaExceededError:
            # It may be one that was stored before, sent again because the answer was lost.
            if message.sender_id and (first := await self._store.find_sent(queue, message.sender_id)) is not None:
                return first
            raise

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

    async def ack(self, lease: Lease) -> None:
        """See QueueStore."""
        tenant, since = lease.queue.room.tenant, self._counts.mark()
        try:
            await self._store.ack(lease)
        except asyncio.CancelledError:
            self._counts.doubt(tenant, Resource.MESSAGES)
            raise
        self._counts.free(tenant, Resource.MESSAGES, since=since)

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

    async def _make(self, queue: QueueKey, operation: Callable[[], Awaitable[T]], *resources: Resource) -> T:
        """Run an operation that also makes this queue if it is missing. Raises as `_add` does."""
        tenant = queue.room.tenant
        if await self._store.exists(queue):
            self._remember(queue)
            return await self._add(tenant, operation, *resources)
        # Of several requests that make a queue at the same moment, the first one does.
        making = self._making.setdefault(queue, asyncio.Lock())
        try:
            async with making:
                also = () if queue in self._known else (Resource.QUEUES,)
                made = await self._add(tenant, operation, *also, *resources)
                self._remember(queue)
                return made
        finally:
            if not making.locked() and self._making.get(queue) is making:
                del self._making[queue]

    async def _add(self, tenant: str, operation: Callable[[], Awaitable[T]], *resources: Resource) -> T:
        """Run an operation that adds one of each resource. Raises QuotaExceededError, and what the operation raises."""
        counts, taken = self._counts, 0
        since = counts.mark()
        try:
            for resource in resources:
                await counts.take(tenant, resource)
                taken += 1
            since = counts.mark()
            done = await operation()
        except BaseException as error:
            is_unknown = isinstance(error, asyncio.CancelledError) and taken == len(resources)
            for resource in resources[:taken]:
                if is_unknown:
                    counts.keep(tenant, resource, since=since)
                    counts.doubt(tenant, resource)
                else:
                    counts.give_back(tenant, resource)
            raise
        for resource in resources:
            counts.keep(tenant, resource, since=since)
        return done

    def _remember(self, queue: QueueKey) -> None:
        if len(self._known) >= self._most_known:
            self._known.clear()
        self._known.add(queue)
