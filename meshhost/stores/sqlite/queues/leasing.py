"""Hands out messages of the SQLite store, and ends them: claims, settlements, and ends that nobody asked for.

`store.py` is the caller, within operations on the file's thread: each function is a part of one transaction. Invariants: the
count of a queue follows each row of `messages` that is deleted, and when that row was not held back, the next message of its
key is held back no longer (`take_out`). A delivery that ends without an ack is noted before anything else is done with the
message.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from meshhost.stores.messages import AttemptRecord, EndReason, MessageState
from meshhost.stores.queue_settings import parse_settings
from meshhost.stores.queues import Deliveries, Delivery, HolderId, Lease, QueueKey, QueueLimits
from meshhost.stores.shared.history import add_to_history, waited
from meshhost.stores.shared.poison import is_interruption, poison
from meshhost.stores.sqlite.queues.rows import LeasedRow, QueueRow, execute, keys_of, names_of
from meshhost.stores.sqlite.queues.sending import HELD_BACK
from meshhost.stores.sqlite.queues.starts import Starts

__all__ = ["Times", "ack_plain", "bury", "claim", "end", "end_what_is_over", "note_end", "release", "take_out"]


# Messages that one claim puts off at most.
_MOST_PUT_OFF = 500


class Times(NamedTuple):
    """This moment: the wall clock, for what people read, and the steady time of leases, delays and ends."""

    wall: float
    steady: float


class _Ready(NamedTuple):
    """A message that could be handed out, with its content."""

    id: int
    token: int
    failures: int
    ended: int
    interruptions: int
    sent_at: float
    has_expired: int
    priority: int
    key: str | None
    expires_at: float | None
    is_cancelled: int
    began_at: float | None
    worker: str | None
    history: str | None
    since: float | None
    body: str
    headers: str


def claim(
    db: sqlite3.Connection,
    queue: QueueKey,
    row: QueueRow,
    limits: QueueLimits,
    *,
    holder: HolderId,
    by: str,
    seconds: float,
    limit: int,
    now: Times,
) -> Deliveries | None:
    """Lease up to `limit` messages that are ready. See `QueueStore.lease`. None: many were put off; claim again."""
    settings = row.settings
    if settings.concurrency is not None:
        (in_progress,) = execute(db, "in_progress", queue=row.id, now=now.steady).fetchone()
        limit = min(limit, settings.concurrency - in_progress)
    starts = Starts(db, row, now.steady) if settings.has_rates else None
    wanted, put_off = limit, 0
    if starts is not None:
        limit = starts.allowed(wanted)
    claimed: list[tuple[_Ready, int]] = []
    is_changed = True
    while is_changed and len(claimed) < limit and put_off < _MOST_PUT_OFF:
        is_changed = False
        before = len(claimed)
        for found in execute(db, "first_ready", queue=row.id, limit=limit - len(claimed)).fetchall():
            message = _Ready(*found)
            ended = message.ended
            if message.has_expired:
                ended += 1
                note_end(db, message.id, EndReason.EXPIRED, "", now, message.began_at, message.worker, message.history)
            if _end_instead(db, queue, row, message, limits, now):
                is_changed = True  # the next one of its key may be ready now, and come first
                break
            if starts is not None and (until := starts.start(message.key)) is not None:
                execute(db, "give_back", id=message.id, due=until, now=now.steady)
                put_off += 1
                is_changed = True  # another one takes its place
                continue
            claimed.append((message, ended))
        # Before it is asked again what is ready.
        _hold(db, [message.id for message, _ in claimed[before:]], holder, by, now.steady + seconds, now)
    if put_off >= _MOST_PUT_OFF and not claimed:
        return None
    next_at = None
    if starts is not None:
        next_at = starts.keep(len(claimed), is_short=limit < wanted and len(claimed) >= limit)
    deliveries = (
        Delivery(
            lease=Lease(queue, message.id, message.token + 1, holder, now.steady + seconds),
            body=message.body,
            headers={} if message.headers == "{}" else json.loads(message.headers),
            attempt=message.failures + 1,
            delivery=ended + 1,
            sent_at=message.sent_at,
            priority=message.priority,
            key=message.key,
            deadline=settings.deadline,
            waited=waited(
                now.wall - message.sent_at, None if message.since is None else now.steady - message.since, ended
            ),
        )
        for message, ended in sorted(claimed, key=lambda each: (-each[0].priority, each[0].id))
    )
    return Deliveries(deliveries, next_at=next_at)


def _hold(db: sqlite3.Connection, ids: Sequence[int], holder: HolderId, by: str, until: float, now: Times) -> None:
    if ids:
        execute(db, "claim", ids=json.dumps(ids), holder=holder, worker=by, until=until, now=now.wall)


def _end_instead(
    db: sqlite3.Connection, queue: QueueKey, row: QueueRow, message: _Ready, limits: QueueLimits, now: Times
) -> bool:
    """End a message that is not to be handed out, and return True."""
    interruptions = message.interruptions + message.has_expired
    if message.is_cancelled:
        end(db, row.id, row.first, row.settings_text, message.id, MessageState.CANCELLED, now)
    elif message.expires_at is not None and message.expires_at <= now.steady:
        end(db, row.id, row.first, row.settings_text, message.id, MessageState.EXPIRED, now)
    elif message.has_expired and interruptions >= limits.max_interruptions:
        bury(db, row.id, row.first, message.id, poison(queue, interruptions), now)
    else:
        return False
    return True


def release(
    db: sqlite3.Connection,
    lease: Lease,
    message: LeasedRow,
    limits: QueueLimits,
    *,
    reason: EndReason,
    error: str,
    now: Times,
) -> bool | None:
    """A delivery ended for this reason: note it. Of `lease` only queue and message count.

    Returns whether the message is dead by it; None: it ended CANCELLED. False: it is still there, without a holder, and the
    caller says when it is ready.
    """
    failures, interruptions = message.failures, message.interruptions
    if reason is not EndReason.RELEASED:
        failures += reason is EndReason.FAILED
        interruptions += is_interruption(reason)
        note_end(db, lease.message_id, reason, error, now, message.began_at, message.worker, message.history)
    if message.is_cancelled:
        end(db, message.queue, message.first, message.settings_text, lease.message_id, MessageState.CANCELLED, now)
        return None
    if reason is EndReason.FAILED and failures >= (message.settings.max_attempts or limits.max_attempts):
        bury(db, message.queue, message.first, lease.message_id, error, now)
        return True
    if is_interruption(reason) and interruptions >= limits.max_interruptions:
        bury(db, message.queue, message.first, lease.message_id, poison(lease.queue, interruptions), now)
        return True
    return False


def note_end(
    db: sqlite3.Connection,
    message_id: int,
    reason: EndReason,
    error: str,
    now: Times,
    began_at: float | None,
    worker: str | None,
    history: str | None,
) -> None:
    """Count a delivery that ended without an ack, and add it to the history; the message has no holder any more."""
    attempt = AttemptRecord(began_at or now.wall, now.wall, worker or "", reason, error)
    execute(
        db,
        "note_end",
        id=message_id,
        failed=reason is EndReason.FAILED,
        interrupted=is_interruption(reason),
        history=add_to_history(history, attempt),
    )


def end(
    db: sqlite3.Connection,
    queue: int,
    first: int,
    settings_text: str,
    message_id: int,
    state: MessageState,
    now: Times,
    *,
    result: str | None = None,
) -> bool:
    """A message that is not dead ends. Returns what `take_out` returns."""
    if (ttl := parse_settings(settings_text).result_ttl) > 0:
        values = {"now": now.wall, "forget_at": now.steady + ttl, "result": result}
        execute(db, "add_outcome", id=message_id, first=first, state=state, **values)
    execute(db, "delete_content", id=message_id)
    return take_out(db, queue, message_id, now)


def ack_plain(db: sqlite3.Connection, leases: Sequence[Lease], now: Times) -> dict[int, bool]:
    """Messages of one queue are done, without results: those that have no key, by a few statements for all of them.

    Returns by place whether another message may be ready now, as `QueueStore.ack` does; those that are not there are lost, or
    have a key.
    """
    wanted = json.dumps([(lease.message_id, lease.token, lease.holder) for lease in leases])
    try:
        found = execute(db, "find_plain_leased", leases=wanted, **names_of(leases[0].queue)).fetchall()
    except UnicodeEncodeError:  # no such queue can have been made
        found = []
    if not found:
        return {}
    _, _, queue, first, settings_text = found[0]
    settings = parse_settings(settings_text)
    ids = json.dumps([message_id for _, message_id, *_ in found])
    if settings.result_ttl > 0:
        values = {"state": MessageState.DONE, "now": now.wall, "forget_at": now.steady + settings.result_ttl}
        execute(db, "add_done_outcomes", ids=ids, first=first, **values)
    execute(db, "delete_contents", ids=ids)
    execute(db, "delete_messages", ids=ids)
    execute(db, "change_depth", queue=queue, change=-len(found))
    return {place: settings.concurrency is not None for place, *_ in found}


def take_out(db: sqlite3.Connection, queue: int, message_id: int, now: Times) -> bool:
    """Delete the row of a message; its content is the caller's. Returns whether another one of its key follows."""
    ready, key = execute(db, "delete_message", id=message_id).fetchone()
    execute(db, "change_depth", queue=queue, change=-1)
    if key is None or ready == HELD_BACK:
        return False
    return execute(db, "let_follow", queue=queue, key=key, now=now.steady).rowcount > 0


def bury(db: sqlite3.Connection, queue: int, first: int, message_id: int, reason: str, now: Times) -> None:
    """Make a message dead."""
    execute(db, "bury", id=message_id, first=first, reason=reason, now=now.wall)
    take_out(db, queue, message_id, now)


def end_what_is_over(db: sqlite3.Connection, now: Times, *, limit: int) -> tuple[int, list[QueueKey]]:
    """End up to `limit` messages whose ttl is over; return how many, and the queues in which others follow."""
    over = execute(db, "over", now=now.steady, limit=limit).fetchall()
    ready = [
        names
        for message_id, queue, first, settings, *names in over
        if end(db, queue, first, settings, message_id, MessageState.EXPIRED, now)
    ]
    return len(over), keys_of(tuple(names) for names in ready)
