"""Rows and values of the queues in PostgreSQL: what goes into a statement, and what comes out of one.

For `queues.py`, `dead_letters.py` and `messages`. What a client sent may be impossible to store or to have been stored (NUL,
numbers of any size); that is decided here, before a statement fails on it.
"""

import json
from collections.abc import Iterable, Mapping

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.postgres.database import Connection, Row
from meshhost.stores.queue_settings import parse_settings
from meshhost.stores.queues import Delivery, HolderId, Lease, QueueKey
from meshhost.stores.shared.history import waited
from meshhost.stores.shared.refusals import queue_missing
from meshhost.stores.shared.statements import read_statements

__all__ = [
    "MAX_ID",
    "delete_some",
    "delivery_of",
    "is_possible",
    "is_storable",
    "keys_of",
    "lock_queue",
    "names_of",
    "values_of",
]

_SQL = read_statements("meshhost.stores.postgres", "queues.sql")

# Rows that a deletion changes in one transaction.
_BATCH = 1000
MAX_ID = 2**63 - 1  # of a message
_MAX_TOKEN = 2**31 - 1


def names_of(queue: QueueKey) -> dict[str, str]:
    """The queue's name as parameters."""
    return {"tenant": queue.room.tenant, "room": queue.room.name, "name": queue.name}


def values_of(lease: Lease) -> Mapping[str, object]:
    """The lease as parameters."""
    return {"id": lease.message_id, "token": lease.token, "holder": lease.holder, **names_of(lease.queue)}


def is_storable(queue: QueueKey) -> bool:
    """Whether a queue of this name can have been made: PostgreSQL takes Unicode without NUL."""
    try:
        queue.name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in queue.name


def is_possible(lease: Lease) -> bool:
    """Whether a lease of ours can have these values, which a client sent."""
    is_number = 0 < lease.message_id <= MAX_ID and 0 < lease.token <= _MAX_TOKEN
    return is_number and is_storable(lease.queue) and lease.holder.isascii() and "\0" not in lease.holder


def delivery_of(queue: QueueKey, holder: HolderId, until: float, row: Row, *, wall: float) -> Delivery:
    """The delivery in a row of the statement `lease`, at this time."""
    message_id, token, failures, ended, sent_at, priority, key, body, headers, since, settings, *_ = row
    return Delivery(
        lease=Lease(queue, message_id, token, holder, until),
        body=bytes(body).decode(),
        headers=json.loads(headers),
        attempt=failures + 1,
        delivery=ended + 1,
        sent_at=sent_at,
        priority=priority,
        key=None if key is None else bytes(key).decode(),
        deadline=parse_settings(settings).deadline,
        waited=waited(wall - sent_at, since, ended),
    )


def keys_of(rows: Iterable[Row]) -> list[QueueKey]:
    """The queues in rows of tenant, room and name."""
    return [QueueKey(RoomKey(TenantId(tenant), room), name) for tenant, room, name in rows]


async def lock_queue(connection: Connection, queue: QueueKey) -> tuple[int, int]:
    """Return the queue's id and lane; its row is locked. Raises NotFoundError."""
    if not is_storable(queue):
        raise queue_missing(queue)
    found = await (await connection.execute(_SQL["lock_queue"], names_of(queue))).fetchone()
    if found is None:
        raise queue_missing(queue)
    number, lane = found
    return number, lane


async def delete_some(connection: Connection) -> bool:
    """Delete a batch of what a dropped lane holds. Returns whether there may be more."""
    found = await (await connection.execute(_SQL["dropped_lanes"])).fetchone()
    if found is None:
        return False
    values = {"lane": found[0], "queue": found[1], "limit": _BATCH}
    messages = await connection.execute(_SQL["delete_some_messages"], values)
    letters = await connection.execute(_SQL["delete_some_dead_letters"], values)
    outcomes = await connection.execute(_SQL["delete_some_outcomes"], values)
    if not messages.rowcount and not letters.rowcount and not outcomes.rowcount:
        await connection.execute(_SQL["forget_dropped_lane"], values)
    return True
