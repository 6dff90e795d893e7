"""Makes the queue service of an engine: the one place that knows which of the engine's parts the service needs.

Called by `meshhost.app.embedded` for a room server, and by tests. The engine is opened before the service starts, and closed
after it has stopped.
"""

import random as _random
from collections.abc import Callable

from meshhost.backoff import Backoff
from meshhost.clock import Clock
from meshhost.queues.bodies import LargeBodies
from meshhost.queues.service import QueueService
from meshhost.queues.sweeper import QueueSweeper
from meshhost.quotas.counts import UNCOUNTED, TenantCounts
from meshhost.stores.engine import Engine

__all__ = ["queue_service"]


def queue_service(
    engine: Engine,
    *,
    clock: Clock | None = None,
    retry: Backoff = Backoff(),  # noqa: B008 - immutable
    random: Callable[[], float] = _random.random,
    lease_seconds: float = 30.0,
    max_waiters: int = 10_000,
    counts: TenantCounts = UNCOUNTED,
    bodies: LargeBodies | None = None,
) -> QueueService:
    """Return the service over an engine's queue store and notifier, not started; for the arguments see QueueService."""
    return QueueService(
        engine.queues,
        notifier=engine.notifier,
        sweeper=QueueSweeper(engine.queues, clock=clock),
        clock=clock,
        retry=retry,
        random=random,
        lease_seconds=lease_seconds,
        max_waiters=max_waiters,
        counts=counts,
        bodies=bodies,
    )
