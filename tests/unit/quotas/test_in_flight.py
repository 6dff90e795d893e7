"""Bytes in flight: they are bounded by connection, tenant and server, and who waits is served in order."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import ConnectionLostError, LimitExceededError
from meshhost.quotas.in_flight import FREE_BYTES, Account, InFlight
from meshhost.quotas.quota import ServerQuota

MB = 1_000_000


def in_flight(server: int = 10 * MB, tenant: int | None = 5 * MB) -> InFlight:
    return InFlight(server, lambda _: ServerQuota(max_in_flight_bytes=tenant))


async def waiting(account: Account, size: int) -> asyncio.Task[None]:
    task = asyncio.create_task(account.reserve(size))
    await asyncio.sleep(0)
    return task


async def is_done(task: asyncio.Task[None]) -> bool:
    await asyncio.sleep(0)
    return task.done()


def test_a_connection_holds_no_more_than_its_own_limit() -> None:
    account = in_flight().account("t", max_bytes=2 * MB)

    assert account.take(2 * MB)
    assert not account.take(1)
    account.give_back(MB)
    assert account.take(MB)


def test_a_tenant_holds_no_more_than_its_limit_over_all_connections() -> None:
    everything = in_flight()
    one, two, other = (everything.account(tenant, max_bytes=10 * MB) for tenant in ("t", "t", "u"))

    assert one.take(3 * MB)
    assert not two.take(3 * MB)
    assert other.take(3 * MB)
    assert two.take(2 * MB)


def test_all_tenants_hold_no_more_than_the_limit_of_the_server() -> None:
    everything = in_flight(server=8 * MB, tenant=None)
    one, two = (everything.account(tenant, max_bytes=10 * MB) for tenant in "tu")

    assert one.take(5 * MB)
    assert not two.take(5 * MB)
    assert two.take(3 * MB)


def test_a_little_is_free_for_each_connection_whatever_others_do() -> None:
    everything = in_flight(server=MB)
    greedy, small = everything.account("t", max_bytes=10 * MB), everything.account("t", max_bytes=10 * MB)
    assert greedy.take(MB + FREE_BYTES)

    assert small.take(FREE_BYTES)
    assert not small.take(1)
    assert small.take(1, may_refuse=False)
    assert everything.total == MB + 1


async def test_who_waits_is_served_in_order_and_overtaken_by_nobody() -> None:
    account = in_flight().account("t", max_bytes=MB)
    assert account.take(MB)
    large, small = await waiting(account, MB - 10), await waiting(account, 10)
    account.give_back(10)
    assert not await is_done(small)
    assert not account.take(5)
    account.give_back(MB - 10)

    assert await is_done(large)
    assert await is_done(small)


async def test_a_tenant_without_room_holds_up_no_other() -> None:
    everything = in_flight()
    one, other = everything.account("t", max_bytes=10 * MB), everything.account("u", max_bytes=10 * MB)
    assert one.take(5 * MB)
    stuck = await waiting(one, 2 * MB)

    assert await is_done(await waiting(other, 5 * MB))
    assert not stuck.done()
    one.give_back(5 * MB)
    assert await is_done(stuck)


async def test_who_waits_for_the_server_is_not_starved_by_smaller_ones() -> None:
    everything = in_flight(server=4 * MB)
    one, two, three = (everything.account(tenant, max_bytes=10 * MB) for tenant in "tuv")
    assert one.take(3 * MB)
    large, small = await waiting(two, 2 * MB), await waiting(three, MB // 2)

    assert not await is_done(small)
    one.give_back(3 * MB)
    assert await is_done(large)
    assert await is_done(small)


async def test_what_can_never_fit_is_refused_at_once() -> None:
    account = in_flight().account("t", max_bytes=20 * MB)

    with pytest.raises(LimitExceededError, match="message of 6000000 bytes, and at most 5065536 may be in flight"):
        await account.reserve(6 * MB)


async def test_who_gives_up_waiting_holds_nothing_and_lets_others_pass() -> None:
    account = in_flight().account("t", max_bytes=MB)
    assert account.take(MB // 2)
    first, second = await waiting(account, MB), await waiting(account, MB // 2)
    first.cancel()

    await asyncio.wait({first, second})
    assert second.exception() is None
    assert account.held == MB


async def test_who_gives_up_just_when_it_is_served_gives_back() -> None:
    account = in_flight().account("t", max_bytes=MB)
    assert account.take(MB)
    task = await waiting(account, MB)
    account.give_back(MB)
    task.cancel()

    await asyncio.wait({task})
    assert account.held == 0


async def test_a_closed_account_holds_nothing_and_ends_its_waits() -> None:
    everything = in_flight()
    account, other = everything.account("t", max_bytes=5 * MB), everything.account("t", max_bytes=5 * MB)
    assert account.take(5 * MB)
    mine, others = await waiting(account, MB), await waiting(other, MB)
    account.close()
    account.close()

    await asyncio.wait({mine, others})
    assert isinstance(mine.exception(), ConnectionLostError)
    assert others.exception() is None
    account.give_back(5 * MB)
    assert account.take(5 * MB)
    assert account.held == 0
    other.close()
    assert (everything.total, everything.of_tenant("t")) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-200_000, 200_000)), max_size=40))
def test_what_is_counted_is_what_the_accounts_hold(changes: list[tuple[int, int]]) -> None:
    everything = in_flight(server=MB, tenant=600_000)
    accounts = [everything.account("tu"[number % 2], max_bytes=400_000) for number in range(4)]
    for number, size in changes:
        if size < 0:
            accounts[number].give_back(-size)
        else:
            accounts[number].take(size)
        assert everything.total == sum(max(account.held - FREE_BYTES, 0) for account in accounts) <= MB
        assert everything.of_tenant("t") <= 600_000
        assert all(account.held <= 400_000 for account in accounts)


async def test_one_that_is_cancelled_while_room_appears_takes_none_of_it() -> None:
    account = in_flight().account("t", max_bytes=MB)
    assert account.take(MB)
    first, second, third = await waiting(account, MB), await waiting(account, MB), await waiting(account, 1)
    first.cancel()
    account.give_back(MB)
    third.cancel()
    account.close()

    await asyncio.wait({first, second, third})
    assert first.cancelled()
    assert third.cancelled()
    assert account.held == 0
