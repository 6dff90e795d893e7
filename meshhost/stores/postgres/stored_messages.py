"""Reads and stores the messages of archives in PostgreSQL: all that a queue holds, page by page.

`PostgresQueueStore` is the caller. A page is one statement, and so one view of messages and dead letters: one that dies or
is replayed meanwhile is in one page only, as it keeps its id. Messages that wait for a time are sorted for each page, because
an index of them by id would cost every lease; an archive may take longer than that.
"""

import json
from collections.abc import Sequence

from meshhost.stores.postgres.database import PostgresDatabase, Row
from meshhost.stores.postgres.queue_rows import is_storable, names_of
from meshhost.stores.queues import LONGEST_DELAY, QueueKey, StoredMessage
from meshhost.stores.refusals import queue_missing
from meshhost.stores.statements import read_statements

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
    }
    await database.rows(_SQL["create_queue"], names_of(queue))
    await database.rows(_SQL["restore"], values)


def _stored(row: Row, shift: float) -> StoredMessage:
    message_id, body, headers, sent_at, failures, interruptions, ended, due, reason, died_at = row
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
    )
