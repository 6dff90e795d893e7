"""What `QueueService` reports about its queues while it works: for metrics and for series of points.

Observers are called in the event loop for every message that is sent, handed over and settled by this process. So they must be
quick, must not wait and must not raise. What other servers over the same store do is reported there. What time alone does
(leases that expire, messages whose ttl is over) and what ends with a connection is not reported: the store names no messages.
"""

from enum import StrEnum
from typing import Protocol

from meshhost.identity.tenant import TenantId
from meshhost.stores.queues import Delivery, Lease, QueueKey

__all__ = ["Outcome", "QueueObserver"]


class Outcome(StrEnum):
    """How a delivery was settled."""

    DONE = "done"
    FAILED = "failed"  # it will be tried again
    DEAD = "dead"
    RETURNED = "returned"  # not the message's fault: given back, interrupted


class QueueObserver(Protocol):
    """Is told what happens to messages. Register an object that implements it in `QueueService.observers`."""

    def sent(self, queue: QueueKey, count: int) -> None:
        """`count` new messages were stored."""
        ...

    def started(self, delivery: Delivery) -> None:
        """A message was handed over to a receiver."""
        ...

    def settled(self, lease: Lease, outcome: Outcome) -> None:
        """The holder of a message settled it."""
        ...

    def forget(self, tenant: TenantId, room: str | None = None) -> None:
        """The tenant, or one of its rooms, was deleted: keep nothing of it."""
        ...
