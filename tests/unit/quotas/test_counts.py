"""The counts of what tenants have taken."""

import asyncio
from collections.abc import Mapping

import pytest

from meshhost.errors import QuotaExceededError
from meshhost.quotas.counts import UNCOUNTED, LocalCounts, held
from meshhost.quotas.quota import Resource, ServerQuota
from meshhost.testing.clock import FakeClock

MESSAGES, QUEUES, ROOMS = Resource.MESSAGES, Resource.QUEUES, Resource.ROOMS


class Store:
    """What tenants keep, and how often it was counted."""

    def __init__(self) -> None:
        self.kept: dict[str, int] = {}
        self.counted = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.fails = False

    async def count(self, tenant: str) -> Mapping[Resource, int]:
        self.counted += 1
        number = self.kept.get(tenant, 0)
        await self.answers.wait()
        if self.fails:
            raise OSError("disk")
        return {MESSAGES: number, QUEUES: 1}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def quotas() -> dict[str, ServerQuota]:
    return {}


@pytest.fixture
def counts(store: Store, quotas: dict[str, ServerQuota], clock: FakeClock) -> LocalCounts:
    default = ServerQuota(max_messages=10, max_rooms=2)
    return LocalCounts(
        lambda tenant: quotas.get(tenant, default), sources=[(frozenset({MESSAGES, QUEUES}), store.count)], clock=clock
    )


async def sent(counts: LocalCounts, tenant: str, tries: int, store: Store | None = None) -> int:
    """How many of so many messages were taken, and stored where there is a store."""

    async def one() -> bool:
        try:
            await counts.take(tenant, MESSAGES)
        except QuotaExceededError:
            return False
        since = counts.mark()
        if store is not None:
            store.kept[tenant] = store.kept.get(tenant, 0) + 1
            await asyncio.sleep(0)
        counts.keep(tenant, MESSAGES, since=since)
        return True

    return sum(await asyncio.gather(*(one() for _ in range(tries))))


async def test_what_is_open_is_counted_from_zero_and_given_back(counts: LocalCounts) -> None:
    async with held(counts, "acme", ROOMS), held(counts, "acme", ROOMS):
        with pytest.raises(QuotaExceededError, match="max_rooms: 2 rooms may be open"):
            await counts.take("acme", ROOMS)
        await counts.take("rival", ROOMS)
    assert (await counts.use("acme"))[ROOMS] == 0
    assert (await counts.use("rival"))[ROOMS] == 1


async def test_a_refusal_gives_back_what_was_taken_with_it(counts: LocalCounts, quotas: dict[str, ServerQuota]) -> None:
    quotas["acme"] = ServerQuota(max_agents=0)
    with pytest.raises(QuotaExceededError, match="max_agents"):
        async with held(counts, "acme", Resource.CONNECTIONS, Resource.AGENTS):
            raise AssertionError("not reached")
    assert (await counts.use("acme"))[Resource.CONNECTIONS] == 0


async def test_what_is_kept_is_counted_once_and_then_in_memory(counts: LocalCounts, store: Store) -> None:
    store.kept["acme"] = 7
    assert await sent(counts, "acme", 2) == 2
    counts.free("acme", MESSAGES, since=counts.mark())
    assert await sent(counts, "acme", 1) == 1
    assert store.counted == 1
    assert (await counts.use("acme"))[MESSAGES] == 9
    assert counts.known() == {"acme": {MESSAGES: 9, QUEUES: 1}}


async def test_of_a_tenant_that_was_deleted_only_what_is_still_open_is_known(counts: LocalCounts, store: Store) -> None:
    for tenant in ("acme", "rival"):
        store.kept[tenant] = 7
        assert await sent(counts, tenant, 1) == 1
    async with held(counts, "acme", ROOMS):
        counts.forget("acme")
        assert counts.known() == {"acme": {ROOMS: 1}, "rival": {MESSAGES: 8, QUEUES: 1}}
    assert counts.known()["acme"] == {ROOMS: 0}


async def test_concurrent_callers_never_pass_the_limit_together(counts: LocalCounts, store: Store) -> None:
    store.kept["acme"] = 4
    assert await sent(counts, "acme", 100, store) == 6


async def test_places_that_are_taken_and_not_kept_yet_count(
    counts: LocalCounts, store: Store, clock: FakeClock
) -> None:
    for _ in range(6):
        await counts.take("acme", MESSAGES)
    store.kept["acme"] = 2
    await clock.advance(2.0)
    assert (await counts.use("acme"))[MESSAGES] == 8
    for _ in range(6):
        counts.give_back("acme", MESSAGES)
    assert (await counts.use("acme"))[MESSAGES] == 2


async def test_before_a_refusal_an_old_count_is_made_again(counts: LocalCounts, store: Store, clock: FakeClock) -> None:
    assert await sent(counts, "acme", 11) == 10
    store.kept["acme"] = 3  # another server took seven of them away
    assert await sent(counts, "acme", 1) == 0
    await clock.advance(2.0)
    assert await sent(counts, "acme", 20) == 7


async def test_what_others_took_is_counted_about_once_a_minute(
    counts: LocalCounts, store: Store, clock: FakeClock
) -> None:
    assert await sent(counts, "acme", 1) == 1
    store.kept["acme"] = 9
    await clock.advance(61.0)
    assert await sent(counts, "acme", 5) == 1


async def test_a_doubtful_count_is_made_again_before_a_refusal(counts: LocalCounts, store: Store) -> None:
    assert await sent(counts, "acme", 10) == 10
    store.kept["acme"] = 2
    counts.doubt("acme", MESSAGES)
    assert await sent(counts, "acme", 20) == 8
    counts.doubt("acme", ROOMS)
    assert (await counts.use("acme"))[ROOMS] == 0


async def test_an_operation_is_counted_once_when_it_overlaps_a_count(
    counts: LocalCounts, store: Store, clock: FakeClock
) -> None:
    assert await sent(counts, "acme", 4, store) == 4
    await counts.take("acme", MESSAGES)
    before = counts.mark()
    store.kept["acme"] += 1  # the store has it; the answer is on its way
    store.answers.clear()
    await clock.advance(61.0)
    using = asyncio.ensure_future(counts.use("acme"))
    await asyncio.sleep(0.01)
    later = counts.mark()
    counts.free("acme", MESSAGES, since=later)  # began after the count
    counts.keep("acme", MESSAGES, since=before)
    store.answers.set()
    assert (await using)[MESSAGES] == 4


async def test_a_failing_store_does_not_refuse_and_is_asked_again(
    counts: LocalCounts, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.kept["acme"] = 10
    store.fails = True
    assert await sent(counts, "acme", 1) == 1
    assert "was not counted" in caplog.text
    assert MESSAGES not in await counts.use("acme")
    assert counts.known() == {}
    store.fails = False
    assert await sent(counts, "acme", 1) == 0


async def test_a_tenant_that_causes_doubt_all_the_time_waits_for_a_slow_count(
    counts: LocalCounts, store: Store, clock: FakeClock
) -> None:
    store.kept["acme"] = 10
    store.answers.clear()
    sending = asyncio.ensure_future(sent(counts, "acme", 1))
    await asyncio.sleep(0)
    await clock.advance(0.15)  # what a count takes
    store.answers.set()
    assert await sending == 0
    counts.doubt("acme", MESSAGES)
    again = asyncio.ensure_future(sent(counts, "acme", 1))
    await clock.advance(1.0)
    assert store.counted == 1
    await clock.advance(0.6)
    assert await again == 0
    assert store.counted == 2


async def test_a_caller_that_is_cancelled_does_not_end_the_count_of_others(counts: LocalCounts, store: Store) -> None:
    store.answers.clear()
    first, second = (asyncio.ensure_future(sent(counts, "acme", 1)) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    store.answers.set()
    assert await second == 1
    assert store.counted == 1


async def test_a_source_that_takes_long_keeps_nobody_waiting(counts: LocalCounts, store: Store) -> None:
    counts.wait_seconds = 0.01
    store.kept["acme"] = 10
    store.answers.clear()
    assert await sent(counts, "acme", 1) == 1
    store.answers.set()
    await asyncio.sleep(0.01)
    assert await sent(counts, "acme", 1) == 0
    await counts.stop()


async def test_a_tenant_without_a_limit_is_not_counted_until_somebody_asks(
    counts: LocalCounts, store: Store, quotas: dict[str, ServerQuota]
) -> None:
    quotas["acme"] = ServerQuota(max_messages=None)
    store.kept["acme"] = 100
    assert await sent(counts, "acme", 5, store) == 5
    assert store.counted == 0
    assert (await counts.use("acme"))[MESSAGES] == 105


async def test_the_server_without_quotas_counts_nothing() -> None:
    await UNCOUNTED.take("acme", ROOMS)
    UNCOUNTED.give_back("acme", ROOMS)
    UNCOUNTED.keep("acme", MESSAGES, since=UNCOUNTED.mark())
    UNCOUNTED.free("acme", MESSAGES, since=UNCOUNTED.mark())
    UNCOUNTED.doubt("acme", ROOMS)
    assert UNCOUNTED.known() == {}
    assert await UNCOUNTED.use("acme") == {}


async def test_what_may_be_more_than_is_counted_is_counted_before_more_is_taken(
    counts: LocalCounts, store: Store, clock: FakeClock
) -> None:
    await counts.take("acme", MESSAGES)
    store.kept["acme"] = 10
    counts.doubt("acme", MESSAGES, may_be_more=True)
    await counts.take("acme", MESSAGES)  # not at every request
    assert store.counted == 1
    await clock.advance(2.0)
    with pytest.raises(QuotaExceededError):
        await counts.take("acme", MESSAGES)
    counted = store.counted
    store.kept["acme"] = 0
    await clock.advance(2.0)
    await counts.take("acme", MESSAGES)
    assert store.counted == counted + 1
