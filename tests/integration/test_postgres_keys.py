"""Two room servers over one PostgreSQL: messages of a key stay one at a time and in order, whichever sends or settles."""

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from doubles.postgres import PostgresServer

from meshhost.errors import LeaseLostError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.messages import MessageState
from meshhost.stores.postgres.database import PostgresDatabase
from meshhost.stores.postgres.queues import PostgresQueueStore
from meshhost.stores.queue_settings import QueueSettings
from meshhost.stores.queues import Delivery, EndReason, HolderId, NewMessage, QueueKey

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROOM = RoomKey(TenantId("acme"), "lobby")
JOBS = QueueKey(ROOM, "jobs")
KEYS = ["one", "two", "three"]
TASKS = 4  # in each server


@pytest.fixture
async def servers(postgres_server: PostgresServer) -> AsyncIterator[list[PostgresQueueStore]]:
    """The stores of two servers, which do not know of each other."""
    async with AsyncExitStack() as stack:
        url, stores = postgres_server.new_database(), []
        for _ in range(2):
            database = PostgresDatabase(url)
            stack.push_async_callback(database.close)
            await database.open()
            store = PostgresQueueStore(database)
            stack.push_async_callback(store.close)
            await store.open()
            stores.append(store)
        await stores[0].create(JOBS)
        yield stores


async def nothing_left(store: PostgresQueueStore) -> bool:
    (stats,) = await store.stats(ROOM)
    return (stats.ready, stats.leased, stats.delayed, stats.blocked) == (0, 0, 0, 0)


async def taken(store: PostgresQueueStore) -> list[Delivery]:
    """All that is left, acked one by one."""
    found = []
    while deliveries := await store.lease(JOBS, HolderId("last"), seconds=60, limit=10):
        for delivery in deliveries:
            await store.ack(delivery.lease)
        found += deliveries
    return found


async def test_two_servers_never_deliver_two_messages_of_a_key_at_once_and_keep_their_order(
    servers: list[PostgresQueueStore],
) -> None:
    chance, each = random.Random(7), 12
    in_progress: Counter[str] = Counter()
    delivered: dict[str, list[int]] = {key: [] for key in KEYS}
    total, done = len(servers) * TASKS * each * 2, 0

    async def send(store: PostgresQueueStore) -> None:
        for _ in range(each):
            await store.send(JOBS, NewMessage("1", key=chance.choice(KEYS)))
            await store.send_many(JOBS, [NewMessage("1", key=chance.choice(KEYS), priority=chance.randint(-1, 1))])

    async def work(store: PostgresQueueStore, holder: HolderId) -> None:
        nonlocal done
        while done < total:
            for delivery in await store.lease(JOBS, holder, seconds=60, limit=2):
                key = delivery.key
                assert key is not None
                in_progress[key] += 1
                assert in_progress[key] == 1, key
                await asyncio.sleep(0)
                in_progress[key] -= 1
                if chance.random() < 0.2:
                    await store.nack(delivery.lease, reason=EndReason.RELEASED)
                    continue
                delivered[key].append(delivery.lease.message_id)
                await store.ack(delivery.lease)
                done += 1

    async with asyncio.TaskGroup() as tasks:
        for number, store in enumerate(servers):
            for task in range(TASKS):
                tasks.create_task(send(store))
                tasks.create_task(work(store, HolderId(f"{number}-{task}")))
    assert sum(map(len, delivered.values())) == total
    assert all(ids == sorted(set(ids)) for ids in delivered.values())
    assert await nothing_left(servers[0])


async def test_no_message_is_left_behind_one_that_ended_in_another_way_or_server(
    servers: list[PostgresQueueStore],
) -> None:
    chance, each, sent = random.Random(8), 15, list[int]()

    async def send_and_cancel(store: PostgresQueueStore) -> None:
        for _ in range(each):
            keys = chance.choices(KEYS, k=3)  # in any order: nobody waits in a circle
            batch = [NewMessage("1", key=key, ttl=chance.choice([None, 0.001])) for key in keys]
            sent.extend(await store.send_many(JOBS, batch))
            await store.cancel(JOBS, chance.choice(sent))

    async def work(store: PostgresQueueStore, holder: HolderId) -> None:
        for _ in range(each):
            for delivery in await store.lease(JOBS, holder, seconds=60):
                with contextlib.suppress(LeaseLostError):
                    await store.nack(delivery.lease, reason=chance.choice(list(EndReason)))
            await store.lease(JOBS, holder, seconds=60)
            await store.release_holder(holder, reason=EndReason.INTERRUPTED)

    async def sweep(store: PostgresQueueStore) -> None:
        for _ in range(each):
            await store.sweep()
            await store.replay(JOBS)

    async with asyncio.TaskGroup() as tasks:
        for number, store in enumerate(servers):
            for task in range(TASKS):
                tasks.create_task(send_and_cancel(store))
                tasks.create_task(work(store, HolderId(f"{number}-{task}")))
            tasks.create_task(sweep(store))
    await servers[0].sweep()
    await taken(servers[1])
    assert await nothing_left(servers[0])
    states = Counter([record.state for number in sent if (record := await servers[0].get(JOBS, number))])
    assert sum(states.values()) == len(sent)  # each ended in one way
    assert set(states) <= {MessageState.DONE, MessageState.DEAD, MessageState.CANCELLED, MessageState.EXPIRED}
    assert states[MessageState.CANCELLED] > 0
    assert states[MessageState.EXPIRED] > 0


async def test_settings_that_two_servers_change_at_the_same_moment_are_all_kept(
    servers: list[PostgresQueueStore],
) -> None:
    await servers[0].create(JOBS)
    for number in range(1, 21):
        change = {"max_attempts": number, "concurrency": number, "deadline": float(number), "max_depth": number}
        writers = itertools.cycle(servers)
        await asyncio.gather(*(next(writers).configure(JOBS, {name: value}) for name, value in change.items()))
        assert await servers[1].settings(JOBS) == QueueSettings(**change)


async def test_two_servers_together_keep_to_the_rate_of_a_queue_and_of_its_keys(
    servers: list[PostgresQueueStore],
) -> None:
    await servers[0].configure(JOBS, QueueSettings(rate="7/h", burst=7, key_rate="1/h"))
    keys = [key for _ in range(3) for key in "klmnopqrst"]
    for store, key in zip(servers * 15, keys, strict=True):
        await store.send(JOBS, NewMessage("1", key=key))
    started: Counter[str | None] = Counter()

    async def take(store: PostgresQueueStore) -> None:
        for _ in range(4):
            for delivery in await store.lease(JOBS, HolderId("ann"), seconds=60, limit=2):
                started[delivery.key] += 1
                await store.ack(delivery.lease)

    await asyncio.gather(*(take(store) for store in servers * TASKS))
    assert started.total() == 7
    assert set(started.values()) == {1}


async def test_two_servers_together_keep_to_the_concurrency_of_a_queue(servers: list[PostgresQueueStore]) -> None:
    await servers[0].configure(JOBS, QueueSettings(concurrency=3))
    await servers[0].send_many(JOBS, [NewMessage("1")] * 30)
    for _ in range(10):
        claims = [store.lease(JOBS, HolderId("ann"), seconds=60, limit=2) for store in servers * TASKS]
        found = [delivery for deliveries in await asyncio.gather(*claims) for delivery in deliveries]
        assert len(found) == 3
        assert all(await asyncio.gather(*(servers[1].ack(delivery.lease) for delivery in found)))
    assert await nothing_left(servers[0])
