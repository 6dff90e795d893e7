"""Finds queues and messages in the tables of the queue store, and turns rows into values of its contract.

The other modules of this package are the callers, within operations on the file's thread: each function here is a part of one
transaction. The statements are those of `queues.sql`.
"""

import sqlite3
from collections.abc import Iterable
from typing import Any, NamedTuple

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.queue_settings import QueueSettings, parse_settings
from meshhost.stores.queues import Lease, QueueKey, QueueStats
from meshhost.stores.shared.refusals import lease_lost, queue_missing
from meshhost.stores.sqlite.database import Statements

__all__ = [
    "LeasedRow",
    "QueueRow",
    "execute",
    "find",
    "find_leased",
    "find_or_create",
    "find_sent",
    "keys_of",
    "look_up",
    "names_of",
    "rooms_with_work",
    "stats_of",
]

execute = Statements("queues/queues.sql").execute


class QueueRow(NamedTuple):
    """A queue: its present id, how many messages it has, the id that it was made with, and its settings as text.

    Its messages are under the present id; dead letters, outcomes and senders' ids, which a drain leaves, are under the first.
    """

    id: int
    depth: int
    first: int
    settings_text: str

    @property
    def settings(self) -> QueueSettings:
        """What is set for the queue."""
        return parse_settings(self.settings_text)


class LeasedRow(NamedTuple):
    """A message that has a lease, with what its queue says."""

    queue: int
    first: int
    settings_text: str
    failures: int
    interruptions: int
    key: str | None
    is_cancelled: int
    began_at: float | None
    worker: str | None
    history: str | None

    @property
    def settings(self) -> QueueSettings:
        """What is set for the queue."""
        return parse_settings(self.settings_text)


def names_of(queue: QueueKey) -> dict[str, str]:
    """Return the values by which statements find the queue."""
    return {"tenant": queue.room.tenant, "room": queue.room.name, "name": queue.name}


def look_up(db: sqlite3.Connection, queue: QueueKey) -> QueueRow | None:
    """Return a queue, or None."""
    try:
        row = execute(db, "find_queue", **names_of(queue)).fetchone()
    except UnicodeEncodeError:  # no such queue can have been made
        return None
    return None if row is None else QueueRow(*row)


def find(db: sqlite3.Connection, queue: QueueKey) -> QueueRow:
    """Return a queue. Raises NotFoundError."""
    row = look_up(db, queue)
    if row is None:
        raise queue_missing(queue)
    return row


def find_or_create(db: sqlite3.Connection, queue: QueueKey) -> QueueRow:
    """Return a queue, which is made if it is missing."""
    if (row := look_up(db, queue)) is not None:
        return row
    execute(db, "create_queue", **names_of(queue))
    return find(db, queue)


def find_leased(db: sqlite3.Connection, lease: Lease) -> LeasedRow:
    """Return the message of a lease. Raises LeaseLostError."""
    values = {"id": lease.message_id, "token": lease.token, "holder": lease.holder, **names_of(lease.queue)}
    try:
        row = execute(db, "find_leased", **values).fetchone()
    except (OverflowError, UnicodeEncodeError):  # values no lease of ours has
        row = None
    if row is None:
        raise lease_lost(lease)
    return LeasedRow(*row)


def find_sent(db: sqlite3.Connection, queue: QueueRow, sender_id: str, *, now: float) -> int | None:
    """Return the message that was stored for this id of a sender, when it is still remembered."""
    row = execute(db, "find_sent", first=queue.first, sender_id=sender_id, now=now).fetchone()
    return None if row is None else row[0]


def stats_of(
    now: float,
    name: str,
    depth: int,
    waiting: int,
    leased: int,
    blocked: int,
    dead: int,
    oldest: float | None,
    settings: str,
) -> QueueStats:
    """Return a row of counts as stats."""
    return QueueStats(
        name=name,
        ready=depth - waiting - blocked,
        leased=leased,
        delayed=waiting - leased,
        dead=dead,
        oldest_age=None if oldest is None else max(now - oldest, 0.0),
        blocked=blocked,
        is_paused=parse_settings(settings).paused,
    )


def keys_of(rows: Iterable[tuple[Any, ...]]) -> list[QueueKey]:
    """Return rows of names as keys."""
    return [QueueKey(RoomKey(TenantId(tenant), room), name) for tenant, room, name in rows]


def rooms_with_work(db: sqlite3.Connection, *, soon: float, room: RoomKey | None) -> list[RoomKey]:
    """Return the rooms, of all or only this one, with a message that is ready, leased, or due by `soon`."""
    if room is None:
        rows = execute(db, "rooms_with_work", soon=soon)
    else:
        rows = execute(db, "room_with_work", tenant=room.tenant, room=room.name, soon=soon)
    return [RoomKey(TenantId(tenant), name) for tenant, name in rows]
