"""Kills a process before its n-th statement to a database, and shows what a restart then finds.

`fault_points` counts the statements of this process, BEGIN and COMMIT too, on SQLite and PostgreSQL. As a program
(`python -m doubles.fault_points ENGINE PLACE`) it does one operation of a queue store again and again, each time in a child
that is killed one statement later, until one is not: a child of a program without threads costs milliseconds. After each,
another child opens the store, and a line of JSON is printed.
"""

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncCursor

from meshhost.errors import LeaseLostError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.messages import MessageQuery, NewMessage
from meshhost.stores.postgres.database import PostgresDatabase
from meshhost.stores.postgres.queues import PostgresQueueStore
from meshhost.stores.queues import HolderId, Lease, QueueKey, QueueStore
from meshhost.stores.sqlite.queues import SqliteQueueStore

__all__ = ["Found", "count_statements"]

ANN, BOB = HolderId("ann"), HolderId("bob")
_MOST = 60  # statements of one operation; more are a fault of the test


@dataclass
class Found:
    """What a restart found after an operation of which a child was to be killed before statement `point`.

    Before statement 0 means behind the last one: all is committed, and nobody was told. `is_accepted`: the operation
    returned. `states` are those of the messages, the first one first. `again` is what the same operation did when it was
    done once more, and `states_at_last` are the states after it.
    """

    operation: str
    point: int
    is_killed: bool
    is_accepted: bool
    states: list[str]
    again: str
    states_at_last: list[str]


def count_statements(before: Callable[[str], None]) -> None:
    """Have `before` called with each statement that this process is about to execute, from now on."""
    connect = sqlite3.connect

    def traced(*arguments: Any, **named: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **named)
        connection.set_trace_callback(before)
        return connection

    sqlite3.connect = traced
    execute, command = AsyncCursor.execute, AsyncConnection._exec_command

    async def executed(self: Any, query: Any, *arguments: Any, **named: Any) -> Any:
        before(str(query))
        return await execute(self, query, *arguments, **named)

    def commanded(self: Any, text: Any, *arguments: Any, **named: Any) -> Any:
        before(str(text))
        return command(self, text, *arguments, **named)

    AsyncCursor.execute = executed  # type: ignore[method-assign]
    AsyncConnection._exec_command = commanded  # type: ignore[method-assign]


class _Killer:
    left: int | None = None

    def before(self, _: str) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


@asynccontextmanager
async def _opened(engine: str, place: str) -> AsyncIterator[QueueStore]:
    if engine == "sqlite":
        store: QueueStore = SqliteQueueStore(Path(place))
        await store.open()
        yield store
        await store.close()
        return
    database = PostgresDatabase(place, connections=2)
    await database.open()
    store = PostgresQueueStore(database)
    await store.open()
    yield store
    await store.close()
    await database.close()


async def _send(store: QueueStore, queue: QueueKey, arm: Callable[[], None]) -> None:
    arm()
    await store.send(queue, NewMessage("1", key="k", sender_id="once"))


async def _ack(store: QueueStore, queue: QueueKey, arm: Callable[[], None]) -> None:
    """Ack the first of two messages of a key, which lets the second follow."""
    await store.send_many(queue, [NewMessage(text, key="k") for text in "12"])
    [delivery] = await store.lease(queue, ANN, seconds=1000.0)
    arm()
    await store.ack(delivery.lease, result="3")


async def _send_again(store: QueueStore, queue: QueueKey) -> str:
    await store.send(queue, NewMessage("1", key="k", sender_id="once"))
    return "sent"


async def _ack_again(store: QueueStore, queue: QueueKey) -> str:
    first = min((await store.find(queue, MessageQuery())).messages, key=lambda record: record.id)
    try:
        await store.ack(Lease(queue, first.id, 1, ANN, 0.0), result="3")
    except LeaseLostError:
        return "lost"
    return "acked"


_OPERATIONS: dict[str, tuple[Callable[..., Awaitable[None]], Callable[..., Awaitable[str]]]] = {
    "send": (_send, _send_again),
    "ack": (_ack, _ack_again),
}


async def _states(store: QueueStore, queue: QueueKey) -> list[str]:
    if not await store.exists(queue):
        return []
    return [record.state.value for record in reversed((await store.find(queue, MessageQuery())).messages)]


def _child(work: Callable[[Callable[[str], object]], Awaitable[None]]) -> tuple[bool, str]:
    """Do work in a child; return whether it was killed, and what it wrote."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reading)
            asyncio.run(work(lambda text: os.write(writing, text.encode())))  # type: ignore[arg-type]
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as output:
        written = output.read()
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a child failed: {os.WEXITSTATUS(status)}")
    return os.WIFSIGNALED(status), written


def _wait_for_backends(engine: str, place: str) -> None:
    """What a killed client had begun goes on in PostgreSQL until that notices."""
    if engine == "sqlite":
        return
    with psycopg.connect(place, autocommit=True) as connection:
        while connection.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ).fetchone() != (0,):
            time.sleep(0.01)


def _try(engine: str, place: str, operation: str, point: int) -> Found:
    do, do_again = _OPERATIONS[operation]
    queue = QueueKey(RoomKey(TenantId("acme"), "lobby"), f"{operation}-{point}")

    async def work(tell: Callable[[str], object]) -> None:
        async with _opened(engine, place) as store:
            await do(store, queue, lambda: setattr(killer, "left", point or None))
            if not point:
                os.kill(os.getpid(), signal.SIGKILL)
            tell("accepted")
            killer.left = None

    async def look(tell: Callable[[str], object]) -> None:
        async with _opened(engine, place) as store:
            states = await _states(store, queue)
            tell(json.dumps([states, await do_again(store, queue), await _states(store, queue)]))

    is_killed, told = _child(work)
    _wait_for_backends(engine, place)
    _, looked = _child(look)
    _wait_for_backends(engine, place)
    return Found(operation, point, is_killed, told == "accepted", *json.loads(looked))


def _main(engine: str, place: str) -> None:
    async def make(_: Callable[[str], object]) -> None:
        async with _opened(engine, place):
            pass

    _child(make)
    for operation in _OPERATIONS:
        for point in range(_MOST):
            found = _try(engine, place, operation, point)
            sys.stdout.write(json.dumps(asdict(found)) + "\n")
            sys.stdout.flush()  # a child must not write it again
            if not found.is_killed:
                break


if __name__ == "__main__":
    killer = _Killer()
    count_statements(killer.before)
    _main(*sys.argv[1:])
