"""Hints between room servers by PostgreSQL's LISTEN and NOTIFY. Keeps the contract of `meshhost.stores.notifier.Notifier`.

One task listens on a session of its own and connects again when it is lost; another sends what was published. Publishing only
notes the queue: however many hints come while one NOTIFY is under way, the next one carries them all, so a burst of sends
costs a handful of notifications. NOTIFY takes a lock over all databases when its transaction commits, hence one sender per
process and never within the transaction of a send.

Behind a pooler nobody can listen: then hints are not sent at all, and receivers of other servers find messages at their next
look. The same holds while the session is lost, and for what is dropped beyond `_MOST` queues.
"""

import asyncio
import json
import logging
import random
import secrets
from collections.abc import Iterable, Sequence

import psycopg

from meshhost.backoff import Backoff
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.notifier import Hint, Listener
from meshhost.stores.postgres.database import PostgresDatabase
from meshhost.stores.queues import QueueKey
from meshhost.stores.shared.local_notifier import LocalNotifier
from meshhost.tasks import TaskOwner

__all__ = ["PostgresNotifier"]

logger = logging.getLogger(__name__)

_CHANNEL = "meshhost_hints"
# A payload of NOTIFY must be below 8,000 bytes.
_PAYLOAD_BYTES = 7_000
# Queues with a hint that is not sent yet.
_MOST = 10_000
_RECONNECT = Backoff(first_delay=0.2, max_delay=5.0)


class PostgresNotifier:
    """Carries hints between all processes that use `database`, and between the subscribers of this one."""

    def __init__(self, database: PostgresDatabase, *, reconnect: Backoff = _RECONNECT) -> None:
        self._database = database
        self._reconnect = reconnect
        self._here = LocalNotifier()
        self._tasks = TaskOwner("notifier")
        self._pending: dict[QueueKey, bool] = {}
        self._is_pending = asyncio.Event()
        self._is_open = False
        # Tells this process's own notifications from those of others: its subscribers had the hint already.
        self._origin = secrets.token_hex(8)

    async def open(self) -> None:
        """See Notifier. Returns when it listens, unless the database is behind a pooler."""
        if self._is_open:
            return
        self._is_open = True
        await self._here.open()
        if self._database.has_sessions:
            listening: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._tasks.spawn(self._listen(listening), name="listen")
            self._tasks.spawn(self._send(), name="send")
            await asyncio.shield(listening)

    async def close(self) -> None:
        """See Notifier."""
        self._is_open = False
        await self._tasks.stop()
        await self._here.close()
        self._pending.clear()

    def subscribe(self, listener: Listener) -> None:
        """See Notifier."""
        self._here.subscribe(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """See Notifier."""
        self._here.unsubscribe(listener)

    def publish(self, hint: Hint, *, by: Listener) -> None:
        """See Notifier."""
        if not self._is_open:
            return
        self._here.publish(hint, by=by)
        if self._database.has_sessions and (hint.queue in self._pending or len(self._pending) < _MOST):
            self._pending[hint.queue] = hint.many or hint.queue in self._pending
            self._is_pending.set()

    async def _send(self) -> None:
        while True:
            await self._is_pending.wait()
            self._is_pending.clear()
            hints, self._pending = [Hint(*item) for item in self._pending.items()], {}
            try:
                for payload in _payloads(self._origin, hints):
                    await self._database.rows(
                        "SELECT pg_notify(%(channel)s, %(payload)s)", {"channel": _CHANNEL, "payload": payload}
                    )
            except OSError as error:
                logger.warning("hints to other servers were not sent", extra={"reason": str(error)})

    async def _listen(self, listening: "asyncio.Future[None]") -> None:
        attempt = 0
        while True:
            try:
                async with self._database.session() as connection:
                    await connection.execute(f"LISTEN {_CHANNEL}")
                    attempt = 0
                    if not listening.done():
                        listening.set_result(None)
                    async for notification in connection.notifies():
                        self._take(notification.payload)
            except Exception as error:
                if not listening.done():
                    listening.set_exception(error if isinstance(error, OSError) else OSError(str(error)))
                    return
                if not isinstance(error, OSError | psycopg.Error):
                    raise
                attempt += 1
                delay = self._reconnect.delay(attempt, random.random)
                logger.warning("the session for hints was lost", extra={"reason": str(error), "retry_in": delay})
                await asyncio.sleep(delay)

    def _take(self, payload: str) -> None:
        for hint in _hints(payload, but=self._origin):
            self._here.publish(hint, by=_elsewhere)


def _elsewhere(hint: Hint) -> None:
    """Stands for the publisher of a hint of another process: every subscriber here gets it."""


def _hints(payload: str, *, but: str) -> Sequence[Hint]:
    """The hints in a payload of another process; none for what is no payload of ours, as any program may notify."""
    try:
        origin, hints = json.loads(payload)
        if origin == but:
            return []
        return [Hint(QueueKey(RoomKey(TenantId(tenant), room), name), bool(many)) for tenant, room, name, many in hints]
    except (ValueError, TypeError):
        return []


def _payloads(origin: str, hints: Iterable[Hint]) -> Sequence[str]:
    """The hints as JSON texts, each short enough for one notification. A hint that is too long for one is left out."""
    found: list[str] = []
    batch: list[tuple[str, str, str, int]] = []
    size = 0
    for hint in hints:
        (tenant, room), name = hint.queue.room, hint.queue.name
        item = (str(tenant), room, name, int(hint.many))
        length = len(json.dumps(item)) + 2
        if length > _PAYLOAD_BYTES:
            continue
        if size + length > _PAYLOAD_BYTES:
            found.append(json.dumps([origin, batch]))
            batch, size = [], 0
        batch.append(item)
        size += length
    return [*found, json.dumps([origin, batch])] if batch else found
