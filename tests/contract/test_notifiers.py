"""What every notifier does, whichever engine it is of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from doubles.postgres import empty_database

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.notifier import Hint, Notifier
from meshhost.stores.postgres.notifier import PostgresNotifier
from meshhost.stores.queues import QueueKey
from meshhost.stores.shared.local_notifier import LocalNotifier

JOBS, MAIL = (QueueKey(RoomKey(TenantId("acme"), "lobby"), name) for name in ("jobs", "mail"))


class Subscriber:
    """Keeps the hints that it gets."""

    def __init__(self) -> None:
        self._hints: asyncio.Queue[Hint] = asyncio.Queue()

    def __call__(self, hint: Hint) -> None:
        self._hints.put_nowait(hint)

    async def next(self) -> Hint:
        async with asyncio.timeout(5):
            return await self._hints.get()

    @property
    def is_empty(self) -> bool:
        return self._hints.empty()


@pytest.fixture(params=["local", *(pytest.param(name, marks=pytest.mark.slow) for name in ("postgresql", "pgbouncer"))])
async def notifier(request: pytest.FixtureRequest) -> AsyncIterator[Notifier]:
    async with AsyncExitStack() as stack:
        made: Notifier
        if request.param == "local":
            made = LocalNotifier()
        else:
            url = request.getfixturevalue("pgbouncer") if request.param == "pgbouncer" else None
            server = request.getfixturevalue("postgres_server")
            database = await stack.enter_async_context(empty_database(server, url))
            made = PostgresNotifier(database)
        await made.open()
        stack.push_async_callback(made.close)
        yield made


@pytest.fixture
def subscribers(notifier: Notifier) -> list[Subscriber]:
    made = [Subscriber() for _ in range(3)]
    for subscriber in made:
        notifier.subscribe(subscriber)
    return made


async def test_a_hint_reaches_all_others_but_not_its_publisher(
    notifier: Notifier, subscribers: list[Subscriber]
) -> None:
    first, second, third = subscribers
    notifier.publish(Hint(JOBS, many=True), by=first)
    assert await second.next() == await third.next() == Hint(JOBS, many=True)
    notifier.publish(Hint(MAIL), by=second)
    assert await first.next() == Hint(MAIL)
    assert await third.next() == Hint(MAIL)
    assert second.is_empty


async def test_who_left_gets_no_hint(notifier: Notifier, subscribers: list[Subscriber]) -> None:
    first, second, third = subscribers
    notifier.unsubscribe(second)
    notifier.unsubscribe(second)
    notifier.publish(Hint(JOBS), by=first)
    assert await third.next() == Hint(JOBS)
    assert second.is_empty


async def test_subscribing_twice_gives_each_hint_once(notifier: Notifier, subscribers: list[Subscriber]) -> None:
    first, second, third = subscribers
    notifier.subscribe(second)
    notifier.publish(Hint(JOBS), by=first)
    await third.next()
    await second.next()
    assert second.is_empty


async def test_a_subscriber_may_leave_while_it_is_called(notifier: Notifier, subscribers: list[Subscriber]) -> None:
    leaving = Subscriber()

    def leave(hint: Hint) -> None:
        leaving(hint)
        notifier.unsubscribe(leave)

    notifier.subscribe(leave)
    later = Subscriber()
    notifier.subscribe(later)
    notifier.publish(Hint(JOBS), by=subscribers[0])
    assert await leaving.next() == await later.next() == Hint(JOBS)
    notifier.publish(Hint(JOBS), by=subscribers[0])
    await later.next()
    assert leaving.is_empty


async def test_a_closed_notifier_drops_hints_and_can_be_opened_again(
    notifier: Notifier, subscribers: list[Subscriber]
) -> None:
    first, second, _ = subscribers
    await notifier.close()
    await notifier.close()
    notifier.publish(Hint(JOBS), by=first)
    await notifier.open()
    notifier.publish(Hint(MAIL), by=first)
    assert await second.next() == Hint(MAIL)
