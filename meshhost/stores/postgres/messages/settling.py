"""Messages in PostgreSQL that are settled by their holder, cancelled, or too old.

`PostgresQueueStore` is the caller. Acks that wait at the same time share one statement (`batches.py`); those of messages with a
key share a second one, under the locks of their keys (`keys.py`), since the next one of each key follows. Everything else is a
transaction for each message, or for each batch of a sweep.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from meshhost.stores.messages import EndReason, MessageState
from meshhost.stores.postgres.batches import Batcher
from meshhost.stores.postgres.database import Connection, Row
from meshhost.stores.postgres.messages.endings import Ending, end_messages, error_text, json_bytes, let_follow, note_of
from meshhost.stores.postgres.messages.keys import lock_keys
from meshhost.stores.postgres.messages.tables import SQL, QueueTables
from meshhost.stores.postgres.queue_rows import MAX_ID, is_possible, is_storable, keys_of, names_of, values_of
from meshhost.stores.queue_settings import parse_settings
from meshhost.stores.queues import Delay, Lease, QueueKey
from meshhost.stores.shared.poison import is_interruption, poison
from meshhost.stores.shared.refusals import lease_lost, queue_missing

__all__ = ["Acks", "cancel_message", "end_expired", "give_back"]


@dataclass(frozen=True, slots=True)
class _Ack:
    lease: Lease
    result: bytes | None


class Acks:
    """Acks of messages in `tables`."""

    def __init__(self, tables: QueueTables) -> None:
        self._tables = tables
        self._batches: Batcher[_Ack, bool | None] = Batcher(self._settle, weights=tables.database.weights)

    async def wait(self) -> None:
        """Return when all that was begun has ended."""
        await self._batches.wait()

    async def ack(self, lease: Lease, result: str | None) -> bool:
        """See QueueStore."""
        encoded = None if result is None else json_bytes(result)
        ack, tenant = _Ack(lease, encoded), lease.queue.room.tenant
        may_follow = await self._batches.do(ack, tenant) if is_possible(lease) else None
        if may_follow is None:
            raise lease_lost(lease)
        return may_follow

    async def ack_many(self, acks: Sequence[tuple[Lease, str | None]]) -> Sequence[bool | None]:
        """See QueueStore. They are many already: they do not wait for others."""
        encoded = [_Ack(lease, None if result is None else json_bytes(result)) for lease, result in acks]
        possible = [number for number, ack in enumerate(encoded) if is_possible(ack.lease)]
        outcomes: list[bool | None] = [None] * len(acks)
        if possible:
            settled = await self._settle([encoded[number] for number in possible])
            for number, outcome in zip(possible, settled, strict=True):
                outcomes[number] = outcome
        return outcomes

    async def _settle(self, acks: Sequence[_Ack]) -> Sequence[bool | None]:
        """Settle them; return of each whether another message may have become ready, None when its lease is lost."""
        values = {**_leases(acks), "results": [ack.result for ack in acks], **self._tables.times()}
        settled: dict[int, bool] = {}
        keyed: dict[int, tuple[bool, int]] = {}
        for place, is_bounded, key_hash in await self._tables.database.rows(SQL["ack"], values):
            if key_hash is None:
                settled[place - 1] = is_bounded
            else:
                keyed[place - 1] = (is_bounded, key_hash)
        if keyed:
            settled |= await self._settle_keyed(acks, keyed)
        return [settled.get(place) for place in range(len(acks))]

    async def _settle_keyed(self, acks: Sequence[_Ack], keyed: dict[int, tuple[bool, int]]) -> dict[int, bool]:
        places = sorted(keyed)
        chosen = [acks[place] for place in places]

        async def operation(connection: Connection) -> dict[int, bool]:
            await lock_keys(connection, ((acks[place].lease.queue, keyed[place][1]) for place in places))
            rows = await (await connection.execute(SQL["lock_acked"], _leases(chosen))).fetchall()
            mine = {(lane, number): places[order - 1] for lane, number, order in rows}
            if not mine:
                return {}
            endings = [
                Ending(lane, number, MessageState.DONE, result=acks[place].result)
                for (lane, number), place in mine.items()
            ]
            ended = await end_messages(connection, self._tables, endings)
            followed = await let_follow(connection, ended)
            settled = {}
            for one in ended:
                place = mine[one.lane, one.message_id]
                settled[place] = keyed[place][0] or (one.lane, one.key) in followed
            return settled

        return await self._tables.database.transaction(operation)


async def give_back(
    tables: QueueTables, lease: Lease, *, reason: EndReason, error: str, delay: Delay
) -> tuple[bool, bool]:
    """See `QueueStore.nack`. Returns whether the message is dead, and whether it has ended in any way."""
    if not is_possible(lease):
        raise lease_lost(lease)

    async def operation(connection: Connection) -> tuple[bool, bool]:
        lane, failures, interruptions, is_cancelled, text = await _lock_leased(connection, lease)
        settings = parse_settings(text)
        failed, interrupted = reason is EndReason.FAILED, is_interruption(reason)
        note = None if reason is EndReason.RELEASED else reason
        state, death = None, None
        if is_cancelled:
            state = MessageState.CANCELLED
        elif failed and failures + 1 >= (settings.max_attempts or tables.limits.max_attempts):
            state, death = MessageState.DEAD, error
        elif interrupted and tables.is_poison(interruptions + 1):
            state, death = MessageState.DEAD, poison(lease.queue, interruptions + 1)
        if state is not None:
            ending = Ending(lane, lease.message_id, state, note, error, failed, death=death)
            await let_follow(connection, await end_messages(connection, tables, [ending]))
            return state is MessageState.DEAD, True
        seconds = delay(max(failures + failed, 1), settings) if callable(delay) else delay
        values = {
            **tables.times(),
            "lane": lane,
            "id": lease.message_id,
            "due": tables.steady.time() + seconds if seconds > 0 else None,
            "failed": int(failed),
            "counted": int(note is not None),
            "interrupted": int(interrupted),
            "note": note_of(reason),
            "error": error_text(error),
        }
        await connection.execute(SQL["give_back"], values)
        return False, False

    return await tables.database.transaction(operation, tenant=lease.queue.room.tenant)


async def cancel_message(tables: QueueTables, queue: QueueKey, message_id: int) -> tuple[MessageState | None, bool]:
    """See `QueueStore.cancel`. Also returns whether a message that was not dead ended by this."""
    if not is_storable(queue):
        raise queue_missing(queue)
    named = {**names_of(queue), "id": message_id if 0 < message_id <= MAX_ID else 0}

    async def operation(connection: Connection) -> tuple[MessageState | None, bool]:
        row = await (await connection.execute(SQL["key_of"], named)).fetchone()
        if row is not None:
            await lock_keys(connection, [(queue, row[0])])
        # No message dies, is replayed or deleted with its queue from here on without this being known.
        place = await (await connection.execute(SQL["share_queue"], named)).fetchone()
        if place is None:
            raise queue_missing(queue)
        values = {**tables.times(), "queue": place[0], "lane": place[1], "id": named["id"]}
        row = await (await connection.execute(SQL["lock_message"], values)).fetchone()
        if row is not None:
            was_leased, is_leased = row
            if is_leased:
                await connection.execute(SQL["cancel_leased"], values)
                return MessageState.LEASED, False
            note = EndReason.EXPIRED if was_leased else None
            ending = Ending(place[1], message_id, MessageState.CANCELLED, note)
            await let_follow(connection, await end_messages(connection, tables, [ending]))
            return MessageState.CANCELLED, True
        if (await connection.execute(SQL["cancel_dead"], values)).rowcount:
            return MessageState.CANCELLED, False
        row = await (await connection.execute(SQL["outcome"], values)).fetchone()
        return None if row is None else MessageState(row[0]), False

    return await tables.database.transaction(operation, tenant=queue.room.tenant)


async def end_expired(tables: QueueTables, limit: int) -> tuple[dict[QueueKey, int], set[QueueKey], bool]:
    """End messages whose ttl is over, up to `limit`.

    Returns how many ended in which queues, the queues in which messages of the same keys followed, and whether there may be
    more.
    """
    rows = await tables.database.rows(SQL["expired"], {"now": tables.steady.time(), "limit": limit})
    if not rows:
        return {}, set(), False
    # A lane that was dropped meanwhile has no queue, and nobody sends to it.
    queues = {
        (lane, number): keys_of([tuple(names)])[0] for lane, number, _, _, _, _, *names in rows if names[0] is not None
    }

    async def operation(connection: Connection) -> tuple[dict[QueueKey, int], set[QueueKey], bool]:
        await lock_keys(
            connection,
            ((queues[lane, number], key) for lane, number, _, key, *_ in rows if (lane, number) in queues),
        )
        wanted = {"lanes": [row[0] for row in rows], "ids": [row[1] for row in rows], "now": tables.steady.time()}
        locked = await (await connection.execute(SQL["lock_expired"], wanted)).fetchall()
        ended = await end_messages(
            connection, tables, [Ending(lane, number, MessageState.EXPIRED) for lane, number in locked]
        )
        followed = await let_follow(connection, ended)
        # One that is too old as well follows for a moment only; its queue is reported like that of another.
        places = {(row[0], row[1]): (-row[2], row[1]) for row in rows}
        counts: dict[QueueKey, int] = {}
        freed: set[QueueKey] = set()
        for one in ended:
            if (queue := queues.get((one.lane, one.message_id))) is not None:
                counts[queue] = counts.get(queue, 0) + 1
                is_followed = (one.lane, one.key) in followed or any(
                    (other.lane, other.key) == (one.lane, one.key)
                    and places[other.lane, other.message_id] > places[one.lane, one.message_id]
                    for other in (ended if one.key is not None else ())
                )
                freed |= {queue} if is_followed and not one.was_held_back else set()
        return counts, freed, len(rows) == limit and bool(ended)

    return await tables.database.transaction(operation)


async def _lock_leased(connection: Connection, lease: Lease) -> Row:
    """Lock the message of a lease, and its key first if it has one. Raises LeaseLostError."""
    values = dict(values_of(lease))
    row = await (await connection.execute(SQL["lock_leased"], {**values, "has_key": False})).fetchone()
    if row is None and (found := await (await connection.execute(SQL["key_of_lease"], values)).fetchone()) is not None:
        await lock_keys(connection, [(lease.queue, found[0])])
        row = await (await connection.execute(SQL["lock_leased"], {**values, "has_key": True})).fetchone()
    if row is None:
        raise lease_lost(lease)
    return row


def _leases(acks: Sequence[_Ack]) -> dict[str, object]:
    return {
        "ids": [ack.lease.message_id for ack in acks],
        "tokens": [ack.lease.token for ack in acks],
        "holders": [ack.lease.holder for ack in acks],
        "tenants": [ack.lease.queue.room.tenant for ack in acks],
        "rooms": [ack.lease.queue.room.name for ack in acks],
        "names": [ack.lease.queue.name for ack in acks],
    }
