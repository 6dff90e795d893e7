"""Removes what was drained and deleted from the queues in PostgreSQL, a batch at a time, and lists dead letters page by page.

`PostgresQueueStore` is the caller. A dropped lane is invisible; any process may delete what it holds, at any time: batches lock
their rows and skip those of others.
"""

import json
import math
from collections.abc import Sequence

from meshhost.stores.postgres.database import Connection, PostgresDatabase, Row
from meshhost.stores.postgres.statements import read_statements
from meshhost.stores.queues import DeadLetter, QueueKey

__all__ = ["BATCH", "delete_some", "drop_some_queues", "read_dead_letters"]

# Rows that a sweep or a deletion changes in one transaction.
BATCH = 1000
_PAGE = 50
_MAX_ID = 2**63 - 1
_SQL = read_statements("queues.sql")


async def delete_some(connection: Connection) -> bool:
    """Delete a batch of what a dropped lane holds. Returns whether there may be more."""
    found = await (await connection.execute(_SQL["dropped_lanes"])).fetchone()
    if found is None:
        return False
    values = {"lane": found[0], "queue": found[1], "limit": BATCH}
    messages = await connection.execute(_SQL["delete_some_messages"], values)
    letters = await connection.execute(_SQL["delete_some_dead_letters"], values)
    if not messages.rowcount and not letters.rowcount:
        await connection.execute(_SQL["forget_dropped_lane"], values)
    return True


async def drop_some_queues(connection: Connection, tenant: str, room: str | None) -> Sequence[Row]:
    """Delete at most BATCH queues of a tenant or room, and drop their lanes; returns rooms and names."""
    values = {"tenant": tenant, "room": room, "limit": BATCH}
    return await (await connection.execute(_SQL["drop_some_queues"], values)).fetchall()


async def read_dead_letters(
    database: PostgresDatabase,
    queue: QueueKey,
    *,
    limit: int,
    before: tuple[float, int] | None,
    max_bytes: int | None,
) -> Sequence[DeadLetter]:
    """See `QueueStore.dead_letters`; the queue exists."""
    found: list[DeadLetter] = []
    died_at, message_id = before or (math.inf, _MAX_ID)
    names = {"tenant": queue.room.tenant, "room": queue.room.name, "name": queue.name}
    size = 0
    while len(found) < limit:
        page = min(_PAGE, limit - len(found))
        place = {"died_at": died_at, "id": max(min(message_id, _MAX_ID), -_MAX_ID)}
        rows = await database.rows(_SQL["dead_letters"], {**names, **place, "limit": page})
        for key, body, headers, failures, reason, sent, died in rows:
            text, why = bytes(body).decode(), bytes(reason).decode()
            found.append(DeadLetter(key, text, json.loads(headers), failures, why, sent, died))
            size += len(text) + len(why)
            if max_bytes is not None and size >= max_bytes:
                return found
        if len(rows) < page:
            break
        died_at, message_id = found[-1].died_at, found[-1].message_id
    return found
