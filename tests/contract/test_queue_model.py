"""Every durable store does what the plain model in memory does, whatever the order of operations."""

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles.postgres import PostgresServer, empty_database
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshhost.errors import RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.memory.queues import MemoryQueueStore
from meshhost.stores.messages import MessageQuery, MessageRecord, MessageState
from meshhost.stores.postgres.queues import PostgresQueueStore
from meshhost.stores.queue_settings import QueueSettings
from meshhost.stores.queues import EndReason, HolderId, Lease, NewMessage, QueueKey, QueueLimits, QueueStore
from meshhost.stores.sqlite.queues import SqliteQueueStore
from meshhost.testing.clock import FakeClock

ROOM = RoomKey(TenantId("acme"), "lobby")
KEYS = st.sampled_from([None, "k", "l"])
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "delay": st.sampled_from([0.0, 2.0]),
        "priority": st.sampled_from([-1, 0, 1]),
        "key": KEYS,
        "ttl": st.sampled_from([None, 1.0, 4.0]),
    },
)
SETTINGS = st.builds(
    QueueSettings,
    paused=st.booleans(),
    max_attempts=st.sampled_from([None, 1]),
    concurrency=st.sampled_from([None, 1]),
    result_ttl=st.sampled_from([0.0, 2.0, 100.0]),
    rate=st.sampled_from([None, None, "1/s", "0.5/s"]),
    burst=st.sampled_from([None, 2]),
    key_rate=st.sampled_from([None, None, "1/s", "0.25/s"]),
)
QUEUES = st.sampled_from([QueueKey(ROOM, "a"), QueueKey(ROOM, "b")])
HOLDERS = st.sampled_from([HolderId("ann"), HolderId("bob")])
SECONDS = st.sampled_from([0, 1, 2, 3, 5])
REASONS = st.sampled_from(list(EndReason))
ENDS_OF_HOLDERS = st.sampled_from([reason for reason in EndReason if reason is not EndReason.FAILED])
LIMITS = QueueLimits(max_attempts=2, max_interruptions=3, max_depth=4)

_STRAYS = """
    SELECT message_id FROM contents
    EXCEPT SELECT id FROM (SELECT id FROM messages UNION ALL SELECT id FROM dead_letters)
"""
_MISCOUNTED = """
    SELECT name FROM queues WHERE depth <> (SELECT count(*) FROM messages WHERE queue_id = queues.id)
"""


class BothStores(RuleBasedStateMachine):
    """Does everything to the model and to a store, and compares all answers."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.runner = asyncio.Runner()
        self.model = MemoryQueueStore(limits=LIMITS, clock=self.clock)
        self.store = self.make()
        self.leases: list[Lease] = []
        self.sent: set[int] = set()
        self.ended: set[int] = set()  # acked, cancelled, drained or deleted
        self.might_end: set[int] = set()  # by a ttl, or by the end of a lease after being cancelled
        for backend in (self.model, self.store):
            self.runner.run(backend.open())

    def make(self) -> QueueStore:
        """The store, not opened."""
        raise NotImplementedError

    def check(self) -> None:
        """Look at what the closed store keeps."""

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.check()
        self.runner.close()

    def both(self, operation: Callable[[QueueStore], Awaitable[Any]]) -> Any:
        """Return what both returned; None when both refused in the same words."""
        expected, got = (self.runner.run(_outcome(operation, backend)) for backend in (self.model, self.store))
        assert got == expected
        return None if isinstance(got, tuple) else got

    @rule(queue=QUEUES, create=st.booleans(), body=st.text(max_size=5), options=OPTIONS)
    def send(self, queue: QueueKey, create: bool, body: str, options: dict[str, Any]) -> None:
        message = self.both(lambda backend: backend.send(queue, NewMessage(body, **options), create=create))
        if message is not None:
            assert message not in self.sent
            self.sent.add(message)
            self.might_end |= {message} if options.get("ttl") else set()

    @rule(queue=QUEUES, options=st.lists(OPTIONS, min_size=1, max_size=3))
    def send_many(self, queue: QueueKey, options: list[dict[str, Any]]) -> None:
        batch = [NewMessage("x", **each) for each in options]
        messages = self.both(lambda backend: backend.send_many(queue, batch)) or []
        self.sent |= set(messages)
        self.might_end |= {number for number, message in zip(messages, batch, strict=False) if message.ttl}

    @rule(queue=QUEUES, holder=HOLDERS, seconds=SECONDS, limit=st.integers(1, 3))
    def lease(self, queue: QueueKey, holder: HolderId, seconds: int, limit: int) -> None:
        _, *deliveries = self.both(lambda backend: _claim(backend, queue, holder, seconds, limit)) or [None]
        self.leases += [delivery.lease for delivery in deliveries]

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), result=st.sampled_from([None, "1"]))
    def ack(self, data: st.DataObject, result: str | None) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        newest = max(other.token for other in self.leases if other.message_id == lease.message_id)
        accepted = self.both(lambda backend: backend.ack(lease, result=result)) is not None
        if accepted:
            assert lease.token == newest
            assert lease.message_id not in self.ended
            self.ended.add(lease.message_id)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), reason=REASONS, delay=SECONDS, by_attempt=st.booleans())
    def nack(self, data: st.DataObject, reason: EndReason, delay: int, by_attempt: bool) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        chosen = (lambda attempt, _: float(delay * attempt)) if by_attempt else delay
        self.both(lambda backend: backend.nack(lease, reason=reason, error="boom", delay=chosen))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), seconds=SECONDS)
    def extend(self, data: st.DataObject, seconds: int) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        self.both(lambda backend: backend.extend(lease, seconds=seconds))

    @precondition(lambda self: self.sent)
    @rule(queue=QUEUES, data=st.data())
    def cancel(self, queue: QueueKey, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(sorted(self.sent)))
        kept = self.living(queue) | self.dead(queue)
        state = self.both(lambda backend: backend.cancel(queue, message))
        if state == MessageState.LEASED:
            self.might_end.add(message)
        elif state == MessageState.CANCELLED and message in kept:
            self.ended.add(message)

    @rule(queue=QUEUES, settings=SETTINGS)
    def configure(self, queue: QueueKey, settings: QueueSettings) -> None:
        self.both(lambda backend: _said(backend.configure(queue, settings)))

    @rule(queue=QUEUES, states=st.none() | st.frozensets(st.sampled_from(list(MessageState))), key=KEYS)
    def find(self, queue: QueueKey, states: frozenset[MessageState] | None, key: str | None) -> None:
        self.both(lambda backend: _everything(backend, queue, MessageQuery(states=states, key=key, limit=2)))

    @rule(holder=HOLDERS, reason=ENDS_OF_HOLDERS, grace=SECONDS)
    def release_holder(self, holder: HolderId, reason: EndReason, grace: int) -> None:
        self.both(lambda backend: backend.release_holder(holder, reason=reason, grace=grace))

    @rule(seconds=SECONDS)
    def advance(self, seconds: int) -> None:
        self.runner.run(self.clock.advance(seconds))

    @rule()
    def sweep(self) -> None:
        self.both(lambda backend: backend.sweep())

    @rule(queue=QUEUES, ids=st.none() | st.lists(st.integers(1, 10)))
    def replay(self, queue: QueueKey, ids: list[int] | None) -> None:
        self.both(lambda backend: backend.replay(queue, ids))

    @rule(queue=QUEUES, delete=st.booleans())
    def drain(self, queue: QueueKey, delete: bool) -> None:
        self.ended |= self.living(queue) | (self.dead(queue) if delete else set())
        self.both(lambda backend: _said(backend.delete(queue)) if delete else backend.drain(queue))

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.store.close())
        self.runner.run(self.store.open())

    @rule(queue=QUEUES, limit=st.integers(1, 3))
    def peek(self, queue: QueueKey, limit: int) -> None:
        self.both(lambda backend: backend.peek(queue, limit=limit))

    @invariant()
    def alike(self) -> None:
        self.both(lambda backend: backend.stats(ROOM))
        self.both(lambda backend: backend.next_due())
        for name in ("a", "b"):
            self.both(lambda backend, name=name: backend.dead_letters(QueueKey(ROOM, name)))
            for message in sorted(self.sent)[-6:]:
                self.both(lambda backend, name=name, message=message: backend.get(QueueKey(ROOM, name), message))
        self.both(lambda backend: backend.rooms_with_work(within=1.0))

    @invariant()
    def nothing_is_lost(self) -> None:
        kept: set[int] = set()
        for queue in self.model._queues:
            kept |= self.living(queue) | self.dead(queue)
        lost = self.sent - self.ended - kept
        # What is left is over: its ttl, or its lease after it was cancelled.
        assert lost <= self.might_end
        assert not kept & self.ended

    @invariant()
    def keys_do_not_overlap(self) -> None:
        for queue in self.model._queues.values():
            heads = [message.key for message in queue.messages.values() if message.key and not message.is_held_back]
            assert sorted(heads) == sorted({message.key for message in queue.messages.values() if message.key})

    def living(self, queue: QueueKey) -> set[int]:
        found = self.model._queues.get(queue)
        return set(found.messages) if found else set()

    def dead(self, queue: QueueKey) -> set[int]:
        found = self.model._queues.get(queue)
        return set(found.dead) if found else set()


async def _outcome(operation: Callable[[QueueStore], Awaitable[Any]], backend: QueueStore) -> Any:
    try:
        result = await operation(backend)
    except RoomError as error:
        return type(error), str(error)
    return list(result) if isinstance(result, tuple) else result


async def _claim(backend: QueueStore, queue: QueueKey, holder: HolderId, seconds: float, limit: int) -> list[Any]:
    """When the next may start, and what was claimed."""
    deliveries = await backend.lease(queue, holder, seconds=seconds, limit=limit)
    return [deliveries.next_at, *deliveries]


async def _everything(backend: QueueStore, queue: QueueKey, query: MessageQuery) -> list[MessageRecord]:
    found: list[MessageRecord] = []
    while True:
        page = await backend.find(queue, query)
        found += page.messages
        if page.next is None:
            return found
        query = replace(query, before=page.next)


async def _said(operation: Awaitable[None]) -> bool:
    await operation
    return True


class SqliteAndModel(BothStores):
    """SQLite, in a file of its own for each example."""

    def make(self) -> QueueStore:
        """See BothStores."""
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "q.db"
        return SqliteQueueStore(self.file, limits=LIMITS, clock=self.clock)

    def check(self) -> None:
        """No content is without its message, and the counters are right."""
        with contextlib.closing(sqlite3.connect(self.file)) as file:
            assert file.execute(_STRAYS).fetchall() == []
            assert file.execute(_MISCOUNTED).fetchall() == []
        self.folder.cleanup()


class PostgresAndModel(BothStores):
    """PostgreSQL, with new tables for each example."""

    server: PostgresServer  # set by the fixtures below
    pooler: str | None = None

    def make(self) -> QueueStore:
        """See BothStores."""
        self.stack = contextlib.AsyncExitStack()
        self.database = self.runner.run(self.stack.enter_async_context(empty_database(self.server, self.pooler)))
        return PostgresQueueStore(self.database, limits=LIMITS, clock=self.clock)

    def check(self) -> None:
        """No content is without its message, but for what waits to be deleted; and a sweep deletes that."""

        async def strays() -> list[Any]:
            await self.store.open()
            await self.store.sweep()
            await self.store.close()
            found = await self.database.rows(
                "SELECT message_id FROM meshhost.contents EXCEPT SELECT id FROM"
                " (SELECT id FROM meshhost.messages UNION ALL SELECT id FROM meshhost.dead_letters) AS kept"
            )
            return [*found, *await self.database.rows("SELECT lane FROM meshhost.dropped_lanes")]

        assert self.runner.run(strays()) == []
        self.runner.run(self.stack.aclose())


SqliteAndModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSqliteAndModel = pytest.mark.timeout(300)(SqliteAndModel.TestCase)


@pytest.mark.slow
@pytest.mark.timeout(300)
class TestPostgresAndModel(PostgresAndModel.TestCase):  # type: ignore[name-defined, misc]
    """Runs the machine on a real server."""

    settings = settings(max_examples=15, stateful_step_count=40, deadline=None)

    @pytest.fixture(autouse=True)
    def tell_server(self, postgres_server: PostgresServer) -> None:
        """Tell the machine where the server is."""
        PostgresAndModel.server = postgres_server


class PgbouncerAndModel(PostgresAndModel):
    """PostgreSQL behind pgbouncer in transaction mode."""


@pytest.mark.slow
@pytest.mark.timeout(300)
class TestPgbouncerAndModel(PgbouncerAndModel.TestCase):  # type: ignore[name-defined, misc]
    """Runs the machine through pgbouncer: a few examples, as the statements are the same."""

    settings = settings(max_examples=4, stateful_step_count=40, deadline=None)

    @pytest.fixture(autouse=True)
    def tell_server(self, postgres_server: PostgresServer, pgbouncer: str) -> None:
        """Tell the machine where the server is."""
        PgbouncerAndModel.server, PgbouncerAndModel.pooler = postgres_server, pgbouncer
