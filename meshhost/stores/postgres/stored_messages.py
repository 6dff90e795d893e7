"""Reads and stores the messages of archives in PostgreSQL: all that a queue holds, page by page.

`PostgresQueueStore` is the caller. A page is one statement, and so one view of messages and dead letters: one that dies or
is replayed meanwhile is in one page only, as it keeps its id. Messages of keys are restored under the locks of these
(`messages/keys.py`).
"""

import json
from collections.abc import Sequence

from meshhost.stores.postgres.database import Connection, PostgresDatabase, Row
from meshhost.stores.postgres.messages.keys import hash_of_key, lock_keys
from meshhost.stores.postgres.queue_rows import is_storable, names_of
from meshhost.stores.queues import LONGEST_DELAY, QueueKey, StoredMessage
from meshhost.stores.shared.refusals import queue_missing
from meshhost.stores.shared.statements import read_statements

__all__ = ["read_stored", "restore_messages"]

_SQL = read_statements("meshhost.stores.postgres", "queues.sql")


async def read_stored(
    database: PostgresDatabase, queue: QueueKey, *, after: int, limit: int, max_bytes: int, shift: float
) -> Sequence[StoredMessage]:
    """See `QueueStore.stored`. `shift` is the wall clock less the time of `due`."""
    if not is_storable(queue):
        raise queue_missing(queue)
    values = {**names_of(queue), "after": after, "limit": limit, "max_bytes": max_bytes}
    rows = await database.rows(_SQL["stored_page"], values)
    if not rows:
        raise queue_missing(queue)
    return [_stored(row, shift) for row in rows if row[0] is not None]


async def restore_messages(
    database: PostgresDatabase,
    queue: QueueKey,
    messages: Sequence[StoredMessage],
    headers: Sequence[str],
    *,
    now: float,
    steady: float,
) -> None:
    """See `QueueStore.restore`; the headers as JSON. The queue is made if it is missing."""
    dues = [
        steady + min(message.due_at - now, LONGEST_DELAY)
        if message.due_at is not None and message.due_at > now and message.died_at is None
        else None
        for message in messages
    ]
    keys = [None if message.key is None else message.key.encode() for message in messages]
    hashes = [hash_of_key(queue, key) for key in keys]
    # What is left of a ttl goes on from now.
    expiries = [
        None
        if message.expires_at is None or message.died_at is not None
        else steady + max(message.expires_at - now, 0.0)
        for message in messages
    ]
    values: dict[str, object] = {
        **names_of(queue),
        "bodies": [message.body.encode() for message in messages],
        "headers": [text.encode() for text in headers],
        "sent": [message.sent_at for message in messages],
        "attempts": [message.attempts for message in messages],
        "interruptions": [message.interruptions for message in messages],
        "deliveries": [message.deliveries for message in messages],
        "dues": dues,
        "reasons": [(message.reason or "").encode() for message in messages],
        "died": [message.died_at for message in messages],
        "priorities": [message.priority for message in messages],
        "keys": keys,
        "key_hashes": hashes,
        "expiries": expiries,
    }

    async def operation(connection: Connection) -> None:
        await lock_keys(connection, ((queue, number) for number in hashes))
        await connection.execute(_SQL["restore"], values)

    await database.rows(_SQL["create_queue"], names_of(queue))
    await database.transaction(operation, tenant=queue.room.tenant)


def _stored(row: Row, shift: float) -> StoredMessage:
    message_id, body, headers, sent_at, failures, interruptions, ended, due, reason, died_at, *options = row
    priority, key, expires = options
    return StoredMessage(
        id=message_id,
        body=bytes(body).decode(),
        headers=json.loads(headers),
        sent_at=sent_at,
        attempts=failures,
        interruptions=interruptions,
        deliveries=ended,
        due_at=None if due is None else due + shift,
        reason=None if reason is None else bytes(reason).decode(),
        died_at=died_at,
        priority=priority,
        key=None if key is None else bytes(key).decode(),
        expires_at=None if expires is None else expires + shift,
    )
