"""The contract of a notifier: hints from one process to the others that a queue may have something to lease.

Truth is in the queue store; a hint only says "look again". A receiver that waits looks at least every few seconds anyway,
so a lost hint costs that long and never a message. That is why `publish` returns at once, promises nothing and never
raises: an engine may merge hints, send them late, or drop them while its connection is down. `meshhost.queues.service` is
the caller: it wakes a receiver of its own process first, and publishes only hints that none of them took.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from meshhost.stores.queues import QueueKey

__all__ = ["Hint", "Listener", "Notifier"]


class Hint(NamedTuple):
    """A queue in which a message became ready; `many`: it may be more than one."""

    queue: QueueKey
    many: bool = False


# Called in the event loop of its subscriber; must not block or raise.
Listener: TypeAlias = Callable[[Hint], object]


class Notifier(Protocol):
    """Carries hints between all subscribers that share an engine, in this process and in others."""

    async def open(self) -> None:
        """Begin to carry hints. Raises SettingsError or OSError when that is impossible."""
        ...

    async def close(self) -> None:
        """Stop. Hints that were not delivered are dropped. Idempotent; the notifier may be opened again."""
        ...

    def subscribe(self, listener: Listener) -> None:
        """Call the listener with each hint that others publish from now on."""
        ...

    def unsubscribe(self, listener: Listener) -> None:
        """Do not call the listener any more. Does nothing for one that is not subscribed."""
        ...

    def publish(self, hint: Hint, *, by: Listener) -> None:
        """Tell all subscribers but `by`, soon. Never blocks and never raises; does nothing when the notifier is not open.

        Two hints for one queue may arrive as one that says `many`.
        """
        ...
