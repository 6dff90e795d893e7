"""Queues in this process's memory: the contract of QueueStore in its plainest form, and a fast double for tests.

Read this to understand the contract; the property tests compare every other store with it. Methods do not await anything,
so each is atomic in its event loop. Sorting and scanning are linear: this is a model, not a fast store.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from meshhost.clock import Clock, SteadyTime, SystemClock
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
from meshhost.stores.refusals import check_message, check_name, lease_lost, not_open, queue_full, queue_missing

__all__ = ["MemoryQueueStore"]


@dataclass(slots=True)
class _Message:
    id: int
    content: NewMessage
    sent_at: float
    failures: int = 0
    interruptions: int = 0
    ended: int = 0  # deliveries that ended without an ack
    token: int = 0
    holder: HolderId | None = None  # the last to lease it, until that lease is settled, released or taken over
    due: float | None = None  # when time makes it ready: its lease expires or its retry comes; None: it is ready

    def is_ready(self, now: float) -> bool:
        return self.due is None or self.due <= now

    def make_ready(self, *, at: float | None = None) -> None:
        self.holder, self.due = None, at


@dataclass(slots=True)
class _Queue:
    messages: dict[int, _Message] = field(default_factory=dict)
    dead: dict[int, tuple[_Message, DeadLetter]] = field(default_factory=dict)
    # By the sender's id: the message, and until when that is remembered.
    sent: dict[str, tuple[int, float]] = field(default_factory=dict)

    def in_order(self) -> list[_Message]:
        return sorted(self.messages.values(), key=lambda message: message.id)


class MemoryQueueStore:
    """Keeps the contract of QueueStore except durability: what it holds lives as long as the object, also while closed."""

    def __init__(self, *, limits: QueueLimits = QueueLimits(), clock: Clock | None = None) -> None:  # noqa: B008 - immutable
        self._limits = limits
        self._clock = clock or SystemClock()
        self._steady = SteadyTime(self._clock)
        self._queues: dict[QueueKey, _Queue] = {}
        self._last_id = 0
        self._open = False

    async def open(self) -> None:
        """Accept operations from now on."""
        self._open = True

    async def close(self) -> None:
        """Refuse operations from now on; the messages stay."""
        self._open = False

    async def check(self) -> None:
        """See QueueStore."""
        self._all()

    async def create(self, queue: QueueKey) -> None:
        """See QueueStore."""
        check_name(queue)
        self._all().setdefault(queue, _Queue())

    async def delete(self, queue: QueueKey) -> None:
        """See QueueStore."""
        self._find(queue)
        del self._queues[queue]

    async def exists(self, queue: QueueKey) -> bool:
        """See QueueStore."""
        return queue in self._all()

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See QueueStore."""
        kept = {key: queue for key, queue in self._all().items() if not key.room.is_of(tenant, room)}
        self._queues = kept

    async def send(self, queue: QueueKey, message: NewMessage, *, create: bool = True) -> int:
        """See QueueStore."""
        check_message(message, self._limits)
        if create:
            await self.create(queue)
        found, now = self._find(queue), self._steady.time()
        first, until = found.sent.get(message.sender_id or "", (0, 0.0))
        if until > now:
            return first
        if len(found.messages) >= self._limits.max_depth:
            raise queue_full(queue, self._limits)
        self._last_id += 1
        content = NewMessage(message.body, dict(message.headers))
        found.messages[self._last_id] = _Message(self._last_id, content, sent_at=self._clock.time())
        if message.sender_id:
            found.sent[message.sender_id] = (self._last_id, now + self._limits.remember_ids_seconds)
        return self._last_id

    async def find_sent(self, queue: QueueKey, sender_id: str) -> int | None:
        """See QueueStore."""
        found = self._all().get(queue)
        first, until = (0, 0.0) if found is None else found.sent.get(sender_id, (0, 0.0))
        return first if until > self._steady.time() else None

    async def lease(self, queue: QueueKey, holder: HolderId, *, seconds: float, limit: int = 1) -> Sequence[Delivery]:
        """See QueueStore."""
        now = self._steady.time()
        deliveries: list[Delivery] = []
        for message in self._find(queue).in_order():
            if len(deliveries) < limit and message.is_ready(now):
                expired = message.holder is not None
                message.ended += expired
                if not (expired and self._interrupt(queue, message, EndReason.EXPIRED)):
                    deliveries.append(_claim(queue, message, holder, now + seconds))
        return deliveries

    async def ack(self, lease: Lease) -> None:
        """See QueueStore."""
        messages, message = self._leased(lease)
        del messages[message.id]

    async def nack(self, lease: Lease, *, reason: EndReason, error: str = "", delay: Delay = 0.0) -> bool:
        """See QueueStore."""
        _, message = self._leased(lease)
        now = self._steady.time()
        message.ended += reason is not EndReason.RELEASED
        message.failures += reason is EndReason.FAILED
        if reason is EndReason.FAILED and message.failures >= self._limits.max_attempts:
            self._bury(lease.queue, message, error)
            return True
        if self._interrupt(lease.queue, message, reason):
            return True
        seconds = delay(max(message.failures, 1)) if callable(delay) else delay
        message.make_ready(at=now + seconds if seconds > 0 else None)
        return False

    async def extend(self, lease: Lease, *, seconds: float) -> Lease:
        """See QueueStore."""
        _, message = self._leased(lease)
        message.due = self._steady.time() + seconds
        return Lease(lease.queue, message.id, message.token, lease.holder, message.due)

    async def release_holder(self, holder: HolderId, *, reason: EndReason, grace: float = 0.0) -> Sequence[QueueKey]:
        """See QueueStore."""
        soon = self._steady.time() + grace
        touched = set()
        for queue, message in self._each():
            if message.holder != holder:
                continue
            touched.add(queue)
            if grace <= 0:
                message.ended += reason is not EndReason.RELEASED
                if not self._interrupt(queue, message, reason):
                    message.make_ready()
            elif message.due is not None:
                message.due = min(message.due, soon)
        return sorted(touched)

    async def sweep(self) -> Sequence[QueueKey]:
        """See QueueStore."""
        self._follow_the_clock()
        now = self._steady.time()
        for found in self._all().values():
            found.sent = {name: entry for name, entry in found.sent.items() if entry[1] > now}
        due = [(queue, message) for queue, message in self._each() if message.due is not None and message.due <= now]
        for _, message in due:
            message.due = None
        return sorted({queue for queue, _ in due})

    async def next_due(self) -> float | None:
        """See QueueStore."""
        return min((message.due for _, message in self._each() if message.due is not None), default=None)

    async def drain(self, queue: QueueKey) -> int:
        """See QueueStore."""
        messages = self._find(queue).messages
        count = len(messages)
        messages.clear()
        return count

    async def stats(self, room: RoomKey) -> Sequence[QueueStats]:
        """See QueueStore."""
        now, steady = self._clock.time(), self._steady.time()
        mine = sorted((key.name, queue) for key, queue in self._all().items() if key.room == room)
        return [_stats(name, queue, now, steady) for name, queue in mine]

    async def of_tenant(self, tenant: TenantId) -> TenantQueues:
        """See QueueStore."""
        mine = [queue for key, queue in self._all().items() if key.room.tenant == tenant]
        return TenantQueues(len(mine), sum(len(queue.messages) + len(queue.dead) for queue in mine))

    async def rooms_with_work(self, *, within: float, room: RoomKey | None = None) -> Sequence[RoomKey]:
        """See QueueStore."""
        soon = self._steady.time() + within
        busy = {key.room for key, message in self._each() if message.is_ready(soon) or message.holder is not None}
        return sorted(found for found in busy if room is None or found == room)

    async def rooms_of(self, tenant: TenantId) -> Sequence[str]:
        """See QueueStore."""
        return sorted({key.room.name for key in self._all() if key.room.tenant == tenant})

    async def totals(self) -> QueueStats:
        """See QueueStore."""
        everything = _Queue()
        for queue in self._all().values():
            everything.messages |= queue.messages
            everything.dead |= queue.dead
        return _stats("", everything, self._clock.time(), self._steady.time())

    async def dead_letters(
        self,
        queue: QueueKey,
        *,
        limit: int = 100,
        before: tuple[float, int] | None = None,
        max_bytes: int | None = None,
    ) -> Sequence[DeadLetter]:
        """See QueueStore."""
        letters = sorted((letter for _, letter in self._find(queue).dead.values()), key=_place, reverse=True)
        older = [letter for letter in letters if before is None or _place(letter) < before][:limit]
        sizes = itertools.accumulate((len(letter.body) + len(letter.reason) for letter in older), initial=0)
        return [letter for letter, size in zip(older, sizes, strict=False) if max_bytes is None or size < max_bytes]

    async def replay(self, queue: QueueKey, message_ids: Sequence[int] | None = None) -> int:
        """See QueueStore."""
        found = self._find(queue)
        wanted = [message_id for message_id in found.dead if message_ids is None or message_id in message_ids]
        for message_id in wanted:
            message, _ = found.dead.pop(message_id)
            message.failures = message.interruptions = 0
            found.messages[message_id] = message
        return len(wanted)

    def _follow_the_clock(self) -> None:
        if not (jump := self._steady.jump()):
            return
        for _, message in self._each():
            if message.due is not None:
                message.due += jump
        for queue in self._all().values():
            queue.sent = {name: (first, until + jump) for name, (first, until) in queue.sent.items()}
        self._steady.follow(jump)

    def _all(self) -> dict[QueueKey, _Queue]:
        if not self._open:
            raise not_open()
        return self._queues

    def _each(self) -> Iterable[tuple[QueueKey, _Message]]:
        return [(key, message) for key, queue in self._all().items() for message in queue.messages.values()]

    def _find(self, queue: QueueKey) -> _Queue:
        if (found := self._all().get(queue)) is None:
            raise queue_missing(queue)
        return found

    def _leased(self, lease: Lease) -> tuple[dict[int, _Message], _Message]:
        messages = self._all().get(lease.queue, _Queue()).messages
        message = messages.get(lease.message_id)
        if message is None or (message.token, message.holder) != (lease.token, lease.holder):
            raise lease_lost(lease)
        return messages, message

    def _interrupt(self, queue: QueueKey, message: _Message, reason: EndReason) -> bool:
        """Count how a delivery ended; bury the message, and return True, when that was one interruption too many."""
        message.interruptions += is_interruption(reason)
        if not is_interruption(reason) or message.interruptions < self._limits.max_interruptions:
            return False
        self._bury(queue, message, poison(queue, message.interruptions))
        return True

    def _bury(self, queue: QueueKey, message: _Message, reason: str) -> None:
        found = self._queues[queue]
        del found.messages[message.id]
        message.make_ready()
        found.dead[message.id] = (message, _dead_letter(message, reason, self._clock.time()))


def _place(letter: DeadLetter) -> tuple[float, int]:
    return letter.died_at, letter.message_id


def _claim(queue: QueueKey, message: _Message, holder: HolderId, until: float) -> Delivery:
    message.token += 1
    message.holder, message.due = holder, until
    return Delivery(
        lease=Lease(queue, message.id, message.token, holder, until),
        body=message.content.body,
        headers=dict(message.content.headers),
        attempt=message.failures + 1,
        delivery=message.ended + 1,
        sent_at=message.sent_at,
    )


def _stats(name: str, queue: _Queue, now: float, steady: float) -> QueueStats:
    messages = queue.in_order()
    waiting = [message for message in messages if not message.is_ready(steady)]
    leased = sum(message.holder is not None for message in waiting)
    return QueueStats(
        name=name,
        ready=len(messages) - len(waiting),
        leased=leased,
        delayed=len(waiting) - leased,
        dead=len(queue.dead),
        oldest_age=max(now - messages[0].sent_at, 0.0) if messages else None,
    )


def _dead_letter(message: _Message, reason: str, now: float) -> DeadLetter:
    return DeadLetter(
        message_id=message.id,
        body=message.content.body,
        headers=message.content.headers,
        attempts=message.failures,
        reason=reason,
        sent_at=message.sent_at,
        died_at=now,
    )
