"""Stores messages in PostgreSQL: single ones together with those that are sent at the same time, or many as one.

`PostgresQueueStore` is the caller. Sends that wait at the same time share one statement (`batches.py`), which stores them in
the order of their calls. A batch with messages of keys takes their locks first (`keys.py`). `max_depth` is kept by `depths.py`;
a queue may have one of its own, which comes with each count and each send.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from meshhost.stores.messages import SENT_BY_SECONDS, NewMessage, sent_by_mark
from meshhost.stores.postgres.batches import Batcher
from meshhost.stores.postgres.database import Connection, Row
from meshhost.stores.postgres.depths import Depths
from meshhost.stores.postgres.messages.keys import hash_of_key, lock_keys
from meshhost.stores.postgres.messages.tables import SQL, QueueTables
from meshhost.stores.postgres.queue_rows import is_storable, names_of
from meshhost.stores.queues import QueueKey, StoredIds
from meshhost.stores.shared.refusals import check_batch, check_message, check_name, queue_full, queue_missing

__all__ = ["Sending"]


@dataclass(frozen=True, slots=True)
class _Send:
    queue: QueueKey
    message: NewMessage
    headers: bytes
    create: bool
    sender_id: bytes | None
    key: bytes | None


class _Sent(NamedTuple):
    message_id: int
    is_new: bool  # stored just now
    most: int | None  # the `max_depth` of the queue's own


class Sending:
    """Sends to the queues in `tables`."""

    def __init__(self, tables: QueueTables, depths: Depths) -> None:
        self._tables = tables
        self._depths = depths
        self._batches: Batcher[_Send, _Sent | None] = Batcher(self._store, weights=tables.database.weights)

    async def wait(self) -> None:
        """Return when all that was begun has ended."""
        await self._batches.wait()

    async def send(self, queue: QueueKey, message: NewMessage, *, create: bool) -> int:
        """See QueueStore."""
        (send,) = self._checked(queue, [message], create=create)
        places = await self._reserve(queue, [send])
        stored = places  # also when nobody knows, because this call was cancelled or the connection was lost
        try:
            sent = await self._batches.do(send, queue.room.tenant)
            stored = int(sent is not None and sent.is_new)
        finally:
            self._depths.sent(queue, places, stored=stored)
        if sent is None:
            raise queue_missing(queue)
        self._depths.may_hold(queue, sent.most)
        return sent.message_id

    async def send_many(self, queue: QueueKey, messages: Sequence[NewMessage], *, create: bool) -> StoredIds:
        """See QueueStore."""
        check_batch(messages)
        sends = self._checked(queue, messages, create=create)
        places = await self._reserve(queue, sends)
        stored = places
        try:
            found = [sent for sent in await self._store(sends) if sent is not None]
            stored = sum(sent.is_new for sent in found)
        finally:
            self._depths.sent(queue, places, stored=stored)
        if not found:
            raise queue_missing(queue)
        self._depths.may_hold(queue, found[0].most)
        return StoredIds((sent.message_id for sent in found), new=stored)

    async def find(self, queue: QueueKey, sender_ids: Sequence[bytes]) -> dict[bytes, int]:
        """Return the messages that the queue took under these ids of senders and remembers."""
        values = {"sender_ids": list(sender_ids), "steady": self._tables.steady.time(), **names_of(queue)}
        rows = await self._tables.database.rows(SQL["find_sent"], values)
        return {bytes(sender_id): number for sender_id, number in rows}

    def _checked(self, queue: QueueKey, messages: Sequence[NewMessage], *, create: bool) -> list[_Send]:
        headers = [check_message(message, self._tables.limits) for message in messages]
        if create:
            check_name(queue)
        elif not is_storable(queue):
            raise queue_missing(queue)
        return [
            _Send(
                queue,
                message,
                text.encode(),
                create,
                message.sender_id.encode() if message.sender_id else None,
                None if message.key is None else message.key.encode(),
            )
            for message, text in zip(messages, headers, strict=True)
        ]

    async def _reserve(self, queue: QueueKey, sends: Sequence[_Send]) -> int:
        """Reserve a place for each message that is not known to be stored; return how many. Raises LimitExceededError."""
        named = {send.sender_id for send in sends if send.sender_id is not None}
        places = len(named) + sum(send.sender_id is None for send in sends)
        if await self._depths.reserve(queue, places):
            return places
        known = await self.find(queue, list(named)) if named else {}
        if known and (len(known) == places or await self._depths.reserve(queue, places - len(known))):
            return places - len(known)
        raise queue_full(queue, self._depths.most(queue))

    async def _store(self, sends: Sequence[_Send]) -> Sequence[_Sent | None]:
        """Store them, None where there is no queue."""
        sent = await self._add(sends)
        # All messages of a queue that is missing are sent again here, so that they stay in order.
        while missing := [send for send, one in zip(sends, sent, strict=True) if one is None and send.create]:
            for queue in {send.queue for send in missing}:
                await self._tables.database.rows(SQL["create_queue"], names_of(queue))
            added = iter(await self._add(missing))
            sent = [next(added) if one is None and send.create else one for send, one in zip(sends, sent, strict=True)]
        return sent

    async def _add(self, sends: Sequence[_Send]) -> list[_Sent | None]:
        now, remember = self._tables.steady.time(), self._tables.limits.remember_ids_seconds
        hashes = [hash_of_key(send.queue, send.key) for send in sends]
        messages = [send.message for send in sends]
        values = {
            "tenants": [send.queue.room.tenant for send in sends],
            "rooms": [send.queue.room.name for send in sends],
            "names": [send.queue.name for send in sends],
            "bodies": [message.body.encode() for message in messages],
            "headers": [send.headers for send in sends],
            "sender_ids": [send.sender_id for send in sends],
            "forget_ats": [now + (message.remember_seconds or remember) for message in messages],
            "dues": [now + message.delay if message.delay > 0 else None for message in messages],
            "priorities": [message.priority for message in messages],
            "keys": [send.key for send in sends],
            "key_hashes": hashes,
            "expiries": [None if message.ttl is None else now + message.ttl for message in messages],
            "now": self._tables.clock.time(),
            "steady": now,
        }

        async def operation(connection: Connection) -> list[Row]:
            await lock_keys(connection, zip((send.queue for send in sends), hashes, strict=True))
            rows = await (await connection.execute(SQL["send"], values)).fetchall()
            if marked := _marked(sends, rows, now):
                await connection.execute(SQL["remember_senders"], marked)
            return rows

        is_one_statement = all(number is None for number in hashes) and not any(message.sent_by for message in messages)
        database = self._tables.database
        rows = await (database.rows(SQL["send"], values) if is_one_statement else database.transaction(operation))
        return [None if number is None else _Sent(number, is_new, most) for number, is_new, most in rows]


def _marked(sends: Sequence[_Send], rows: Sequence[Row], now: float) -> dict[str, object] | None:
    """The stored messages whose sender is to be known, as the values of a statement; None when there is none."""
    stored = [
        (send.queue, number, send.message)
        for send, (number, is_new, _) in zip(sends, rows, strict=True)
        if send.message.sent_by and is_new
    ]
    if not stored:
        return None
    return {
        "tenants": [queue.room.tenant for queue, _, _ in stored],
        "rooms": [queue.room.name for queue, _, _ in stored],
        "names": [queue.name for queue, _, _ in stored],
        "marks": [sent_by_mark(number, message.sent_by or "").encode() for _, number, message in stored],
        "ids": [number for _, number, _ in stored],
        "forget_ats": [now + message.delay + SENT_BY_SECONDS for _, _, message in stored],
    }
