"""Leases of messages in PostgreSQL: claimed, prolonged, and given up by a holder that is gone.

`PostgresQueueStore` is the caller. A claim is one statement, which takes rows with SKIP LOCKED, so servers that lease from one
queue do not wait for each other. What it finds that is not to be handed out (cancelled, too old, poison) is ended in a
transaction of its own, and then it looks again. A queue with limits hands out messages under a lock of its own (`starts.py`).
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from meshhost.stores.messages import EndReason, MessageState
from meshhost.stores.postgres.database import Connection, Row
from meshhost.stores.postgres.messages.endings import Ended, Ending, end_messages, json_bytes, let_follow, note_of
from meshhost.stores.postgres.messages.keys import lock_keys
from meshhost.stores.postgres.messages.starts import claim_limited
from meshhost.stores.postgres.messages.tables import SQL, QueueTables
from meshhost.stores.postgres.queue_rows import delivery_of, is_possible, is_storable, keys_of, names_of, values_of
from meshhost.stores.queue_settings import parse_settings
from meshhost.stores.queues import Deliveries, Delivery, HolderId, Lease, QueueKey
from meshhost.stores.shared.poison import is_interruption, poison
from meshhost.stores.shared.refusals import lease_lost, queue_missing

__all__ = ["claim", "prolong", "release_all"]


async def claim(
    tables: QueueTables, queue: QueueKey, holder: HolderId, *, seconds: float, limit: int, by: str
) -> tuple[Deliveries, int]:
    """See `QueueStore.lease`. Also returns how many messages ended instead of being handed out."""
    if not is_storable(queue):
        raise queue_missing(queue)
    found: list[Delivery] = []
    ended, next_at = 0, None
    while len(found) < limit:
        now = tables.steady.time()
        values = {
            **tables.times(),
            **names_of(queue),
            "until": now + seconds,
            "holder": holder,
            "by": json.dumps(by),
            "most": tables.limits.max_interruptions,
            "found": [delivery.lease.message_id for delivery in found],
        }
        wanted = limit - len(found)
        rows = await tables.database.rows(SQL["lease"], {**values, "limit": wanted, "is_alone": False})
        if rows and parse_settings(rows[0][-3]).is_limited:
            claimed, next_at = await claim_limited(tables, queue, wanted, values)
            if claimed is None:
                continue
            rows = claimed
        if not rows:
            raise queue_missing(queue)
        until, wall = tables.steady.as_wall(now + seconds), tables.clock.time()
        found += [delivery_of(queue, holder, until, row, wall=wall) for row in rows if row[1] is not None]
        over = [row for row in rows if row[0] is not None and row[1] is None]
        if not over:
            break
        ended += await _end_instead(tables, queue, over)
    in_order = sorted(found, key=lambda delivery: (-delivery.priority, delivery.lease.message_id))
    return Deliveries(in_order, next_at=None if next_at is None else tables.steady.as_wall(next_at)), ended


async def prolong(tables: QueueTables, lease: Lease, *, seconds: float, progress: str | None) -> Lease:
    """See `QueueStore.extend`."""
    until = tables.steady.time() + seconds
    values = {**values_of(lease), "until": until, "progress": None if progress is None else json_bytes(progress)}
    row = await tables.database.row(SQL["extend"], values) if is_possible(lease) else None
    if row is None:
        raise lease_lost(lease)
    return replace(lease, expires_at=tables.steady.as_wall(until), is_cancelled=row[0])


async def release_all(
    tables: QueueTables, holder: HolderId, *, reason: EndReason, grace: float
) -> tuple[list[QueueKey], list[QueueKey]]:
    """See `QueueStore.release_holder`. Also returns the queue of each message that ended."""

    async def operation(connection: Connection) -> tuple[list[QueueKey], list[QueueKey]]:
        rows = await (await connection.execute(SQL["held_by"], {"holder": holder})).fetchall()
        queues = {(lane, number): keys_of([tuple(names)])[0] for lane, number, _, *names in rows}
        touched = sorted(set(queues.values()))
        if grace > 0:
            soon = tables.steady.time() + grace
            await connection.execute(SQL["shorten_holder"], {"holder": holder, "soon": soon})
            return touched, []
        await lock_keys(connection, ((queues[lane, number], key_hash) for lane, number, key_hash, *_ in rows))
        held = {"holder": holder, "ids": [number for _, number in queues]}
        locked = await (await connection.execute(SQL["lock_held_by"], held)).fetchall()
        endings = [
            ending
            for lane, number, is_cancelled, interruptions in locked
            if (
                ending := _release_ends(tables, queues[lane, number], lane, number, reason, is_cancelled, interruptions)
            )
        ]
        ended = await _end(connection, tables, endings)
        counts = {"counted": int(reason is not EndReason.RELEASED), "interrupted": int(is_interruption(reason))}
        await connection.execute(SQL["release_holder"], {**held, **counts, **tables.times(), "note": note_of(reason)})
        return touched, [queues[one.lane, one.message_id] for one in ended]

    return await tables.database.transaction(operation)


async def _end_instead(tables: QueueTables, queue: QueueKey, rows: Sequence[Row]) -> int:
    """End the messages in rows of the statement `lease`, unless somebody else did meanwhile; return how many were ended."""

    async def operation(connection: Connection) -> list[Ended]:
        await lock_keys(connection, ((queue, row[-1]) for row in rows))
        most = tables.limits.max_interruptions
        values = {**tables.times(), "lane": rows[0][-2], "ids": [row[0] for row in rows], "most": most}
        locked = await (await connection.execute(SQL["lock_over"], values)).fetchall()
        return await _end(connection, tables, [_over(queue, row) for row in locked])

    return len(await tables.database.transaction(operation, tenant=queue.room.tenant))


async def _end(connection: Connection, tables: QueueTables, endings: Sequence[Ending]) -> list[Ended]:
    if not endings:
        return []
    ended = await end_messages(connection, tables, endings)
    await let_follow(connection, ended)
    return ended


def _over(queue: QueueKey, row: Row) -> Ending:
    lane, number, is_cancelled, is_too_old, was_leased, interruptions = row
    note = EndReason.EXPIRED if was_leased else None
    if is_cancelled:
        return Ending(lane, number, MessageState.CANCELLED, note)
    if is_too_old:
        return Ending(lane, number, MessageState.EXPIRED, note)
    return Ending(lane, number, MessageState.DEAD, note, death=poison(queue, interruptions + 1))


def _release_ends(
    tables: QueueTables,
    queue: QueueKey,
    lane: int,
    number: int,
    reason: EndReason,
    is_cancelled: bool,
    interruptions: int,
) -> Ending | None:
    note = None if reason is EndReason.RELEASED else reason
    if is_cancelled:
        return Ending(lane, number, MessageState.CANCELLED, note)
    if is_interruption(reason) and tables.is_poison(interruptions + 1):
        return Ending(lane, number, MessageState.DEAD, note, death=poison(queue, interruptions + 1))
    return None
