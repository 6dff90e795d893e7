"""Schedulers of two servers over one store: each occurrence is sent once, also where the clocks change and servers die."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from doubles.engines import EVERY_ENGINE
from doubles.postgres import empty_database

from meshhost.errors import NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.over_engine import queue_service
from meshhost.queues.service import QueueService
from meshhost.stores.engine import Engine
from meshhost.stores.memory.engine import memory_engine
from meshhost.stores.postgres.engine import postgres_engine
from meshhost.stores.queues import QueueKey, QueueLimits
from meshhost.stores.sqlite.engine import sqlite_engine
from meshhost.testing.clock import FakeClock
from meshhost.triggers.scheduler import Scheduler
from meshhost.triggers.schedules import Schedules, ScheduleSpec

ROOM = RoomKey(TenantId("acme"), "lobby")


class Servers:
    """Two servers over one set of stores: their queues and schedulers."""

    def __init__(self, engines: list[Engine], queues: list[QueueService], clock: FakeClock) -> None:
        self.clock = clock
        self.queues = queues
        pairs = list(zip(engines, queues, strict=True))
        self.schedulers = [Scheduler(engine.triggers, service, clock=clock) for engine, service in pairs]
        self.schedules = [Schedules(engine.triggers, service, clock=clock) for engine, service in pairs]

    async def both_look(self, *, kill: random.Random | None = None) -> None:
        """Both deal with what is due at the same moment; with `kill`, either may die at any await."""
        tasks = [asyncio.create_task(scheduler.send_due()) for scheduler in self.schedulers]
        if kill is not None:
            for task in tasks:
                for _ in range(kill.randrange(30)):
                    await asyncio.sleep(0)
                task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def sent(self, queue: str) -> list[str]:
        """The occurrences of which there is a message, in order of sending."""
        try:
            found = await self.queues[0].store.stored(QueueKey(ROOM, queue), after=0, limit=1000, max_bytes=10**9)
        except NotFoundError:
            return []
        return [message.headers["meshhost-occurrence"] for message in found]


@pytest.fixture(params=EVERY_ENGINE)
async def servers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Servers]:
    clock = FakeClock(datetime(2027, 3, 27, 12, tzinfo=UTC).timestamp())
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            engines = [await stack.enter_async_context(memory_engine(clock=clock))] * 2
        elif request.param == "sqlite":
            engines = [await stack.enter_async_context(sqlite_engine(tmp_path, limits=QueueLimits()))] * 2
        else:
            server = request.getfixturevalue("postgres_server")
            await stack.enter_async_context(empty_database(server))
            made = [postgres_engine(server.url, limits=QueueLimits(), is_exclusive=False) for _ in range(2)]
            engines = [await stack.enter_async_context(engine) for engine in made]
        queues = [await stack.enter_async_context(queue_service(engine, clock=clock)) for engine in engines]
        yield Servers(engines, queues, clock)


@pytest.mark.parametrize(
    ("zone", "begin", "changes"),
    [
        ("Europe/Berlin", "2027-03-27T12:00", "forward"),
        ("Europe/Berlin", "2027-10-30T12:00", "back"),
        ("Australia/Lord_Howe", "2027-10-02T00:00", "forward by half an hour"),
        ("Australia/Lord_Howe", "2027-04-03T00:00", "back by half an hour"),
    ],
)
async def test_each_occurrence_is_sent_once_where_the_clocks_change(
    servers: Servers, zone: str, begin: str, changes: str
) -> None:
    start = datetime.fromisoformat(begin).replace(tzinfo=UTC).timestamp()
    servers.clock.step(start - servers.clock.time())
    lines = {"daily": "15 2 * * *", "hourly": "0 * * * *", "gap": "45 1,2 * * *"}
    made = {
        name: await servers.schedules[0].create(
            ROOM, ScheduleSpec.parse({"queue": name, "message": 1, "cron": line, "timezone": zone})
        )
        for name, line in lines.items()
    }
    for _ in range(2 * 24 * 6):
        servers.clock.skip(600.0)
        await servers.both_look()

    for name, schedule in made.items():
        found = await servers.sent(name)
        due, expected = schedule.timing.after(start), []
        while due is not None and due <= servers.clock.time():
            expected.append(datetime.fromtimestamp(due, UTC).isoformat().replace("+00:00", "Z"))
            due = schedule.timing.after(due)
        assert found == expected, changes
        if name == "daily":
            assert len(found) == 2


async def test_servers_that_die_at_any_moment_send_each_occurrence_once(servers: Servers) -> None:
    dice = random.Random(7)
    spec = {"queue": "jobs", "message": 1, "every": 60.0, "missed": "all"}
    await asyncio.gather(*(servers.schedules[n % 2].create(ROOM, ScheduleSpec.parse(spec)) for n in range(3)))
    for _ in range(25):
        servers.clock.skip(60.0)
        await servers.both_look(kill=dice)
    await servers.both_look()
    await servers.both_look()

    found = await servers.sent("jobs")
    assert len(found) == 3 * 25
    assert {occurrence: found.count(occurrence) for occurrence in found} == dict.fromkeys(found, 3)
