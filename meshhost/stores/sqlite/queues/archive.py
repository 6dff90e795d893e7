"""Reads the messages of a queue of the SQLite store for an archive, page by page, and stores those of one.

`store.py` is the caller. Pages are read beside the thread that writes; a message that is done between two statements is left
out.
"""

import json
import sqlite3

from meshhost.stores.messages import NewMessage, StoredMessage
from meshhost.stores.queues import LONGEST_DELAY
from meshhost.stores.sqlite.database import Statements
from meshhost.stores.sqlite.queues.leasing import Times, bury
from meshhost.stores.sqlite.queues.rows import QueueRow
from meshhost.stores.sqlite.queues.rows import execute as execute_queues
from meshhost.stores.sqlite.queues.sending import add

__all__ = ["new_message", "restore", "stored_page"]

_execute = Statements("queues/archive.sql").execute


def stored_page(
    db: sqlite3.Connection, queue: QueueRow, *, after: int, limit: int, max_bytes: int, now: Times
) -> list[StoredMessage]:
    """See `QueueStore.stored`."""
    found: list[StoredMessage] = []
    shift = now.wall - now.steady
    while not found:
        rows = _execute(db, "stored_page", queue=queue.id, first=queue.first, after=after, limit=limit).fetchall()
        if not rows:
            break
        for row in rows:
            message_id, sent_at, failures, interruptions, ended, due, reason, died_at, priority, key, expires_at = row
            after = message_id
            content = execute_queues(db, "find_content", id=message_id).fetchone()
            if content is None:  # done between the two statements
                continue
            found.append(
                StoredMessage(
                    id=message_id,
                    body=content[0],
                    headers=json.loads(content[1]),
                    sent_at=sent_at,
                    attempts=failures,
                    interruptions=interruptions,
                    deliveries=ended,
                    due_at=None if due is None else due + shift,
                    reason=reason,
                    died_at=died_at,
                    priority=priority,
                    key=key,
                    expires_at=None if expires_at is None else expires_at + shift,
                )
            )
            max_bytes -= len(content[0].encode())
            if max_bytes <= 0:
                break
    return found


def new_message(message: StoredMessage) -> NewMessage:
    """Return a message of an archive as it was sent; its times are left out."""
    return NewMessage(message.body, message.headers, priority=message.priority, key=message.key)


def restore(db: sqlite3.Connection, queue: QueueRow, message: StoredMessage, headers: str, now: Times) -> None:
    """Store a message of an archive at the end of a queue. See `QueueStore.restore`."""
    due = expires_at = None
    if message.due_at is not None and message.due_at > now.wall:
        due = now.steady + min(message.due_at - now.wall, LONGEST_DELAY)
    if message.expires_at is not None:
        expires_at = now.steady + max(message.expires_at - now.wall, 0.0)
    added = add(db, queue.id, new_message(message), headers, now=message.sent_at, due=due, expires_at=expires_at)
    counts = {"failures": message.attempts, "interruptions": message.interruptions, "ended": message.deliveries}
    _execute(db, "restore_counts", id=added, **counts)
    execute_queues(db, "change_depth", queue=queue.id, change=1)
    if message.died_at is not None:
        # By way of `messages`: ids are given there.
        bury(db, queue.id, queue.first, added, message.reason or "", now._replace(wall=message.died_at))
