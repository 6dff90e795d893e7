"""Keeps queues in PostgreSQL to their limits: messages in progress, and the rates of a queue and of each key.

`claiming.py` is the caller. A queue with a limit hands out messages under an advisory lock of its own, so that servers together
keep to it, and no other queue waits. What the rates allow is in rows of `starts` (`meshhost.stores.rates`), which are written
in the claim's transaction. Messages whose keys have no start left are put off before the claim takes what comes first; should
one come first all the same, because somebody else had locked it for a moment, the whole claim is tried again.
"""

from collections.abc import Mapping

from meshhost.stores.postgres.database import Connection, PostgresDatabase, Row, Values
from meshhost.stores.postgres.messages.keys import lock_of_queue
from meshhost.stores.postgres.messages.tables import SQL, QueueTables
from meshhost.stores.postgres.queue_rows import keys_of
from meshhost.stores.queue_settings import Changes, QueueSettings, parse_settings
from meshhost.stores.queues import QueueKey
from meshhost.stores.rates import Rate
from meshhost.stores.shared.statements import read_statements

__all__ = ["change_settings", "claim_limited", "sweep_starts"]

_SQL = read_statements("meshhost.stores.postgres", "starts.sql")
_TRIES = 5
# Rounds in which one transaction puts messages off: first among as many as are wanted, then among many.
_ROUNDS, _NARROW_ROUNDS, _MANY = 20, 5, 500
# What the statement `lease` answers when no message is ready.
_NOTHING: Row = (None,) * 13


class _OvertakenError(Exception):
    """A message was claimed whose key has no start left."""


async def claim_limited(
    tables: QueueTables, queue: QueueKey, wanted: int, values: dict[str, object]
) -> tuple[list[Row] | None, float | None]:
    """Claim as the statement `lease` does, within the limits of the queue.

    Returns the rows, none without a queue, and None when many messages were put off: claim again. Also returns when the next
    may be started (steady time), when more was wanted than the rate of the queue allowed.
    """

    async def operation(connection: Connection) -> tuple[list[Row] | None, float | None]:
        await connection.execute(SQL["lock_keys"], {"numbers": [lock_of_queue(queue)]})
        found = await (await connection.execute(_SQL["limits"], values)).fetchone()
        if found is None:
            return [], None
        left, text, number, lane, until, wake_at = found
        settings = parse_settings(text)
        limit, now = settings.limit(), tables.steady.time()
        most = wanted if left is None else min(wanted, left)
        allowed = most if limit is None else min(most, limit.places(until or 0.0, now))
        claim = {**values, "now": now, "limit": max(allowed, 0), "is_alone": True, "queue": number, "lane": lane}
        key_limit = settings.key_limit()
        may_start = allowed > 0 and not settings.paused
        if key_limit is not None and may_start and not await _put_off(connection, key_limit, claim):
            return None, None
        rows = await (await connection.execute(SQL["lease"], claim)).fetchall()
        started = [row for row in rows if row[1] is not None]
        if key_limit is not None:
            await _start_keys(connection, key_limit, claim, [row[6] for row in started if row[6] is not None])
        is_short = allowed < most and len(started) >= allowed and not settings.paused
        if limit is None or not (started or is_short):
            return rows, None
        taken = limit.taken(until or 0.0, now, len(started))
        next_at = limit.next_at(taken, now) if is_short else None
        kept = {"queue": number, "until": taken, "wake_at": next_at if is_short else wake_at}
        if (until, wake_at) != (taken, kept["wake_at"]):
            await connection.execute(_SQL["start"], kept)
        return rows, next_at

    for _ in range(_TRIES):
        try:
            return await tables.database.transaction(operation, tenant=queue.room.tenant)
        except _OvertakenError:
            continue
    return [_NOTHING], tables.steady.time()


async def change_settings(connection: Connection, names: Values, changes: Changes, now: float) -> QueueSettings | None:
    """Lock the settings of a queue, and return what is to be set; None when there is no queue.

    A rate that changes begins anew, and what it has put off is ready.
    """
    row = await (await connection.execute(_SQL["lock_settings"], names)).fetchone()
    if row is None:
        return None
    before = parse_settings(row[1])
    settings = before.changed(changes)
    if before.limit() != settings.limit():
        await connection.execute(_SQL["begin_anew"], {"queue": row[0]})
    if before.key_rate != settings.key_rate:
        await connection.execute(_SQL["let_go"], {"queue": row[0], "now": now})
    return settings


async def sweep_starts(database: PostgresDatabase, now: float, *, limit: int) -> list[QueueKey]:
    """Return the queues whose rates allow a start now that a claim was refused before; each to one server, once.

    What does not count any more is deleted.
    """
    queues = keys_of(tuple(row) for row in await database.rows(_SQL["sweep"], {"now": now}))
    while await database.count(_SQL["forget"], {"steady": now, "limit": limit}) == limit:
        pass
    return queues


async def _put_off(connection: Connection, limit: Rate, claim: Mapping[str, object]) -> bool:
    """Put off what comes first and has no start left. Returns whether that is all; or else there may be more."""
    for number in range(_ROUNDS):
        many = {} if number < _NARROW_ROUNDS else {"limit": _MANY}
        if not (await connection.execute(_SQL["put_off"], {**claim, **_values_of(limit), **many})).rowcount:
            return True
    return False


async def _start_keys(connection: Connection, limit: Rate, claim: Mapping[str, object], keys: list[bytes]) -> None:
    if keys:
        cursor = await connection.execute(_SQL["start_keys"], {**claim, **_values_of(limit), "keys": keys})
        if cursor.rowcount < len(keys):
            raise _OvertakenError


def _values_of(limit: Rate) -> dict[str, object]:
    return {
        "interval": limit.interval,
        "ahead": limit.burst * limit.interval,
        "behind": (limit.burst - 1) * limit.interval,
        "slack": limit.slack,
    }
