"""Lists and replays the dead letters of a queue in PostgreSQL: both may concern a million of them, so both go page by page.

`PostgresQueueStore` is the caller. A replay is a series of transactions of BATCH letters: each letter is dead or ready at any
moment, and a crash in the middle leaves the rest dead. Letters that die again meanwhile are not replayed twice.
"""

import json
import math
from collections.abc import Sequence

from meshhost.stores.postgres.database import Connection, PostgresDatabase
from meshhost.stores.postgres.messages.keys import lock_keys
from meshhost.stores.postgres.queue_rows import is_storable, lock_queue, names_of
from meshhost.stores.queues import DeadLetter, QueueKey
from meshhost.stores.shared.refusals import queue_missing
from meshhost.stores.shared.statements import read_statements

__all__ = ["BATCH", "read_dead_letters", "replay_dead_letters"]

BATCH = 1000
# Read at a time: each may have a large body.
_PAGE = 50
_MAX_ID = 2**63 - 1

_SQL = read_statements("meshhost.stores.postgres", "dead_letters.sql")


async def read_dead_letters(
    database: PostgresDatabase,
    queue: QueueKey,
    *,
    limit: int,
    before: tuple[float, int] | None,
    max_bytes: int | None,
) -> Sequence[DeadLetter]:
    """See `QueueStore.dead_letters`."""
    found: list[DeadLetter] = []
    place, left = before or (math.inf, 0), math.inf if max_bytes is None else max_bytes
    while True:
        wanted = min(_PAGE, limit - len(found))
        page = await _page(database, queue, place, wanted)
        for letter in page:
            found.append(letter)
            left -= len(letter.body) + len(letter.reason)
            if left <= 0:
                return found
        if len(page) < wanted or len(found) >= limit:
            return found
        place = (page[-1].died_at, page[-1].message_id)


async def replay_dead_letters(database: PostgresDatabase, queue: QueueKey, message_ids: Sequence[int] | None) -> int:
    """See `QueueStore.replay`."""
    if message_ids is not None:
        ids = [one for one in message_ids if 0 < one <= _MAX_ID]
        chunks = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)] or [[]]
        return sum([await _replay(database, queue, chunk) for chunk in chunks])
    until, count = await database.transaction(lambda connection: _last_death(connection, queue)), 0
    while True:
        rows = await database.rows(_SQL["some_dead"], {**names_of(queue), "until": until, "limit": BATCH})
        if not rows:
            return count
        count += await _replay(database, queue, [message_id for (message_id,) in rows])


async def _page(
    database: PostgresDatabase, queue: QueueKey, place: tuple[float, int], limit: int
) -> Sequence[DeadLetter]:
    if not is_storable(queue):
        raise queue_missing(queue)
    values = {**names_of(queue), "died_at": place[0], "id": place[1], "limit": limit}
    rows = await database.rows(_SQL["dead_letters"], values)
    if not rows:
        raise queue_missing(queue)
    return [
        DeadLetter(key, bytes(body).decode(), json.loads(headers), failures, bytes(reason).decode(), sent, died)
        for key, body, headers, failures, reason, sent, died in rows
        if key is not None
    ]


async def _last_death(connection: Connection, queue: QueueKey) -> float:
    number, _ = await lock_queue(connection, queue)
    row = await (await connection.execute(_SQL["last_death"], {"queue": number})).fetchone()
    return -math.inf if row is None or row[0] is None else float(row[0])


async def _replay(database: PostgresDatabase, queue: QueueKey, message_ids: list[int]) -> int:
    async def operation(connection: Connection) -> int:
        wanted = {**names_of(queue), "ids": message_ids} if is_storable(queue) else None
        keys = await (await connection.execute(_SQL["keys_of_dead"], wanted)).fetchall() if wanted else []
        await lock_keys(connection, ((queue, key_hash) for (key_hash,) in keys))
        number, lane = await lock_queue(connection, queue)
        values = {"queue": number, "lane": lane, "ids": message_ids}
        return (await connection.execute(_SQL["replay"], values)).rowcount

    return await database.transaction(operation, tenant=queue.room.tenant)
