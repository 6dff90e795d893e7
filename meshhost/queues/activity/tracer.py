"""What `QueueService` reports about single messages, for those that keep their traces.

A tracer sees each message before it is stored and may put the headers of a trace into it; so the trace stays with the message
through restarts, retries and replays. Afterwards it is told what became of the messages. It is called in the event loop for
every message: for one that it does not trace it must return at once, and it must neither wait nor raise.
"""

from collections.abc import Sequence
from typing import Protocol

from meshhost.queues.activity.observer import Outcome
from meshhost.stores.messages import NewMessage
from meshhost.stores.queues import Delivery, Lease, QueueKey

__all__ = ["NO_TRACER", "MessageTracer"]


class MessageTracer(Protocol):
    """Follows messages. Set one as `QueueService.tracer`."""

    def sending(self, queue: QueueKey, messages: Sequence[NewMessage]) -> Sequence[NewMessage]:
        """The messages to store instead: the same ones, some of them with headers of a trace."""
        ...

    def sent(self, queue: QueueKey, messages: Sequence[NewMessage], ids: Sequence[int], *, began: float) -> None:
        """These messages were stored under these ids; `began` is when sending began, wall clock."""
        ...

    def handed_over(self, deliveries: Sequence[Delivery], by: str) -> None:
        """Messages were handed over to a receiver, of which `by` is shown."""
        ...

    def settled(self, lease: Lease, outcome: Outcome, error: str = "") -> None:
        """The holder of a message settled it; `error` is what it said of a failure."""
        ...


class _NoTracer:
    """Traces nothing."""

    def sending(self, queue: QueueKey, messages: Sequence[NewMessage]) -> Sequence[NewMessage]:
        return messages

    def sent(self, queue: QueueKey, messages: Sequence[NewMessage], ids: Sequence[int], *, began: float) -> None:
        return

    def handed_over(self, deliveries: Sequence[Delivery], by: str) -> None:
        return

    def settled(self, lease: Lease, outcome: Outcome, error: str = "") -> None:
        return


NO_TRACER: MessageTracer = _NoTracer()
"""For a service whose messages nobody traces."""
