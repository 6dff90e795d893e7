"""Takes messages into a queue of the SQLite store: what a send and a restored archive have in common.

`store.py` and `archive.py` are the callers, within one operation. Invariant: of the messages of one key exactly one, the first,
is not held back; so a message is held back when there is one of its key already.
"""

import sqlite3
from collections.abc import Sequence

from meshhost.stores.messages import SENT_BY_SECONDS, NewMessage, sent_by_mark
from meshhost.stores.queues import QueueKey, QueueLimits, StoredIds
from meshhost.stores.shared.refusals import queue_full
from meshhost.stores.sqlite.queues.rows import QueueRow, execute, find_sent

__all__ = ["HELD_BACK", "add", "send"]

# The value of `ready` of a message behind another one of its key.
HELD_BACK = 2


def send(
    db: sqlite3.Connection,
    queue: QueueKey,
    row: QueueRow,
    messages: Sequence[tuple[NewMessage, str]],
    limits: QueueLimits,
    *,
    now: float,
    steady: float,
) -> StoredIds:
    """Store messages, each with its headers as JSON text. See `QueueStore.send_many`."""
    most = row.settings.max_depth or limits.max_depth
    ids: list[int] = []
    stored = 0
    for message, headers in messages:
        if message.sender_id and (first := find_sent(db, row, message.sender_id, now=steady)) is not None:
            ids.append(first)
            continue
        if row.depth + stored >= most:
            raise queue_full(queue, most)
        due = steady + message.delay if message.delay > 0 else None
        expires_at = None if message.ttl is None else steady + message.ttl
        ids.append(add(db, row.id, message, headers, now=now, due=due, expires_at=expires_at))
        stored += 1
        if message.sender_id:
            until = steady + (message.remember_seconds or limits.remember_ids_seconds)
            execute(db, "remember_sent", first=row.first, sender_id=message.sender_id, id=ids[-1], until=until)
        if message.sent_by:
            mark = sent_by_mark(ids[-1], message.sent_by)
            until = steady + message.delay + SENT_BY_SECONDS
            execute(db, "remember_sent", first=row.first, sender_id=mark, id=ids[-1], until=until)
    if stored:
        execute(db, "change_depth", queue=row.id, change=stored)
    return StoredIds(ids, new=stored)


def add(
    db: sqlite3.Connection,
    queue: int,
    message: NewMessage,
    headers: str,
    *,
    now: float,
    due: float | None,
    expires_at: float | None,
) -> int:
    """Store one message, which is not counted here; return its id. `due` and `expires_at` are steady times."""
    key, priority = message.key, message.priority
    if key is None and due is None and expires_at is None and not priority:
        cursor = execute(db, "add_plain_message", queue=queue, now=now)
    else:
        ready, delayed_until = int(due is None), None
        if key is not None and execute(db, "has_key", queue=queue, key=key).fetchone() is not None:
            ready, due, delayed_until = HELD_BACK, None, due
        options = {"ready": ready, "due": due, "delayed_until": delayed_until, "expires_at": expires_at}
        cursor = execute(db, "add_message", queue=queue, now=now, key=key, priority=priority, **options)
    message_id = cursor.lastrowid or 0
    execute(db, "add_content", id=message_id, body=message.body, headers=headers)
    return message_id
