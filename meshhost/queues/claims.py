"""Leases messages for receivers that may be cancelled meanwhile, and settles in the background what nobody waits for.

`QueueService` uses it for each look into the store. The store may have leased a message at the moment at which its receiver is
cancelled, and that message must not wait for the end of its lease: so leasing runs in a task of its own, which a cancelled
receiver does not take down with it, and a message that comes too late for its receiver is given back. Tasks: one per lease in
progress, one per message that is given back or settled in the background. `wait` returns when they are done; `stop` cancels
them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from meshhost.errors import LeaseLostError, NotFoundError, RequestTimeoutError
from meshhost.queues.counted import CountedQueues
from meshhost.stores.notifier import Hint
from meshhost.stores.queues import Delivery, EndReason, HolderId, Lease, QueueKey, QueueStore
from meshhost.tasks import TaskOwner

__all__ = ["Claims", "Wanted"]

logger = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """Which messages are to be leased, for whom and for how long; see QueueStore."""

    queue: QueueKey
    holder: HolderId
    seconds: float
    limit: int = 1
    by: str = ""


class Claims:
    """Claims messages from `store`. `wake` is told that a message is ready again.

    `claimed_until` is told when a lease expires, or a rate allows the next start.
    """

    def __init__(
        self,
        store: QueueStore,
        counted: CountedQueues,
        *,
        claimed_until: Callable[[float], object],
        wake: Callable[[Hint], object],
    ) -> None:
        self._store = store
        self._counted = counted
        self._claimed_until = claimed_until
        self._wake = wake
        self._tasks = TaskOwner("queue claims")

    async def wait(self) -> None:
        """Wait until all that was begun is done; the caller must set a timeout."""
        await self._tasks.wait()

    async def stop(self, *, timeout: float) -> None:
        """Cancel what is not done, and wait for it. Receivers that wait for a lease get RequestTimeoutError."""
        await self._tasks.stop(timeout=timeout)

    async def claim(self, wanted: Wanted, *, create: bool) -> Sequence[Delivery]:
        """Lease messages. When cancelled, those that were leased meanwhile are given back.

        Empty when none is ready. A missing queue is created, or raises NotFoundError when `create` is false.
        """
        claimed: asyncio.Future[Sequence[Delivery]] = asyncio.get_running_loop().create_future()
        self._tasks.spawn(self._lease_into(claimed, wanted, create=create), name="claim")
        try:
            return await claimed
        except asyncio.CancelledError:
            if not claimed.cancelled() and claimed.exception() is None:
                self.abandon(claimed.result())
            raise

    def abandon(self, deliveries: Sequence[Delivery]) -> None:
        """Give back what was leased. See `give_back`."""
        for delivery in deliveries:
            self.give_back(delivery.lease)

    def give_back(self, lease: Lease) -> None:
        """Release the message in the background, uncounted. A lease that was lost is ignored."""
        self._tasks.spawn(self._give_back(lease), name="give back")

    def in_background(self, settling: Coroutine[Any, Any, object], lease: Lease) -> None:
        """Settle a message by this coroutine. A lease that was lost is ignored."""
        self._tasks.spawn(_settled(settling, lease, "a message was not settled"), name="settle")

    async def _lease_into(self, claimed: asyncio.Future[Sequence[Delivery]], wanted: Wanted, *, create: bool) -> None:
        try:
            deliveries = await self._lease(wanted, create=create)
        except Exception as error:  # noqa: BLE001 - raised where the claim is awaited
            _fail(claimed, error)
            return
        except asyncio.CancelledError:  # by `stop`, whose time was up
            _fail(claimed, RequestTimeoutError("the queue store did not answer before the service stopped"))
            raise
        if claimed.done():
            self.abandon(deliveries)
        else:
            claimed.set_result(deliveries)

    async def _lease(self, wanted: Wanted, *, create: bool) -> Sequence[Delivery]:
        queue, holder, seconds, limit, by = wanted
        try:
            deliveries = await self._store.lease(queue, holder, seconds=seconds, limit=limit, by=by)
        except NotFoundError:
            if not create:
                raise
            await self._counted.create(queue)
            return []
        if deliveries.next_at is not None:
            self._claimed_until(deliveries.next_at)
        if deliveries:
            self._claimed_until(min(delivery.lease.expires_at for delivery in deliveries))
        return deliveries

    async def _give_back(self, lease: Lease) -> None:
        released = self._store.nack(lease, reason=EndReason.RELEASED)
        if await _settled(released, lease, "giving a message back failed"):
            self._wake(Hint(lease.queue))


async def _settled(operation: Awaitable[object], lease: Lease, failure: str) -> bool:
    """Wait for the operation and return whether it was done; there is no caller to raise to, and the lease will expire."""
    try:
        await operation
    except (LeaseLostError, NotFoundError):
        return False
    except Exception as error:
        logger.warning(failure, extra={"queue": str(lease.queue)}, exc_info=error)
        return False
    return True


def _fail(claimed: asyncio.Future[Sequence[Delivery]], error: Exception) -> None:
    if not claimed.done():
        claimed.set_exception(error)
