"""Room servers over PostgreSQL: what a database that goes away, or another server beside it, does to what was accepted."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from doubles.postgres import PostgresServer, running_postgres

from meshhost.errors import RoomError
from meshhost.identity.keys import new_api_key
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def durable() -> Iterator[PostgresServer]:
    """A server that waits for its disk, for a test that kills it."""
    with running_postgres() as server:
        yield server


@pytest.fixture
async def server(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path, database_url=postgres_server.new_database()) as running:
        yield running


async def drained(server: RunningServer, queue: str) -> list[int]:
    """The numbers of all messages of a queue, which are settled."""
    found = []
    async with server.client(name="reader") as room:
        while (message := await room.queues.lease(name=queue, wait=False)) is not None:
            found.append(message.message["number"])
            await message.ack()
    return found


async def test_nothing_accepted_is_lost_when_the_database_is_killed_under_load(
    durable: PostgresServer, tmp_path: Path
) -> None:
    accepted: set[int] = set()
    refused: set[int] = set()
    enough, again = asyncio.Event(), asyncio.Event()
    async with running_server(tmp_path, database_url=durable.new_database()) as server:

        async def send_all(first: int) -> None:
            async with server.client(name=f"sender-{first}") as room:
                for number in range(first, 1500, 20):
                    try:
                        await room.queues.send(name="jobs", message={"number": number})
                        accepted.add(number)
                    except RoomError:
                        refused.add(number)
                        await again.wait()
                    if len(accepted) > 400:
                        enough.set()

        async with asyncio.TaskGroup() as tasks:
            for first in range(20):
                tasks.create_task(send_all(first))
            await enough.wait()
            await asyncio.to_thread(durable.crash)
            await asyncio.to_thread(durable.start)
            again.set()
        found = await drained(server, "jobs")
    assert refused  # it was noticed
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


async def test_two_servers_start_on_an_empty_database_at_once_and_share_it(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url, key = postgres_server.new_database(), new_api_key("11111111-2222-3333-4444-555555555555")
    first, second = (running_server(tmp_path / name, key=key, database_url=url) for name in ("first", "second"))
    servers = await asyncio.gather(first.__aenter__(), second.__aenter__())
    try:
        async with servers[0].client(name="receiver") as receiver, servers[1].client(name="sender") as sender:
            waiting = asyncio.ensure_future(receiver.queues.receive(name="jobs", create=True, wait=True))
            await asyncio.sleep(0.2)  # it waits at the first server
            await sender.queues.send(name="jobs", message={"number": 1})
            async with asyncio.timeout(3):  # by a hint, before its next look in five seconds
                assert await waiting == {"number": 1}
    finally:
        await asyncio.gather(first.__aexit__(None, None, None), second.__aexit__(None, None, None))


async def test_a_password_of_the_database_is_in_no_error(
    postgres_server: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(OSError, match="PostgreSQL") as failed:
        async with running_server(tmp_path, database_url="postgresql://me:hunter2@127.0.0.1:1/nothing"):
            pass
    assert "hunter2" not in str(failed.value) + caplog.text


async def test_messages_and_dead_letters_are_shown_as_on_sqlite(server: RunningServer) -> None:
    async with server.client() as room:
        await room.queues.send(name="jobs", message={"number": 1})
        message = await room.queues.lease(name="jobs")
        assert message is not None
        await message.nack(error="boom")
        (queue,) = await room.queues.list()
    assert json.loads(json.dumps(queue.name)) == "jobs"
