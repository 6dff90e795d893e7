"""How the queue store of this package finds a queue: its names as values of statements, and its row.

Used by `queues.py` and `dead_letters.py`.
"""

from meshhost.stores.postgres.database import Connection
from meshhost.stores.postgres.statements import read_statements
from meshhost.stores.queues import QueueKey
from meshhost.stores.refusals import queue_missing

__all__ = ["is_storable", "lock_queue", "names_of"]

_SQL = read_statements("queues.sql")


def names_of(queue: QueueKey) -> dict[str, str]:
    """Return the values by which statements find the queue."""
    return {"tenant": queue.room.tenant, "room": queue.room.name, "name": queue.name}


def is_storable(queue: QueueKey) -> bool:
    """Whether a queue of this name can have been made: PostgreSQL takes Unicode without NUL."""
    try:
        queue.name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in queue.name


async def lock_queue(connection: Connection, queue: QueueKey) -> tuple[int, int]:
    """Return the queue's id and lane; its row is locked. Raises NotFoundError."""
    if not is_storable(queue):
        raise queue_missing(queue)
    found = await (await connection.execute(_SQL["lock_queue"], names_of(queue))).fetchone()
    if found is None:
        raise queue_missing(queue)
    number, lane = found
    return number, lane
