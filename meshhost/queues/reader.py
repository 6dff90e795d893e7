"""What is read of the queues without changing them: their contents, and what becomes of a message.

`QueueService` is a `QueueReader` that also changes them. Reading goes straight to the store, except for `wait`, which returns
when a message has ended: `watches.py` says when it looks.
"""

import hashlib
from collections.abc import Sequence

from meshhost.clock import Clock, SystemClock
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.bodies import LargeBodies
from meshhost.queues.watches import Watches
from meshhost.stores.messages import ENDED, MessagePage, MessageQuery, MessageRecord, sent_by_mark
from meshhost.stores.queue_settings import QueueSettings
from meshhost.stores.queues import DeadLetter, QueueKey, QueueStats, QueueStore

__all__ = ["QueueReader", "fingerprint"]


def fingerprint(record: MessageRecord | None) -> str:
    """Return a short text that differs when a message's state, present delivery or progress does."""
    if record is None:
        return ""
    facts = (record.state, record.began_at, record.deliveries, record.failures, record.is_cancelling, record.progress)
    return hashlib.sha256(repr(facts).encode(errors="surrogatepass")).hexdigest()[:16]


class QueueReader:
    """The queues of a store, to look at. Operations raise what those of QueueStore raise."""

    def __init__(
        self, store: QueueStore, bodies: LargeBodies, *, clock: Clock | None = None, max_watches: int = 10_000
    ) -> None:
        self._store = store
        self.bodies = bodies
        self._clock = clock or SystemClock()
        self._watches = Watches(most=max_watches)

    @property
    def store(self) -> QueueStore:
        """The store, for archives: they are written and imported beside all receivers."""
        return self._store

    @property
    def watching(self) -> int:
        """How many `wait` calls wait at this moment."""
        return self._watches.count

    async def exists(self, queue: QueueKey) -> bool:
        """Return whether the queue exists."""
        return await self._store.exists(queue)

    async def stats(self, room: RoomKey) -> Sequence[QueueStats]:
        """Return what is in each queue of a room, by name."""
        return await self._store.stats(room)

    async def overview(self, tenant: TenantId | None = None) -> Sequence[tuple[RoomKey, QueueStats]]:
        """Return what is in each queue of a tenant, or of all, by tenant, room and name."""
        return await self._store.overview(tenant)

    async def rooms_with_work(self, *, within: float, room: RoomKey | None = None) -> Sequence[RoomKey]:
        """Return the rooms (of all, or of this one) with a message that is ready, leased, or ready within `within` seconds."""
        return await self._store.rooms_with_work(within=within, room=room)

    async def rooms_of(self, tenant: TenantId) -> Sequence[str]:
        """Return the names of the tenant's rooms that have a queue, sorted."""
        return await self._store.rooms_of(tenant)

    async def totals(self) -> QueueStats:
        """Return the sum over all queues of all rooms."""
        return await self._store.totals()

    async def dead_letters(
        self,
        queue: QueueKey,
        *,
        limit: int = 100,
        before: tuple[float, int] | None = None,
        max_bytes: int | None = None,
    ) -> Sequence[DeadLetter]:
        """Return the dead messages of a queue, newest first, or a page of them."""
        return await self._store.dead_letters(queue, limit=limit, before=before, max_bytes=max_bytes)

    async def settings(self, queue: QueueKey) -> QueueSettings:
        """Return what is set for the queue."""
        return await self._store.settings(queue)

    async def get(self, queue: QueueKey, message_id: int) -> MessageRecord | None:
        """Return what is known of a message; None when nothing is (any more)."""
        return await self._store.get(queue, message_id)

    async def is_sent_by(self, queue: QueueKey, message_id: int, sent_by: str) -> bool:
        """Return whether the message was sent with this `sent_by`, as long as that is known."""
        return await self._store.find_sent(queue, sent_by_mark(message_id, sent_by)) == message_id

    async def find(self, queue: QueueKey, query: MessageQuery) -> MessagePage:
        """Return a page of the messages that fit, the newest first."""
        return await self._store.find(queue, query)

    async def peek(self, queue: QueueKey, *, limit: int) -> Sequence[MessageRecord]:
        """Return the messages that are delivered next, in their order, without leasing them."""
        return await self._store.peek(queue, limit=limit)

    async def wait(
        self, queue: QueueKey, message_id: int, seconds: float, *, seen: str | None = None
    ) -> MessageRecord | None:
        """Return what is known of a message when it has ended, or after `seconds` as it is; None: nothing is known of it.

        `seen` is the `fingerprint` of what the caller knows of it: then a change of state or progress is returned as well. A
        caller that is cancelled leaves nothing behind. Raises LimitExceededError when too many wait.
        """
        deadline = self._clock.monotonic() + seconds
        with self._watches.watching(queue, message_id) as watch:
            while True:
                watch.begin()
                record = await self._store.get(queue, message_id)
                left = deadline - self._clock.monotonic()
                is_news = record is None or record.state in ENDED or seen not in (None, fingerprint(record))
                if is_news or watch.is_over or left <= 0:
                    return record
                await watch.wait(min(left, self._watches.pause), self._clock)
