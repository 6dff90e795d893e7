"""Queues as the room server offers them: a store, receivers that wait for messages, and the retry policy.

`meshhost.server` calls it for every queue request. A receiver looks into the store; when it is empty it waits in line
(`waiters.py`) until a hint arrives or a few seconds pass, and looks again. Hints come from sends and nacks of this process,
from the sweeper, and through the notifier from other processes over the same store. A hint goes to a waiting receiver here
first; only when none takes it is it published to the others, and a hint from others is never published again.

Two invariants. A message that was leased for a receiver that no longer wants it (cancelled, ended, stopped) is given back;
`claims.py` does that. And a hint is followed or passed on. What adds or removes queues and messages goes through `counted.py`,
for the quota of the tenant. Tasks: one sweeper from `start` to `stop`, and those of the claims. `stop` ends all waits with
None, cancels the sweeper, and waits for the claims within its timeout. What happens is reported to `observers` (`activity`).
Bodies that are too large for a row are kept by `bodies.py`.

Longer than 400 lines because every operation of the server's queue requests is one method here.
"""

import asyncio
import logging
import random as _random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from meshhost.backoff import Backoff
from meshhost.clock import Clock
from meshhost.errors import LeaseLostError
from meshhost.identity.tenant import TenantId
from meshhost.queues.activity.observer import Outcome, QueueObserver
from meshhost.queues.activity.tracer import NO_TRACER, MessageTracer
from meshhost.queues.bodies import NO_UPLOADS, BodyUpload, LargeBodies, Uploads
from meshhost.queues.claims import Claims, Wanted
from meshhost.queues.counted import CountedQueues
from meshhost.queues.reader import QueueReader
from meshhost.queues.store_check import StoreCheck
from meshhost.queues.sweeper import QueueSweeper
from meshhost.queues.values import MAX_VALUE_BYTES, check_size, size_of
from meshhost.queues.waiters import Waiter, Waiters
from meshhost.quotas.counts import UNCOUNTED, TenantCounts
from meshhost.stores.bodies.reference import is_reference
from meshhost.stores.notifier import Hint, Notifier
from meshhost.stores.queues import (
    Delay,
    Delivery,
    EndReason,
    HolderId,
    Lease,
    MessageState,
    NewMessage,
    QueueKey,
    QueueSettings,
    QueueStore,
    StoredIds,
)
from meshhost.stores.shared.refusals import queue_missing
from meshhost.tasks import TaskOwner

__all__ = ["QueueService"]

logger = logging.getLogger(__name__)

# A hint may be lost (a sender cancelled between commit and wake, a notifier that lost its connection): a receiver that waits
# looks at least this often.
_POLL_SECONDS = 5.0
# The settings that may make messages ready.
_LETS_THROUGH = frozenset({"paused", "concurrency", "rate", "burst", "key_rate"})


class QueueService(QueueReader):
    """The queues of one process over a store that others may use too.

    Store and notifier are opened before `start` and closed after `stop` by their owner. Operations raise what those of
    QueueStore raise, and QuotaExceededError where something would be added that `counts` refuses. `random` returns a number
    from 0 to 1; `lease_seconds` is for receivers that name no time.
    """

    def __init__(
        self,
        store: QueueStore,
        *,
        notifier: Notifier,
        sweeper: QueueSweeper,
        clock: Clock | None = None,
        retry: Backoff = Backoff(),  # noqa: B008 - immutable
        random: Callable[[], float] = _random.random,
        lease_seconds: float = 30.0,
        max_waiters: int = 10_000,
        max_watches: int = 10_000,
        counts: TenantCounts = UNCOUNTED,
        bodies: LargeBodies | None = None,
    ) -> None:
        super().__init__(store, bodies or LargeBodies(store, clock=clock), clock=clock, max_watches=max_watches)
        self._counted = CountedQueues(store, counts)
        self._retry = retry
        self._random = random
        self._lease_seconds = lease_seconds
        self._waiters = Waiters(max_waiters=max_waiters)
        self._notifier = notifier
        self._sweeper = sweeper
        self._check = StoreCheck(store, self._clock)
        self._sweeping = TaskOwner("queues")
        self._claims = Claims(store, self._counted, claimed_until=sweeper.tell, wake=self._wake)
        # Called, without waiting, with each queue in which a message became ready; they must not raise.
        self.on_ready: list[Callable[[QueueKey], None]] = []
        self.observers: list[QueueObserver] = []
        self.tracer: MessageTracer = NO_TRACER

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin to sweep, and to listen for the hints of other processes."""
        self._notifier.subscribe(self._waiters.wake)
        self._sweeping.spawn(self._sweeper.run(self._swept), name="sweeper")
        self.bodies.start()

    async def stop(self, *, timeout: float = 10.0) -> None:
        """End all waits with None, stop sweeping, and give back what cancelled receivers claimed.

        That takes at most `timeout` seconds for each; a message not given back by then comes back when its lease expires.
        """
        self._notifier.unsubscribe(self._waiters.wake)
        self._waiters.end_all()
        self._watches.end_all()
        await self._sweeping.stop(timeout=timeout)
        await self.bodies.stop(timeout=timeout)
        try:
            async with asyncio.timeout(timeout):
                await self._claims.wait()
        except TimeoutError:
            logger.warning("the queue store did not answer in time", extra={"timeout": timeout})
            await self._claims.stop(timeout=timeout)

    async def check(self) -> None:
        """Return when a message could be stored. Raises what the store raises when it does not work.

        That is tried at most every few seconds: the answer is kept meanwhile, as probes may come from anywhere.
        """
        await self._check()

    async def send(self, queue: QueueKey, message: NewMessage, *, create: bool = True) -> int:
        """Store the message, wake one receiver, and return the message's id."""
        (message_id,) = await self.send_many(queue, [message], create=create)
        return message_id

    async def send_many(
        self, queue: QueueKey, messages: Sequence[NewMessage], *, create: bool = True, uploads: Uploads = NO_UPLOADS
    ) -> StoredIds:
        """Store all of the messages or none, wake receivers, and return the messages' ids.

        An upload is the body of the message at its place; it is closed.
        """
        began = self._clock.time()
        messages = self.tracer.sending(queue, messages)
        if uploads or not self.bodies.are_small(messages):
            ids = await self._send_large(queue, messages, uploads, create=create)
        else:
            ids = await self._counted.send_many(queue, messages, create=create)
        for observer in self.observers:
            observer.sent(queue, ids.new)
        if ids.new:
            self.tracer.sent(queue, messages, ids, began=began)
        now = self._clock.time()
        for seconds in {message.delay for message in messages if message.delay > 0}:
            self._sweeper.tell(now + seconds)
        for seconds in {message.ttl for message in messages if message.ttl is not None}:
            self._sweeper.tell(now + seconds)
        ready = sum(message.delay <= 0 for message in messages)
        if ready:
            self._wake(Hint(queue, many=ready > 1))
        return ids

    async def _send_large(
        self, queue: QueueKey, messages: Sequence[NewMessage], uploads: Uploads, *, create: bool
    ) -> StoredIds:
        async with self.bodies.sending(queue.room, messages, uploads) as (stored, references):
            ids = await self._counted.send_many(queue, stored, create=create)
        if ids.new < len(messages):  # some were sent before, and the rows of these refer to other objects
            await self.bodies.drop(queue.room, references)
        return ids

    async def receive(
        self,
        queue: QueueKey,
        holder: HolderId,
        *,
        wait_seconds: float = 0.0,
        lease_seconds: float | None = None,
        create: bool = True,
        by: str = "",
    ) -> Delivery | None:
        """Lease the next message; see `receive_many`."""
        deliveries = await self.receive_many(
            queue, holder, limit=1, wait_seconds=wait_seconds, lease_seconds=lease_seconds, create=create, by=by
        )
        return deliveries[0] if deliveries else None

    async def receive_many(
        self,
        queue: QueueKey,
        holder: HolderId,
        *,
        limit: int,
        wait_seconds: float = 0.0,
        lease_seconds: float | None = None,
        create: bool = True,
        by: str = "",
    ) -> Sequence[Delivery]:
        """Lease up to `limit` ready messages, waiting up to `wait_seconds` for the first.

        Empty when there was none or the wait was ended. `by` is what is shown of the holder. A cancelled receiver keeps no
        message. Raises LimitExceededError when too many wait, NotFoundError when the queue is missing and `create` is false or
        when it is deleted meanwhile.
        """
        seconds = self._lease_seconds if lease_seconds is None else lease_seconds
        wanted = Wanted(queue, holder, seconds, limit, by)
        if wait_seconds <= 0:
            return self._handed_over(await self._claims.claim(wanted, create=create), by)
        waiter = self._waiters.add(queue, holder)
        try:
            deadline = self._clock.monotonic() + wait_seconds
            return self._handed_over(await self._wait(waiter, deadline, wanted, create=create), by)
        finally:
            hint = self._waiters.remove(waiter)
            if hint is not None:
                self._publish(hint)

    async def ack(self, lease: Lease, *, result: str | BodyUpload | None = None) -> None:
        """Settle the message as done, with this JSON text, or what was uploaded, as its result.

        Raises TooLargeError, InvalidRequestError, and leaves the message leased, when it cannot be the result.
        """
        if result is None or (isinstance(result, str) and size_of(result) <= MAX_VALUE_BYTES):
            is_next_ready = await self._counted.ack(lease, result=result)
        else:
            is_next_ready = await self._ack_with_large(lease, result)
        self.bodies.settled(lease)
        self._settled(lease, Outcome.DONE)
        if is_next_ready:
            self._wake(Hint(lease.queue))

    async def ack_many(self, queue: QueueKey, acks: Sequence[tuple[Lease, str | None]]) -> Sequence[bool]:
        """Settle messages of this queue as done, together. For each whether it is; False: its lease was lost.

        Raises what `ack` raises for a result; some of those with a large result may be done then.
        """
        done: dict[int, bool] = {}
        for number, (lease, result) in enumerate(acks):
            if result is not None and size_of(result) > MAX_VALUE_BYTES:
                done[number] = await self._is_acked(lease, result)
        small = [(number, ack) for number, ack in enumerate(acks) if number not in done]
        outcomes = await self._counted.ack_many(queue, [ack for _, ack in small]) if small else ()
        for (number, (lease, _)), outcome in zip(small, outcomes, strict=True):
            done[number] = outcome is not None
            if outcome is not None:
                self.bodies.settled(lease)
                self._settled(lease, Outcome.DONE)
        if ready := sum(bool(outcome) for outcome in outcomes):
            self._wake(Hint(queue, many=ready > 1))
        return [done[number] for number in range(len(acks))]

    async def _is_acked(self, lease: Lease, result: str) -> bool:
        try:
            await self.ack(lease, result=result)
        except LeaseLostError:
            return False
        return True

    async def _ack_with_large(self, lease: Lease, result: str | BodyUpload) -> bool:
        reference = await self.bodies.keep_result(lease.queue.room, result)
        try:
            return await self._counted.ack(lease, result=reference.to_text())
        except LeaseLostError:
            await self.bodies.delete(lease.queue.room, reference)
            raise

    async def nack(self, lease: Lease, *, reason: EndReason, error: str = "", delay: Delay | None = None) -> bool:
        """Settle the message as not done; return whether it was dead-lettered.

        Without a `delay` the settings of the queue, or else the retry policy, say when a FAILED one is tried again; others are
        ready at once.
        """
        seconds, is_bounded = 0.0, False

        def chosen(attempt: int, settings: QueueSettings) -> float:
            nonlocal seconds, is_bounded
            seconds, is_bounded = self._delay(attempt, settings, reason, delay), settings.concurrency is not None
            return seconds

        dead = await self._store.nack(lease, reason=reason, error=error, delay=chosen)
        failed = Outcome.FAILED if reason is EndReason.FAILED else Outcome.RETURNED
        self._settled(lease, Outcome.DEAD if dead else failed, error)
        if seconds > 0:
            self._sweeper.tell(self._clock.time() + seconds)
        if seconds <= 0 or is_bounded:
            # It is ready again, or it has ended and the next one of its key is, or one more may be in progress.
            self._wake(Hint(lease.queue))
        return dead

    async def extend(self, lease: Lease, *, seconds: float, progress: str | None = None) -> Lease:
        """Let the lease run `seconds` from now, and report progress (a JSON text) if there is any.

        The lease that is returned says whether the message was cancelled. Raises InvalidRequestError when the progress is too
        large.
        """
        check_size("progress", progress)
        extended = await self._store.extend(lease, seconds=seconds, progress=progress)
        self._sweeper.tell(extended.expires_at)
        if progress is not None:
            self._watches.tell(lease.queue, lease.message_id)
        return extended

    async def cancel(self, queue: QueueKey, message_id: int) -> MessageState | None:
        """End a message that nobody works on, or have its holder told; see QueueStore."""
        state = await self._counted.cancel(queue, message_id)
        self._watches.tell(queue, message_id)
        self.bodies.look_at(queue.room)
        if state is MessageState.CANCELLED:
            self._wake(Hint(queue))
        return state

    async def configure(self, queue: QueueKey, changes: Mapping[str, Any]) -> QueueSettings:
        """Change these settings of the queue and return all. Raises InvalidRequestError that names the setting."""
        settings = await self._store.configure(queue, changes)
        if not (settings.paused or changes.keys().isdisjoint(_LETS_THROUGH)):
            self._wake_many(queue)
        return settings

    async def pause(self, queue: QueueKey) -> None:
        """Deliver nothing of this queue until it is resumed."""
        await self.configure(queue, {"paused": True})

    async def resume(self, queue: QueueKey) -> None:
        """Deliver the messages of this queue again."""
        await self.configure(queue, {"paused": False})

    async def release_holder(self, holder: HolderId, *, reason: EndReason, grace: float = 0.0) -> Sequence[QueueKey]:
        """End the leases of a holder that is gone, now or within `grace` seconds; return the queues concerned."""
        queues = await self._store.release_holder(holder, reason=reason, grace=grace)
        for queue in queues:
            self._watches.tell(queue)
            self._ready_in(grace, queue, many=True)
        return queues

    def give_back(self, lease: Lease) -> None:
        """The delivery reached nobody: release it in the background, uncounted. A lease that was lost is ignored."""
        self._claims.give_back(lease)

    def ack_soon(self, lease: Lease) -> None:
        """Settle the message as done, in the background. A lease that was lost is ignored."""
        self._claims.in_background(self.ack(lease), lease)

    async def create(self, queue: QueueKey) -> None:
        """Create the queue if it is missing."""
        await self._counted.create(queue)

    async def delete(self, queue: QueueKey) -> None:
        """Remove the queue with its messages; receivers that wait for it get NotFoundError."""
        await self._counted.delete(queue)
        self._waiters.end_queue(queue, queue_missing(queue))
        self._watches.tell(queue)
        self.bodies.look_at(queue.room)
        # Receivers elsewhere look, find no queue, and pass the hint on to the next.
        self._publish(Hint(queue, many=True))

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """Delete all queues of a tenant, or of one of its rooms. Nobody may receive there any more."""
        await self._counted.delete_all(tenant, room)
        await self.bodies.delete_all(tenant, room)
        for observer in self.observers:
            observer.forget(tenant, room)

    async def drain(self, queue: QueueKey) -> int:
        """Delete all messages of the queue but the dead; return how many."""
        drained = await self._counted.drain(queue)
        self._watches.tell(queue)
        self.bodies.look_at(queue.room)
        return drained

    async def replay(self, queue: QueueKey, message_ids: Sequence[int] | None = None) -> int:
        """Make dead messages ready again and wake receivers; return how many."""
        count = await self._store.replay(queue, message_ids)
        if count:
            self._wake_many(queue)
        return count

    def end_waits(self, holder: HolderId) -> None:
        """Complete this holder's waiting receives with None; what one of them claimed at this moment is given back."""
        self._waiters.end_holder(holder)

    def _delay(self, attempt: int, settings: QueueSettings, reason: EndReason, delay: Delay | None) -> float:
        if callable(delay):
            return delay(attempt, settings)
        if delay is not None:
            return delay
        return self._retry_of(settings).delay(attempt, self._random) if reason is EndReason.FAILED else 0.0

    def _retry_of(self, settings: QueueSettings) -> Backoff:
        first, longest, retry = settings.retry_seconds, settings.max_retry_seconds, self._retry
        if first is None:
            return retry if longest is None else replace(retry, max_delay=longest)
        # Who sets a time expects about that time: never less than half of it.
        longest = max(first, retry.max_delay) if longest is None else longest
        return replace(retry, first_delay=first, max_delay=longest, jitter=min(retry.jitter, 0.5))

    def _swept(self, queue: QueueKey) -> None:
        self._watches.tell(queue)
        self._wake_many(queue)

    def _wake(self, hint: Hint) -> None:
        """A message became ready: wake receivers and tell those who registered with `on_ready`."""
        self._pass_on(hint)
        for tell in self.on_ready:
            tell(hint.queue)

    def _pass_on(self, hint: Hint) -> None:
        # Receivers here that have a hint already are too few for one more message: it may be for another process.
        if not self._waiters.wake(hint):
            self._publish(hint)

    def _wake_many(self, queue: QueueKey) -> None:
        self._wake(Hint(queue, many=True))

    def _publish(self, hint: Hint) -> None:
        self._notifier.publish(hint, by=self._waiters.wake)

    def _ready_in(self, seconds: float, queue: QueueKey, *, many: bool = False) -> None:
        if seconds > 0:
            self._sweeper.tell(self._clock.time() + seconds)
        else:
            self._wake(Hint(queue, many))

    def _handed_over(self, deliveries: Sequence[Delivery], by: str) -> Sequence[Delivery]:
        for delivery in deliveries:
            self._watches.tell(delivery.lease.queue, delivery.lease.message_id)
            if is_reference(delivery.body):
                self.bodies.handed_over(delivery)
            for observer in self.observers:
                observer.started(delivery)
        self.tracer.handed_over(deliveries, by)
        return deliveries

    def _settled(self, lease: Lease, outcome: Outcome, error: str = "") -> None:
        self._watches.tell(lease.queue, lease.message_id)
        self.tracer.settled(lease, outcome, error)
        for observer in self.observers:
            observer.settled(lease, outcome)

    async def _wait(self, waiter: Waiter, deadline: float, wanted: Wanted, *, create: bool) -> Sequence[Delivery]:
        # The waiter is in line before the first look into the store: a message that is sent after that look wakes it.
        while not waiter.over():
            deliveries = await self._follow(waiter, wanted, create=create)
            if deliveries:
                return deliveries
            create = False
            left = deadline - self._clock.monotonic()
            if left <= 0:
                break
            await waiter.wait(min(left, _POLL_SECONDS), self._clock)
        waiter.check()
        return []

    async def _follow(self, waiter: Waiter, wanted: Wanted, *, create: bool) -> Sequence[Delivery]:
        """Take the waiter's hint and lease. The hint is passed on when it may stand for more, or when leasing failed."""
        many = waiter.take()
        try:
            deliveries = await self._claims.claim(wanted, create=create)
        except BaseException:
            self._pass_on(Hint(waiter.queue, many=True))
            raise
        if deliveries and many:
            self._pass_on(Hint(waiter.queue, many=True))
        if waiter.over():
            self._claims.abandon(deliveries)
            return []
        return deliveries
