"""The locks under which messages of a key come into a queue and leave it.

Of the messages of a key exactly one is not held back. A send must know whether there is one already, and the end of that one
frees the next: two of these at once, in different servers, could leave the key with two such messages or with none. So each
takes an advisory lock of PostgreSQL, which its transaction holds until it is committed, in a statement of its own before the
one that looks. Only messages that have a key pay for that.

Invariants: locks are taken in order, and before rows of messages and queues are locked, so that nobody waits in a circle. A
queue has STRIPES locks and not one for each key, as locks are kept in shared memory of a fixed size.
"""

from collections.abc import Iterable
from hashlib import blake2b

from meshhost.stores.postgres.database import Connection
from meshhost.stores.postgres.messages.tables import SQL
from meshhost.stores.queues import QueueKey

__all__ = ["hash_of_key", "lock_keys", "lock_of_queue"]

_STRIPES = 256


def hash_of_key(queue: QueueKey, key: bytes | None) -> int | None:
    """Return a number for a key, which the index of the messages has instead of it; None for None."""
    return None if key is None else _number(b"key", *_names(queue), key)


def lock_of_queue(queue: QueueKey) -> int:
    """Return the number of the lock under which a queue with a `concurrency` hands out messages."""
    return _number(b"queue", *_names(queue))


async def lock_keys(connection: Connection, keys: Iterable[tuple[QueueKey, int | None]]) -> None:
    """Take the locks of keys, each given by its queue and hash, until the transaction ends; none for None."""
    numbers = {
        (_number(b"keys", *_names(queue)) & -_STRIPES) | (key % _STRIPES) for queue, key in keys if key is not None
    }
    if numbers:
        await connection.execute(SQL["lock_keys"], {"numbers": sorted(numbers)})


def _names(queue: QueueKey) -> tuple[bytes, ...]:
    return tuple(name.encode() for name in (queue.room.tenant, queue.room.name, queue.name))


def _number(*parts: bytes) -> int:
    # No name has a NUL; a key may, and is the last part.
    return int.from_bytes(blake2b(b"\0".join(parts), digest_size=8).digest(), "big", signed=True)
