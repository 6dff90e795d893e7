"""Queues as the room server offers them: a store, and receivers that wait."""

import asyncio
import logging
import random as _random
from collections.abc import Callable, Sequence
from typing import Self

from meshhost.clock import Clock, SystemClock
from meshhost.errors import LeaseLostError, NotFoundError, RequestTimeoutError
from meshhost.identity.tenant import RoomKey
from meshhost.queues.retry import RetryPolicy
from meshhost.queues.sweeper import QueueSweeper
from meshhost.stores.notifier import QueueNotifier, QueueWaiter
from meshhost.stores.queues import (
    DeadLetter,
    Delay,
    Delivery,
    EndReason,
    HolderId,
    Lease,
    NewMessage,
    QueueBackend,
    QueueKey,
    QueueStats,
)
from meshhost.stores.refusals import queue_missing
from meshhost.tasks import TaskOwner

__all__ = ["QueueService"]

logger = logging.getLogger(__name__)

# A hint may be lost (a sender cancelled between commit and wake): whoever waits looks at least this often.
_POLL_SECONDS = 5.0


class QueueService:
    """A queue store with waiting receivers, a retry policy and a sweeper, for one process.

    The store is opened and closed by whoever made it: before `start`, after `stop`. Operations raise what those of
    QueueBackend raise. `random` returns a number from 0 to 1; `lease_seconds` is for receivers that name no time.
    """

    def __init__(
        self,
        backend: QueueBackend,
        *,
        clock: Clock | None = None,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - immutable
        random: Callable[[], float] = _random.random,
        lease_seconds: float = 30.0,
        max_waiters: int = 10_000,
    ) -> None:
        self._backend = backend
        self._clock = clock or SystemClock()
        self._retry = retry
        self._random = random
        self._lease_seconds = lease_seconds
        self._notifier = QueueNotifier(max_waiters=max_waiters)
        self._sweeper = QueueSweeper(backend, self._wake_many, clock=self._clock)
        self._sweeping = TaskOwner("queues")
        self._claims = TaskOwner("queue claims")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin to sweep."""
        self._sweeping.spawn(self._sweeper.run(), name="sweeper")

    async def stop(self, *, timeout: float = 10.0) -> None:
        """End all waits with None, stop sweeping, and give back what cancelled receivers claimed.

        That takes at most `timeout` seconds for each; a message not given back by then comes back when its lease expires.
        """
        self._notifier.end_all()
        await self._sweeping.stop(timeout=timeout)
        try:
            async with asyncio.timeout(timeout):
                await self._claims.wait()
        except TimeoutError:
            logger.warning("the queue store did not answer in time", extra={"timeout": timeout})
            await self._claims.stop(timeout=timeout)

    async def check(self) -> None:
        """Return when the store answers; raise what it raises when it does not work."""
        await self._backend.next_due()

    async def send(self, queue: QueueKey, message: NewMessage, *, create: bool = True) -> int:
        """Store the message and wake one receiver; returns its id."""
        message_id = await self._backend.send(queue, message, create=create)
        self._notifier.wake(queue)
        return message_id

    async def receive(
        self,
        queue: QueueKey,
        holder: HolderId,
        *,
        wait_seconds: float = 0.0,
        lease_seconds: float | None = None,
        create: bool = True,
    ) -> Delivery | None:
        """Lease the oldest ready message, waiting for one if need be; None when there was none or the wait was ended.

        A cancelled receiver keeps no message. Raises LimitExceededError when too many wait, NotFoundError when the queue is
        missing and `create` is false or when it is deleted meanwhile.
        """
        seconds = self._lease_seconds if lease_seconds is None else lease_seconds
        if wait_seconds <= 0:
            return await self._claim(queue, holder, seconds, create=create)
        waiter = self._notifier.add(queue, holder)
        try:
            return await self._wait(waiter, self._clock.monotonic() + wait_seconds, seconds, create=create)
        finally:
            self._notifier.remove(waiter)

    async def ack(self, lease: Lease) -> None:
        """The message is done."""
        await self._backend.ack(lease)

    async def nack(self, lease: Lease, *, reason: EndReason, error: str = "", delay: Delay | None = None) -> bool:
        """The message is not done; returns whether it was dead-lettered.

        Without a `delay` the retry policy says when a FAILED one is tried again; others are ready at once.
        """
        seconds = 0.0

        def chosen(attempt: int) -> float:
            nonlocal seconds
            seconds = self._delay(attempt, reason, delay)
            return seconds

        dead = await self._backend.nack(lease, reason=reason, error=error, delay=chosen)
        if not dead:
            self._ready_in(seconds, lease.queue)
        return dead

    async def extend(self, lease: Lease, *, seconds: float) -> Lease:
        """Let the lease run `seconds` from now."""
        extended = await self._backend.extend(lease, seconds=seconds)
        self._sweeper.tell(extended.expires_at)
        return extended

    async def release_holder(self, holder: HolderId, *, reason: EndReason, grace: float = 0.0) -> Sequence[QueueKey]:
        """The holder is gone: its leases end now or within `grace` seconds; returns the queues concerned."""
        queues = await self._backend.release_holder(holder, reason=reason, grace=grace)
        for queue in queues:
            self._ready_in(grace, queue, many=True)
        return queues

    def give_back(self, lease: Lease) -> None:
        """The delivery reached nobody: release it in the background, uncounted. A lease that was lost is ignored."""
        self._claims.spawn(self._give_back(lease), name="give back")

    async def create(self, queue: QueueKey) -> None:
        """Make the queue if it is missing."""
        await self._backend.create(queue)

    async def delete(self, queue: QueueKey) -> None:
        """Remove the queue with its messages; who waits for it gets NotFoundError."""
        await self._backend.delete(queue)
        self._notifier.end_queue(queue, queue_missing(queue))

    async def exists(self, queue: QueueKey) -> bool:
        """Whether the queue was made."""
        return await self._backend.exists(queue)

    async def drain(self, queue: QueueKey) -> int:
        """Delete all messages of the queue but the dead; returns how many."""
        return await self._backend.drain(queue)

    async def stats(self, room: RoomKey) -> Sequence[QueueStats]:
        """All queues of a room, by name."""
        return await self._backend.stats(room)

    async def dead_letters(self, queue: QueueKey, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The dead messages of a queue, newest first."""
        return await self._backend.dead_letters(queue, limit=limit)

    async def replay(self, queue: QueueKey, message_ids: Sequence[int] | None = None) -> int:
        """Make dead messages ready again and wake receivers; returns how many."""
        count = await self._backend.replay(queue, message_ids)
        if count:
            self._wake_many(queue)
        return count

    def end_waits(self, holder: HolderId) -> None:
        """Complete this holder's waiting receives with None; what one of them claimed at this moment is given back."""
        self._notifier.end_holder(holder)

    def _delay(self, attempt: int, reason: EndReason, delay: Delay | None) -> float:
        if callable(delay):
            return delay(attempt)
        if delay is not None:
            return delay
        return self._retry.delay(attempt, self._random) if reason is EndReason.FAILED else 0.0

    def _wake_many(self, queue: QueueKey) -> None:
        self._notifier.wake(queue, many=True)

    def _ready_in(self, seconds: float, queue: QueueKey, *, many: bool = False) -> None:
        if seconds > 0:
            self._sweeper.tell(self._clock.time() + seconds)
        else:
            self._notifier.wake(queue, many=many)

    async def _wait(self, waiter: QueueWaiter, deadline: float, seconds: float, *, create: bool) -> Delivery | None:
        # In line before the first look into the store: a message that is sent after that look wakes us.
        while not waiter.over():
            delivery = await self._follow(waiter, seconds, create=create)
            if delivery is not None:
                return delivery
            create = False
            left = deadline - self._clock.monotonic()
            if left <= 0:
                break
            await waiter.wait(min(left, _POLL_SECONDS), self._clock)
        waiter.check()
        return None

    async def _follow(self, waiter: QueueWaiter, seconds: float, *, create: bool) -> Delivery | None:
        """Take the waiter's hint and look; the hint goes to the next when it may hold more, or we did not come to look."""
        many = waiter.take()
        try:
            delivery = await self._claim(waiter.queue, waiter.holder, seconds, create=create)
        except BaseException:
            self._wake_many(waiter.queue)
            raise
        if delivery is not None and many:
            self._wake_many(waiter.queue)
        if waiter.over():
            self._abandon(delivery)
            return None
        return delivery

    async def _claim(self, queue: QueueKey, holder: HolderId, seconds: float, *, create: bool) -> Delivery | None:
        """Lease a message; when cancelled, it is given back."""
        claimed: asyncio.Future[Delivery | None] = asyncio.get_running_loop().create_future()
        self._claims.spawn(self._lease_into(claimed, queue, holder, seconds, create=create), name="claim")
        try:
            return await claimed
        except asyncio.CancelledError:
            if not claimed.cancelled() and claimed.exception() is None:
                self._abandon(claimed.result())
            raise

    async def _lease_into(
        self,
        claimed: asyncio.Future[Delivery | None],
        queue: QueueKey,
        holder: HolderId,
        seconds: float,
        *,
        create: bool,
    ) -> None:
        try:
            delivery = await self._lease(queue, holder, seconds, create=create)
        except Exception as error:  # noqa: BLE001 - raised where the claim is awaited
            _fail(claimed, error)
            return
        except asyncio.CancelledError:  # by `stop`, whose time was up
            _fail(claimed, RequestTimeoutError("the queue store did not answer before the service stopped"))
            raise
        if claimed.done():
            self._abandon(delivery)
        else:
            claimed.set_result(delivery)

    async def _lease(self, queue: QueueKey, holder: HolderId, seconds: float, *, create: bool) -> Delivery | None:
        try:
            deliveries = await self._backend.lease(queue, holder, seconds=seconds)
        except NotFoundError:
            if not create:
                raise
            await self._backend.create(queue)
            return None
        for delivery in deliveries:
            self._sweeper.tell(delivery.lease.expires_at)
            return delivery
        return None

    def _abandon(self, delivery: Delivery | None) -> None:
        if delivery is not None:
            self.give_back(delivery.lease)

    async def _give_back(self, lease: Lease) -> None:
        try:
            await self._backend.nack(lease, reason=EndReason.RELEASED)
        except (LeaseLostError, NotFoundError):
            return
        except Exception as error:
            # Nobody is left to tell; the lease will expire.
            logger.warning("giving a message back failed", extra={"queue": str(lease.queue)}, exc_info=error)
            return
        self._notifier.wake(lease.queue)


def _fail(claimed: asyncio.Future[Delivery | None], error: Exception) -> None:
    if not claimed.done():
        claimed.set_exception(error)
