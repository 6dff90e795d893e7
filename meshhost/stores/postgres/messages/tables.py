"""The tables of the queues, with what every operation on messages needs beside them: limits and time.

`PostgresQueueStore` makes one and gives it to the operations of this package. `now` is on the time line of leases, delays and
ids, which does not jump when somebody sets the clock; `wall` is the clock, for what is shown.
"""

from dataclasses import dataclass

from meshhost.clock import Clock, SteadyTime
from meshhost.stores.messages import MAX_HISTORY
from meshhost.stores.postgres.database import PostgresDatabase
from meshhost.stores.queue_settings import DEFAULT_RESULT_TTL, QueueLimits
from meshhost.stores.shared.statements import read_statements

__all__ = ["SQL", "QueueTables"]

SQL = read_statements("meshhost.stores.postgres", "queues.sql")


@dataclass(frozen=True, slots=True)
class QueueTables:
    """The tables in `database`."""

    database: PostgresDatabase
    limits: QueueLimits
    clock: Clock
    steady: SteadyTime

    def times(self) -> dict[str, object]:
        """The time, and how much is kept of the past, as parameters."""
        return {
            "now": self.steady.time(),
            "wall": self.clock.time(),
            "history": MAX_HISTORY,
            "default_ttl": DEFAULT_RESULT_TTL,
        }

    def is_poison(self, interruptions: int) -> bool:
        """Whether a message that was interrupted so often is dead."""
        return interruptions >= self.limits.max_interruptions
