"""Messages that end or block the process that works on them, however often they are delivered.

A delivery that fails counts against `max_attempts`. One that ends with its worker does not: a deploy, a crash or a lost
connection is not the message's fault. But a message that itself kills its worker, or blocks it until the lease expires, would
then go round for ever and keep its queue from the others. So these ends are counted too. The limit is below the number of
crashes after which a host gives up an agent: the message must die before its worker does. A worker that is drained releases
its message, which is not counted. Every store uses what is here, so that all of them say the same.
"""

import logging

from meshhost.stores.queues import EndReason, QueueKey

__all__ = ["is_interruption", "poison"]

logger = logging.getLogger(__name__)


def is_interruption(reason: EndReason) -> bool:
    """Whether a delivery that ended for this reason counts towards `max_interruptions`."""
    return reason in (EndReason.INTERRUPTED, EndReason.EXPIRED)


def poison(queue: QueueKey, interruptions: int) -> str:
    """The reason of a dead letter that was interrupted too often. Logs that it died: no worker is left to do so."""
    logger.warning("message dead-lettered as poison", extra={"queue": str(queue), "interruptions": interruptions})
    return f"poison: {interruptions} deliveries ended with their worker or with their lease, without an answer"
