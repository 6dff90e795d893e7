"""Room servers over PostgreSQL: what a database that goes away, or another server beside it, does to what was accepted."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.postgres import PostgresServer, running_postgres

from meshhost.errors import RoomError, SettingsError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.over_engine import queue_service
from meshhost.stores.postgres.database import PostgresDatabase
from meshhost.stores.postgres.engine import postgres_engine
from meshhost.stores.postgres.exclusive import ExclusiveUse
from meshhost.stores.postgres.upkeep import PostgresUpkeep
from meshhost.stores.postgres.upkeep.target import opened_target
from meshhost.stores.queues import HolderId, NewMessage, QueueKey, QueueLimits
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def durable() -> Iterator[PostgresServer]:
    """A server that waits for its disk, for a test that kills it."""
    with running_postgres() as server:
        yield server


async def drained(server: RunningServer, queue: str) -> list[int]:
    """The numbers of all messages of a queue, which are settled."""
    found = []
    async with server.client(name="reader") as room:
        while (message := await room.queues.lease(name=queue, wait=False)) is not None:
            found.append(message.message["number"])
            await message.ack()
    return found


async def test_nothing_accepted_is_lost_when_the_database_is_restarted_at_once_and_killed_under_load(
    durable: PostgresServer, tmp_path: Path
) -> None:
    accepted: set[int] = set()
    refused: set[int] = set()
    enough, again = asyncio.Event(), asyncio.Event()
    wanted = 100
    async with running_server(tmp_path, database_url=durable.new_database()) as server:

        async def send_all(first: int) -> None:
            async with server.client(name=f"sender-{first}") as room:
                for number in range(first, 600, 20):
                    try:
                        await room.queues.send(name="jobs", message={"number": number})
                        accepted.add(number)
                    except RoomError:
                        refused.add(number)
                        await again.wait()
                    if len(accepted) > wanted:
                        enough.set()

        async with asyncio.TaskGroup() as tasks:
            for first in range(20):
                tasks.create_task(send_all(first))
            await enough.wait()
            await asyncio.to_thread(durable.restart_immediately)
            restarted, wanted = len(refused), len(accepted) + 100
            enough.clear()
            again.set()
            await enough.wait()
            again.clear()
            await asyncio.to_thread(durable.crash)
            await asyncio.to_thread(durable.start)
            again.set()
        found = await drained(server, "jobs")
    assert 0 < restarted < len(refused)  # both were noticed
    assert accepted <= set(found)
    # Once each, but for sends whose answer was lost: they may have been stored.
    assert len(found) == len(set(found))
    assert set(found) - accepted <= refused


async def test_a_server_works_on_after_its_database_was_away(durable: PostgresServer, tmp_path: Path) -> None:
    async with running_server(tmp_path, database_url=durable.new_database()) as server, server.client() as room:
        await room.queues.send(name="jobs", message={"number": 1})
        durable.crash()
        with pytest.raises(RoomError):
            await room.queues.send(name="jobs", message={"number": 2})
        durable.start()
        async with asyncio.timeout(30):
            while True:
                try:
                    await room.queues.send(name="jobs", message={"number": 3})
                    break
                except RoomError:
                    await asyncio.sleep(0.1)
        assert await drained(server, "jobs") == [1, 3]


async def test_two_engines_open_an_empty_database_at_once_and_hear_of_each_others_messages(
    postgres_server: PostgresServer,
) -> None:
    url, jobs = postgres_server.new_database(), QueueKey(RoomKey(TenantId("acme"), "lobby"), "jobs")
    first, second = (postgres_engine(url, limits=QueueLimits(), is_exclusive=False) for _ in range(2))
    await asyncio.gather(first.open(), second.open())
    try:
        async with queue_service(first) as receiving, queue_service(second) as sending:
            await receiving.create(jobs)
            waiting = asyncio.ensure_future(receiving.receive(jobs, HolderId("ann"), wait_seconds=30))
            await asyncio.sleep(0.2)  # it waits
            await sending.send(jobs, NewMessage("hello"))
            async with asyncio.timeout(4):  # by a hint, before its next look in five seconds
                delivery = await waiting
        assert delivery is not None
        assert delivery.body == "hello"
    finally:
        await asyncio.gather(first.close(), second.close())


async def test_a_second_room_server_is_refused_until_the_first_has_gone(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url = postgres_server.new_database()
    database = PostgresDatabase(url)
    async with running_server(tmp_path / "first", database_url=url):
        await database.open()
        use = ExclusiveUse(database, wait_seconds=0.3)
        with pytest.raises(SettingsError, match="another room server uses this database"):
            await use.open()
    await use.open()
    await use.close()
    await database.close()


async def test_a_password_of_the_database_is_in_no_error(
    postgres_server: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(OSError, match="PostgreSQL") as failed:
        async with running_server(tmp_path, database_url="postgresql://me:hunter2@127.0.0.1:1/nothing"):
            pass
    assert "hunter2" not in str(failed.value) + caplog.text


# Behind a pooler


async def test_behind_pgbouncer_statements_are_not_prepared_and_messages_are_found_without_hints(
    postgres_server: PostgresServer, pgbouncer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshhost.queues.service._POLL_SECONDS", 0.5)
    url = pgbouncer.replace("/postgres?", f"/{postgres_server.new_database().partition('?')[0].rpartition('/')[2]}?")
    other = postgres_engine(url, limits=QueueLimits())
    # More statements than psycopg would prepare after, on more connections than pgbouncer keeps to the server.
    async with running_server(tmp_path, database_url=url) as server, server.client() as room:
        await asyncio.gather(*(room.queues.send(name="jobs", message={"number": number}) for number in range(100)))
        assert sorted(await drained(server, "jobs")) == list(range(100))
        waiting = asyncio.ensure_future(room.queues.lease(name="jobs"))
        queue = QueueKey(RoomKey(TenantId(server.key.project_id), "room"), "jobs")
        async with other, queue_service(other) as sending:  # another server: nothing keeps it away here
            await sending.send(queue, NewMessage('{"number": 100}'))
            async with asyncio.timeout(20):
                message = await waiting
        assert message is not None
        assert message.message == {"number": 100}
        await message.ack()
    upkeep = PostgresUpkeep(url)
    report = await upkeep.look()
    assert (report.problem, report.is_in_use) == (None, None)
    with pytest.raises(SettingsError, match="is a pooler: give the address of PostgreSQL itself"):
        async with opened_target(url):
            pass
