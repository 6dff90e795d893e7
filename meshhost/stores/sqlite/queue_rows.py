"""Finds queues and messages in the tables of the queue store, and turns rows into values of its contract.

`queues.py` is the caller, within its operations on the file's thread: each function here is a part of one transaction. The
statements are those of `queues.sql`.
"""

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.poison import poison
from meshhost.stores.queues import LONGEST_DELAY, Delivery, HolderId, Lease, QueueKey, QueueStats, StoredMessage
from meshhost.stores.refusals import lease_lost, queue_missing
from meshhost.stores.sqlite.database import Statements

__all__ = [
    "bury",
    "bury_poisoned",
    "delivery_of",
    "execute",
    "find",
    "find_ids",
    "find_leased",
    "find_or_create",
    "find_sent",
    "keys_of",
    "look_up",
    "names_of",
    "remove",
    "restore",
    "rooms_with_work",
    "stats_of",
    "stored_page",
]

execute = Statements("queues.sql").execute


def names_of(queue: QueueKey) -> dict[str, str]:
    """Return the values by which statements find the queue."""
    return {"tenant": queue.room.tenant, "room": queue.room.name, "name": queue.name}


def look_up(db: sqlite3.Connection, queue: QueueKey) -> tuple[int, int] | None:
    """Return the id and depth of a queue, or None."""
    try:
        row: tuple[int, int] | None = execute(db, "find_queue", **names_of(queue)).fetchone()
    except UnicodeEncodeError:  # no such queue can have been made
        return None
    return row


def find(db: sqlite3.Connection, queue: QueueKey) -> tuple[int, int]:
    """Return the id and depth of a queue. Raises NotFoundError."""
    row = look_up(db, queue)
    if row is None:
        raise queue_missing(queue)
    return row


def find_ids(db: sqlite3.Connection, queue: QueueKey) -> tuple[int, int]:
    """Return the queue's id, and the one that it was made with, which its dead letters have. Raises NotFoundError."""
    found, _ = find(db, queue)
    (first,) = execute(db, "first_id", queue=found).fetchone()
    return found, first


def find_or_create(db: sqlite3.Connection, queue: QueueKey) -> tuple[int, int]:
    """Return the id and depth of a queue, which is made if it is missing."""
    if (row := look_up(db, queue)) is not None:
        return row
    execute(db, "create_queue", **names_of(queue))
    return find(db, queue)


def find_leased(db: sqlite3.Connection, lease: Lease) -> tuple[int, int, int]:
    """Return the queue's id, and how often the message failed and was interrupted. Raises LeaseLostError."""
    values = {"id": lease.message_id, "token": lease.token, "holder": lease.holder, **names_of(lease.queue)}
    try:
        row: tuple[int, int, int] | None = execute(db, "find_leased", **values).fetchone()
    except (OverflowError, UnicodeEncodeError):  # values no lease of ours has
        row = None
    if row is None:
        raise lease_lost(lease)
    return row


def remove(db: sqlite3.Connection, queue: int, message_id: int) -> None:
    """Delete the row of a message that is done or dead; its content is the caller's."""
    execute(db, "delete_message", id=message_id)
    execute(db, "change_depth", queue=queue, change=-1)


def bury(
    db: sqlite3.Connection, queue: int, message_id: int, reason: str, now: float, *, failed: int = 0, counted: int = 0
) -> None:
    """Make a message dead."""
    execute(db, "bury", id=message_id, reason=reason, now=now, failed=failed, counted=counted)
    remove(db, queue, message_id)


def delivery_of(
    db: sqlite3.Connection, queue: QueueKey, holder: HolderId, until: float, row: tuple[int, int, int, int, float]
) -> Delivery:
    """Return a claimed row, with its content, as a delivery."""
    message_id, token, failures, ended, sent_at = row
    body, headers = execute(db, "find_content", id=message_id).fetchone()
    return Delivery(
        lease=Lease(queue, message_id, token, holder, until),
        body=body,
        headers=json.loads(headers),
        attempt=failures + 1,
        delivery=ended + 1,
        sent_at=sent_at,
    )


def stats_of(
    now: float, name: str, depth: int, waiting: int, leased: int, dead: int, oldest: float | None
) -> QueueStats:
    """Return a row of counts as stats."""
    return QueueStats(
        name=name,
        ready=depth - waiting,
        leased=leased,
        delayed=waiting - leased,
        dead=dead,
        oldest_age=None if oldest is None else max(now - oldest, 0.0),
    )


def keys_of(rows: Iterable[tuple[Any, ...]]) -> list[QueueKey]:
    """Return rows of names as keys."""
    return [QueueKey(RoomKey(TenantId(tenant), room), name) for tenant, room, name in rows]


def stored_page(
    db: sqlite3.Connection, queue: tuple[int, int], *, after: int, limit: int, max_bytes: int, shift: float
) -> list[StoredMessage]:
    """See `QueueStore.stored`. `queue` are the ids of `find_ids`, `shift` the wall clock less the time of `due`."""
    found: list[StoredMessage] = []
    present, first = queue
    while not found:
        rows = execute(db, "stored_page", queue=present, first=first, after=after, limit=limit).fetchall()
        if not rows:
            break
        for message_id, sent_at, failures, interruptions, ended, due, reason, died_at in rows:
            after = message_id
            content = execute(db, "find_content", id=message_id).fetchone()
            if content is None:  # done between the two statements
                continue
            due_at = None if due is None else due + shift
            counts = (failures, interruptions, ended)
            found.append(
                StoredMessage(message_id, content[0], json.loads(content[1]), sent_at, *counts, due_at, reason, died_at)
            )
            max_bytes -= len(content[0].encode())
            if max_bytes <= 0:
                break
    return found


def restore(
    db: sqlite3.Connection, queue: int, message: StoredMessage, headers: str, *, now: float, steady: float
) -> None:
    """Store a message of an archive at the end of a queue. See `QueueStore.restore`."""
    due = None
    if message.due_at is not None and message.due_at > now:
        due = steady + min(message.due_at - now, LONGEST_DELAY)
    counts = {"failures": message.attempts, "interruptions": message.interruptions, "ended": message.deliveries}
    added = execute(db, "restore_message", queue=queue, sent_at=message.sent_at, due=due, **counts).lastrowid or 0
    execute(db, "add_content", id=added, body=message.body, headers=headers)
    execute(db, "change_depth", queue=queue, change=1)
    if message.died_at is not None:
        # By way of `messages`: ids are given there.
        bury(db, queue, added, message.reason or "", message.died_at)


def find_sent(db: sqlite3.Connection, queue: int, sender_id: str, *, now: float) -> int | None:
    """Return the message that was stored for this id of a sender, when it is still remembered."""
    row = execute(db, "find_sent", queue=queue, sender_id=sender_id, now=now).fetchone()
    return None if row is None else row[0]


def bury_poisoned(db: sqlite3.Connection, holder: HolderId, *, most: int, now: float) -> None:
    """Bury what this holder leased, where its end makes one interruption too many."""
    for message_id, found, *names in execute(db, "poisoned_of_holder", holder=holder, most=most - 1).fetchall():
        (queue,) = keys_of([tuple(names)])
        bury(db, found, message_id, poison(queue, most), now, counted=1)


def rooms_with_work(db: sqlite3.Connection, *, soon: float, room: RoomKey | None) -> list[RoomKey]:
    """Return the rooms, of all or only this one, with a message that is ready, leased, or due by `soon`."""
    if room is None:
        rows = execute(db, "rooms_with_work", soon=soon)
    else:
        rows = execute(db, "room_with_work", tenant=room.tenant, room=room.name, soon=soon)
    return [RoomKey(TenantId(tenant), name) for tenant, name in rows]
