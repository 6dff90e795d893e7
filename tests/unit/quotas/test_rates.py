"""Requests per second of tenants."""

import pytest

from meshhost.errors import QuotaExceededError
from meshhost.quotas.quota import ServerQuota
from meshhost.quotas.rates import TenantRates
from meshhost.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def passed(rates: TenantRates, tenant: str, requests: int) -> int:
    count = 0
    for _ in range(requests):
        try:
            rates.take(tenant)
        except QuotaExceededError:
            continue
        count += 1
    return count


async def test_a_tenant_gets_its_burst_and_then_its_rate(clock: FakeClock) -> None:
    rates = TenantRates(lambda _: ServerQuota(requests_per_second=20.0), clock=clock)
    assert passed(rates, "acme", 100) == 20
    assert rates.pause("acme") == 0.0
    await clock.advance(0.5)
    assert passed(rates, "acme", 100) == 10


def test_a_tenant_over_its_rate_takes_nothing_of_another(clock: FakeClock) -> None:
    rates = TenantRates(lambda _: ServerQuota(requests_per_second=20.0), clock=clock)
    assert passed(rates, "acme", 100) == 20
    assert passed(rates, "rival", 100) == 20


def test_a_tenant_without_a_rate_is_never_refused(clock: FakeClock) -> None:
    rates = TenantRates(lambda _: ServerQuota(), clock=clock)
    assert passed(rates, "acme", 1000) == 1000
    assert rates.pause("acme") == 0.0


async def test_what_must_not_be_refused_makes_a_debt_of_at_most_a_burst(clock: FakeClock) -> None:
    rates = TenantRates(lambda _: ServerQuota(requests_per_second=20.0), clock=clock)
    for _ in range(500):
        rates.take("acme", may_refuse=False)
    assert rates.pause("acme") == 1.0
    await clock.advance(0.5)
    assert rates.pause("acme") == pytest.approx(0.5)
    await clock.advance(0.6)
    assert passed(rates, "acme", 10) == 2


def test_a_changed_rate_holds_at_once(clock: FakeClock) -> None:
    quotas = {"acme": ServerQuota(requests_per_second=20.0)}
    rates = TenantRates(quotas.__getitem__, clock=clock)
    assert passed(rates, "acme", 100) == 20
    quotas["acme"] = ServerQuota(requests_per_second=50.0)
    assert passed(rates, "acme", 100) == 50
    quotas["acme"] = ServerQuota()
    assert passed(rates, "acme", 100) == 100


async def test_new_connections_have_a_rate_of_their_own(clock: FakeClock) -> None:
    rates = TenantRates(lambda _: ServerQuota(connections_per_second=20.0), clock=clock)
    for _ in range(20):
        rates.connect("acme")
    with pytest.raises(QuotaExceededError, match=r"20 new connections per second; try again in 0\.05 s") as refused:
        rates.connect("acme")
    assert (refused.value.quota, refused.value.retry_after) == ("connections_per_second", pytest.approx(0.05))
    assert passed(rates, "acme", 100) == 100
    rates.connect("rival")
    await clock.advance(0.05)
    rates.connect("acme")


async def test_each_that_is_refused_is_told_a_turn_of_its_own(clock: FakeClock) -> None:
    rates = TenantRates(lambda _: ServerQuota(requests_per_second=20.0), clock=clock)
    passed(rates, "acme", 20)

    def told() -> float | None:
        with pytest.raises(QuotaExceededError) as refused:
            rates.take("acme")
        return refused.value.retry_after

    assert [told() for _ in range(3)] == pytest.approx([0.05, 0.1, 0.15])
    assert [told() for _ in range(100)][-1] == pytest.approx(1.0), "a turn is never further off than this"
    await clock.advance(5.0)
    assert passed(rates, "acme", 20) == 20
    assert told() == pytest.approx(0.05), "turns that nobody took are forgotten"
