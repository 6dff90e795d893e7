"""Queues in this process's memory: the contract of QueueStore in its plainest form, and a fast double for tests.

Read this to understand the contract; the property tests compare every other store with it. Methods do not await anything,
so each is atomic in its event loop. Sorting and scanning are linear: this is a model, not a fast store.

Longer than 400 lines because each method of the contract is one here, and their order is that of the contract.
"""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Sequence

from meshhost.clock import Clock, SteadyTime, SystemClock
from meshhost.errors import LeaseLostError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.bodies.reference import is_reference, name_in
from meshhost.stores.memory.queue_state import MemoryMessage, MemoryQueue
from meshhost.stores.messages import (
    SENT_BY_SECONDS,
    MessagePage,
    MessageQuery,
    MessageRecord,
    MessageState,
    sent_by_mark,
)
from meshhost.stores.queue_settings import Changes, QueueSettings
from meshhost.stores.queues import (
    LONGEST_DELAY,
    DeadLetter,
    Delay,
    Deliveries,
    Delivery,
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
from meshhost.stores.shared.history import waited
from meshhost.stores.shared.poison import is_interruption, poison
from meshhost.stores.shared.refusals import (
    check_batch,
    check_message,
    check_name,
    lease_lost,
    not_open,
    queue_full,
    queue_missing,
)

__all__ = ["MemoryQueueStore"]


class MemoryQueueStore:
    """Keeps the contract of QueueStore except durability: what it holds lives as long as the object, also while closed."""

    def __init__(self, *, limits: QueueLimits = QueueLimits(), clock: Clock | None = None) -> None:  # noqa: B008 - immutable
        self._limits = limits
        self._clock = clock or SystemClock()
        self._steady = SteadyTime(self._clock)
        self._queues: dict[QueueKey, MemoryQueue] = {}
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
        self._all().setdefault(queue, MemoryQueue())

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
        (message_id,) = await self.send_many(queue, [message], create=create)
        return message_id

    async def send_many(self, queue: QueueKey, messages: Sequence[NewMessage], *, create: bool = True) -> StoredIds:
        """See QueueStore."""
        check_batch(messages)
        for message in messages:
            check_message(message, self._limits)
        if create:
            await self.create(queue)
        found, now = self._find(queue), self._steady.time()
        known = {name: first for name, (first, until) in found.sent.items() if until > now}
        new = {message.sender_id for message in messages if message.sender_id and message.sender_id not in known}
        count = len(new) + sum(not message.sender_id for message in messages)
        most = found.settings.max_depth or self._limits.max_depth
        if count and len(found.messages) + count > most:
            raise queue_full(queue, most)
        return StoredIds([self._send(found, message, now) for message in messages], new=count)

    def _send(self, found: MemoryQueue, message: NewMessage, now: float) -> int:
        first, until = found.sent.get(message.sender_id or "", (0, 0.0))
        if until > now:
            return first
        self._last_id += 1
        content = dataclasses.replace(message, headers=dict(message.headers))
        added = MemoryMessage(self._last_id, content, sent_at=self._clock.time())
        added.due = now + message.delay if message.delay > 0 else None
        added.expires = None if message.ttl is None else now + message.ttl
        found.add(added)
        if message.sender_id:
            seconds = message.remember_seconds or self._limits.remember_ids_seconds
            found.sent[message.sender_id] = (self._last_id, now + seconds)
        if message.sent_by:
            until = now + message.delay + SENT_BY_SECONDS
            found.sent[sent_by_mark(self._last_id, message.sent_by)] = (self._last_id, until)
        return self._last_id

    async def find_sent(self, queue: QueueKey, sender_id: str) -> int | None:
        """See QueueStore."""
        found = self._all().get(queue)
        first, until = (0, 0.0) if found is None else found.sent.get(sender_id, (0, 0.0))
        return first if until > self._steady.time() else None

    async def lease(
        self, queue: QueueKey, holder: HolderId, *, seconds: float, limit: int = 1, by: str = ""
    ) -> Deliveries:
        """See QueueStore."""
        found, now = self._find(queue), self._steady.time()
        if found.settings.paused:
            return Deliveries()
        if found.settings.concurrency is not None:
            in_progress = sum(message.is_leased(now) for message in found.messages.values())
            limit = min(limit, found.settings.concurrency - in_progress)
        rate, wanted = found.settings.limit(), limit
        if rate is not None:
            limit = min(limit, rate.places(found.starts.until, now))
        deliveries: list[Delivery] = []
        while len(deliveries) < limit:
            claimed = {delivery.lease.message_id for delivery in deliveries}
            ready = [message for message in found.in_order() if message.is_ready(now) and message.id not in claimed]
            if not ready:
                break
            if not self._end_instead(queue, found, ready[0], now) and not _put_off(found, ready[0], now):
                deliveries.append(self._claim(queue, found, ready[0], holder, now + seconds, by))
        is_short = limit < wanted and len(deliveries) >= limit
        if rate is not None and (deliveries or is_short):
            found.starts.start(rate, now, len(deliveries), is_short=is_short)
        in_order = sorted(deliveries, key=lambda delivery: (-delivery.priority, delivery.lease.message_id))
        return Deliveries(in_order, next_at=found.starts.wake_at if is_short else None)

    def _end_instead(self, queue: QueueKey, found: MemoryQueue, message: MemoryMessage, now: float) -> bool:
        """Note that the last lease expired, if it did; end a message that is not to be handed out, and return True."""
        has_expired = message.holder is not None
        if has_expired:
            message.note(EndReason.EXPIRED, "", self._clock.time())
            message.holder = None
        if message.is_cancelled:
            found.end(message, MessageState.CANCELLED, self._clock.time(), now)
        elif message.is_over(now):
            found.end(message, MessageState.EXPIRED, self._clock.time(), now)
        else:
            return has_expired and self._interrupt(queue, message, EndReason.EXPIRED)
        return True

    def _claim(
        self, queue: QueueKey, found: MemoryQueue, message: MemoryMessage, holder: HolderId, until: float, by: str
    ) -> Delivery:
        now, since = self._steady.time(), message.since if message.due is None else message.due
        seconds = waited(self._clock.time() - message.sent_at, None if since is None else now - since, message.ended)
        message.token += 1
        message.holder, message.due = holder, until
        message.began_at, message.by, message.progress = self._clock.time(), by, None
        return Delivery(
            lease=Lease(queue, message.id, message.token, holder, until),
            body=message.content.body,
            headers=dict(message.content.headers),
            attempt=message.failures + 1,
            delivery=message.ended + 1,
            sent_at=message.sent_at,
            priority=message.content.priority,
            key=message.key,
            deadline=found.settings.deadline,
            waited=seconds,
        )

    async def ack(self, lease: Lease, *, result: str | None = None) -> bool:
        """See QueueStore."""
        found, message = self._leased(lease)
        now = self._steady.time()
        follows = found.end(message, MessageState.DONE, self._clock.time(), now, result=result)
        return follows or found.settings.concurrency is not None

    async def ack_many(self, acks: Sequence[tuple[Lease, str | None]]) -> Sequence[bool | None]:
        """See QueueStore."""
        outcomes: list[bool | None] = []
        for lease, result in acks:
            try:
                outcomes.append(await self.ack(lease, result=result))
            except LeaseLostError:
                outcomes.append(None)
        return outcomes

    async def nack(self, lease: Lease, *, reason: EndReason, error: str = "", delay: Delay = 0.0) -> bool:
        """See QueueStore."""
        found, message = self._leased(lease)
        now = self._steady.time()
        if reason is not EndReason.RELEASED:
            message.note(reason, error, self._clock.time())
        message.failures += reason is EndReason.FAILED
        if message.is_cancelled:
            found.end(message, MessageState.CANCELLED, self._clock.time(), now)
            return False
        if reason is EndReason.FAILED and message.failures >= (
            found.settings.max_attempts or self._limits.max_attempts
        ):
            found.bury(message, error, self._clock.time())
            return True
        if self._interrupt(lease.queue, message, reason):
            return True
        seconds = delay(max(message.failures, 1), found.settings) if callable(delay) else delay
        message.make_ready(now, at=now + seconds if seconds > 0 else None)
        return False

    async def extend(self, lease: Lease, *, seconds: float, progress: str | None = None) -> Lease:
        """See QueueStore."""
        _, message = self._leased(lease)
        message.due = self._steady.time() + seconds
        message.progress = message.progress if progress is None else progress
        return dataclasses.replace(lease, expires_at=message.due, is_cancelled=message.is_cancelled)

    async def release_holder(self, holder: HolderId, *, reason: EndReason, grace: float = 0.0) -> Sequence[QueueKey]:
        """See QueueStore."""
        now = self._steady.time()
        touched = set()
        for queue, message in self._each():
            if message.holder != holder:
                continue
            touched.add(queue)
            if grace <= 0:
                if reason is not EndReason.RELEASED:
                    message.note(reason, "", self._clock.time())
                if message.is_cancelled:
                    self._queues[queue].end(message, MessageState.CANCELLED, self._clock.time(), now)
                elif not self._interrupt(queue, message, reason):
                    message.make_ready(now)
            elif message.due is not None:
                message.due = min(message.due, now + grace)
        return sorted(touched)

    async def get(self, queue: QueueKey, message_id: int) -> MessageRecord | None:
        """See QueueStore."""
        records = self._records(queue)
        return next((record for record in records if record.id == message_id), None)

    async def find(self, queue: QueueKey, query: MessageQuery) -> MessagePage:
        """See QueueStore."""
        records = sorted(self._records(queue), key=lambda record: record.id, reverse=True)
        older = [record for record in records if query.before is None or record.id < query.before]
        fitting = [dataclasses.replace(record, history=()) for record in older if query.fits(record)]
        page = fitting[: query.limit]
        return MessagePage(page, page[-1].id if len(fitting) > len(page) else None)

    async def peek(self, queue: QueueKey, *, limit: int) -> Sequence[MessageRecord]:
        """See QueueStore."""
        now = self._steady.time()
        shift = self._clock.time() - now
        ready = [message for message in self._find(queue).in_order() if message.is_ready(now)]
        return [dataclasses.replace(message.record(now, shift), history=()) for message in ready[:limit]]

    async def cancel(self, queue: QueueKey, message_id: int) -> MessageState | None:
        """See QueueStore."""
        found, now = self._find(queue), self._steady.time()
        if (message := found.messages.get(message_id)) is not None:
            if message.is_leased(now):
                message.is_cancelled = True
                return MessageState.LEASED
            if message.holder is not None:
                message.note(EndReason.EXPIRED, "", self._clock.time())
            found.end(message, MessageState.CANCELLED, self._clock.time(), now)
        elif message_id in found.dead:
            message, letter = found.dead.pop(message_id)
            found.remember(found.dead_record(message, letter), MessageState.CANCELLED, self._clock.time(), now)
        else:
            record = await self.get(queue, message_id)
            return None if record is None else record.state
        return MessageState.CANCELLED

    async def settings(self, queue: QueueKey) -> QueueSettings:
        """See QueueStore."""
        return self._find(queue).settings

    async def configure(self, queue: QueueKey, changes: Changes) -> QueueSettings:
        """See QueueStore."""
        found = self._find(queue)
        settings = found.settings.changed(changes)
        if settings.limit() != found.settings.limit():
            found.starts.until, found.starts.wake_at = 0.0, None
        if settings.key_rate != found.settings.key_rate:
            for message in found.messages.values():
                is_waiting = message.key is not None and message.holder is None and not message.is_held_back
                if (
                    is_waiting
                    and message.due is not None
                    and message.due == found.starts.put_off.get(message.key or "")
                ):
                    message.make_ready(self._steady.time())
            found.starts.keys.clear()
            found.starts.put_off.clear()
        found.settings = settings
        return settings

    async def sweep(self) -> Sequence[QueueKey]:
        """See QueueStore."""
        self._follow_the_clock()
        now = self._steady.time()
        ready = set()
        for queue, found in self._all().items():
            found.sent = {name: entry for name, entry in found.sent.items() if entry[1] > now}
            found.ended = {number: entry for number, entry in found.ended.items() if entry[1] > now}
            for message in found.in_order():
                if message.is_over(now) and found.end(message, MessageState.EXPIRED, self._clock.time(), now):
                    ready.add(queue)
            if found.starts.sweep(now):
                ready.add(queue)
            for message in found.messages.values():
                if message.due is not None and message.is_ready(now):
                    message.due, message.since = None, message.due
                    ready.add(queue)
        return sorted(ready)

    async def next_due(self) -> float | None:
        """See QueueStore."""
        dues = [message.due for _, message in self._each() if message.due is not None and not message.is_held_back]
        ends = [
            message.expires for _, message in self._each() if message.expires is not None and message.holder is None
        ]
        wakes = [queue.starts.wake_at for queue in self._all().values() if queue.starts.wake_at is not None]
        return min([*dues, *ends, *wakes], default=None)

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

    async def overview(self, tenant: TenantId | None = None) -> Sequence[tuple[RoomKey, QueueStats]]:
        """See QueueStore."""
        now, steady = self._clock.time(), self._steady.time()
        mine = sorted((key, queue) for key, queue in self._all().items() if tenant in (None, key.room.tenant))
        return [(key.room, _stats(key.name, queue, now, steady)) for key, queue in mine]

    async def rooms_with_work(self, *, within: float, room: RoomKey | None = None) -> Sequence[RoomKey]:
        """See QueueStore."""
        soon = self._steady.time() + within
        busy = {
            key.room
            for key, message in self._each()
            if message.holder is not None or (message.is_ready(soon) and not self._queues[key].settings.paused)
        }
        return sorted(found for found in busy if room is None or found == room)

    async def rooms_of(self, tenant: TenantId) -> Sequence[str]:
        """See QueueStore."""
        return sorted({key.room.name for key in self._all() if key.room.tenant == tenant})

    async def totals(self) -> QueueStats:
        """See QueueStore."""
        everything = MemoryQueue()
        for queue in self._all().values():
            everything.messages |= queue.messages
            everything.dead |= queue.dead
        return _stats("", everything, self._clock.time(), self._steady.time())

    async def of_tenant(self, tenant: TenantId) -> TenantQueues:
        """See QueueStore."""
        mine = [queue for key, queue in self._all().items() if key.room.tenant == tenant]
        return TenantQueues(len(mine), sum(len(queue.messages) + len(queue.dead) for queue in mine))

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
        for message_id in sorted(wanted):
            message, _ = found.dead.pop(message_id)
            message.failures = message.interruptions = 0
            message.expires = None
            found.add(message)
        return len(wanted)

    async def stored(self, queue: QueueKey, *, after: int, limit: int, max_bytes: int) -> Sequence[StoredMessage]:
        """See QueueStore."""
        found, shift = self._find(queue), self._clock.time() - self._steady.time()
        everything = [message.stored(None, shift) for message in found.messages.values()]
        everything += [message.stored(letter, shift) for message, letter in found.dead.values()]
        later = sorted((one for one in everything if one.id > after), key=lambda one: one.id)[:limit]
        sizes = itertools.accumulate((len(one.body.encode()) for one in later), initial=0)
        return [one for one, size in zip(later, sizes, strict=False) if size < max_bytes]

    async def restore(self, queue: QueueKey, messages: Sequence[StoredMessage]) -> None:
        """See QueueStore."""
        contents = [
            NewMessage(message.body, dict(message.headers), priority=message.priority, key=message.key)
            for message in messages
        ]
        for content in contents:
            check_message(content, self._limits)
        await self.create(queue)
        found, now, steady = self._queues[queue], self._clock.time(), self._steady.time()
        for old, content in zip(messages, contents, strict=True):
            self._last_id += 1
            message = MemoryMessage(
                self._last_id, content, old.sent_at, old.attempts, old.interruptions, old.deliveries
            )
            if old.died_at is not None:
                found.dead[message.id] = (message, message.letter(old.reason or "", old.died_at))
                continue
            if old.due_at is not None and old.due_at > now:
                message.due = steady + min(old.due_at - now, LONGEST_DELAY)
            if old.expires_at is not None:
                message.expires = steady + max(old.expires_at - now, 0.0)
            found.add(message)

    async def referred(self, names: Collection[str]) -> Collection[str]:
        """See QueueStore."""
        rows = (record for queue in self._all() for record in self._records(queue))
        texts = (text for record in rows for text in (record.body, record.result) if text and is_reference(text))
        return {name_in(text) for text in texts} & set(names)

    def _follow_the_clock(self) -> None:
        if not (jump := self._steady.jump()):
            return
        for _, message in self._each():
            message.due = None if message.due is None else message.due + jump
            message.expires = None if message.expires is None else message.expires + jump
        for queue in self._all().values():
            queue.sent = {name: (first, until + jump) for name, (first, until) in queue.sent.items()}
            queue.starts.move(jump)
            queue.ended = {number: (record, until + jump) for number, (record, until) in queue.ended.items()}
        self._steady.follow(jump)

    def _all(self) -> dict[QueueKey, MemoryQueue]:
        if not self._open:
            raise not_open()
        return self._queues

    def _each(self) -> Iterable[tuple[QueueKey, MemoryMessage]]:
        return [(key, message) for key, queue in self._all().items() for message in queue.messages.values()]

    def _find(self, queue: QueueKey) -> MemoryQueue:
        if (found := self._all().get(queue)) is None:
            raise queue_missing(queue)
        return found

    def _records(self, queue: QueueKey) -> list[MessageRecord]:
        steady = self._steady.time()
        return self._find(queue).records(steady, self._clock.time() - steady)

    def _leased(self, lease: Lease) -> tuple[MemoryQueue, MemoryMessage]:
        found = self._all().get(lease.queue, MemoryQueue())
        message = found.messages.get(lease.message_id)
        if message is None or (message.token, message.holder) != (lease.token, lease.holder):
            raise lease_lost(lease)
        return found, message

    def _interrupt(self, queue: QueueKey, message: MemoryMessage, reason: EndReason) -> bool:
        """Count how a delivery ended; bury the message, and return True, when that was one interruption too many."""
        message.interruptions += is_interruption(reason)
        if not is_interruption(reason) or message.interruptions < self._limits.max_interruptions:
            return False
        self._queues[queue].bury(message, poison(queue, message.interruptions), self._clock.time())
        return True


def _put_off(found: MemoryQueue, message: MemoryMessage, now: float) -> bool:
    """Put a message off when its key has no start left, and return True."""
    limit = found.settings.key_limit()
    if limit is None or message.key is None:
        return False
    until = found.starts.start_key(message.key, limit, now)
    if until is not None:
        message.make_ready(now, at=until)
    return until is not None


def _place(letter: DeadLetter) -> tuple[float, int]:
    return letter.died_at, letter.message_id


def _stats(name: str, queue: MemoryQueue, now: float, steady: float) -> QueueStats:
    states = [message.state(steady) for message in queue.messages.values()]
    oldest = min(queue.messages.values(), key=lambda message: message.id, default=None)
    return QueueStats(
        name=name,
        ready=states.count(MessageState.READY),
        leased=states.count(MessageState.LEASED),
        delayed=states.count(MessageState.DELAYED) + states.count(MessageState.FAILED),
        dead=len(queue.dead),
        oldest_age=max(now - oldest.sent_at, 0.0) if oldest else None,
        blocked=states.count(MessageState.BLOCKED),
        is_paused=queue.settings.paused,
    )
