"""Keeps queues below their greatest depth without a row that every send has to lock.

An exact count over several servers would be one row that all senders wait for. Instead each server counts a queue now and
then and adds what it stores itself. The count holds for a second, or longer the further the queue is from its limit: other
servers can fill it only so fast. Near the limit nothing is guessed: before a send is refused, the sends of this server that
are under way are awaited and the queue is counted, so one below its limit is never refused, and one server never exceeds it
(`meshhost.stores.queue_settings.QueueLimits`). A queue may have a limit of its own, which is read with each count; when another
server sets one, this server learns it with its next send.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from meshhost.stores.queues import QueueKey

__all__ = ["Depths"]

# A count holds at least this long, and longer by a second for each so many messages that still fit.
_HOLDS_SECONDS = 1.0
_FILLED_PER_SECOND = 20_000
_HOLDS_AT_MOST = 60.0
# Queues that are remembered; the one that was used longest ago is counted again when it is used.
_MOST = 10_000


@dataclass(slots=True, eq=False)
class _Depth:
    # What was counted, with what was stored here since; and the sends of this process that are under way.
    estimate: int = 0
    sending: int = 0
    most: int = 0
    until: float = 0.0
    counting: asyncio.Lock = field(default_factory=asyncio.Lock)
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class Depths:
    """The depths of the queues that this process sends to.

    `count` returns how many messages a queue holds, and how many it may hold; None: as many as `most` says.
    """

    def __init__(
        self,
        most: int,
        count: Callable[[QueueKey], Awaitable[tuple[int, int | None]]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._count = count
        self._monotonic = monotonic
        self._depths: OrderedDict[QueueKey, _Depth] = OrderedDict()

    async def reserve(self, queue: QueueKey, count: int = 1) -> bool:
        """Reserve places for messages that are sent now; False when the queue has fewer. `sent` must follow True."""
        depth = self._of(queue)
        if not depth.counting.locked() and self._fits(depth, count):
            depth.sending += count
            return True
        async with depth.counting:
            if not self._fits(depth, count):
                await self._recount(queue, depth)
            if depth.estimate + depth.sending + count > depth.most:
                return False
            depth.sending += count
            return True

    def sent(self, queue: QueueKey, count: int = 1, *, stored: int) -> None:
        """The send that reserved `count` places ended; `stored` is how many messages it may have stored."""
        depth = self._of(queue)
        depth.sending = max(depth.sending - count, 0)
        depth.estimate += stored
        if not depth.sending:
            depth.idle.set()

    def most(self, queue: QueueKey) -> int:
        """Return how many messages the queue may hold, as far as is known."""
        return self._of(queue).most

    def may_hold(self, queue: QueueKey, most: int | None) -> None:
        """The queue may hold so many messages; None: as many as any. Counts it again before the next send, if that is new."""
        depth = self._of(queue)
        if depth.most != (most or self._most):
            depth.until = 0.0

    def left(self, queue: QueueKey, count: int = 1) -> None:
        """So many messages of the queue are done, dead or deleted."""
        depth = self._depths.get(queue)
        if depth is not None:
            depth.estimate = max(depth.estimate - count, 0)

    def _of(self, queue: QueueKey) -> _Depth:
        depth = self._depths.get(queue)
        if depth is None:
            depth = self._depths[queue] = _Depth(most=self._most)
            if len(self._depths) > _MOST:
                self._forget_one()
        else:
            self._depths.move_to_end(queue)
        return depth

    def _forget_one(self) -> None:
        oldest = next(iter(self._depths))
        depth = self._depths[oldest]
        if depth.sending or depth.counting.locked():
            self._depths.move_to_end(oldest)
        else:
            del self._depths[oldest]

    def _fits(self, depth: _Depth, count: int) -> bool:
        return depth.estimate + depth.sending + count <= depth.most and self._monotonic() < depth.until

    async def _recount(self, queue: QueueKey, depth: _Depth) -> None:
        """Count the queue while no send of this process is under way: then the count is exact for this process."""
        while depth.sending:
            depth.idle.clear()
            await depth.idle.wait()
        depth.estimate, own = await self._count(queue)
        depth.most = own or self._most
        left = max(depth.most - depth.estimate, 0)
        depth.until = self._monotonic() + min(max(_HOLDS_SECONDS, left / _FILLED_PER_SECOND), _HOLDS_AT_MOST)
