import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import CallRefusedError, SettingsError
from meshhost.hosting.tenants.quotas import Quotas, TenantQuota, TokenBucket
from meshhost.testing.clock import FakeClock


def refused(quotas, tenant="acme", *, live=0, waiting=0):
    with pytest.raises(CallRefusedError) as error:
        quotas.admit(tenant, live=live, waiting=waiting)
    assert error.value.status == 429
    return str(error.value), error.value.retry_after


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_agents": -1},
        {"starts_per_second": 0},
        {"starts_per_second": float("inf")},
        {"max_waiting": 0},
        {"weight": 0},
        {"memory_mb": 0},
        {"memory_mb": float("inf")},
    ],
)
def test_a_quota_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(SettingsError):
        TenantQuota(**wrong)


def test_a_tenant_with_its_most_agents_is_refused_and_others_are_not():
    quotas = Quotas(clock=FakeClock(), overrides={"acme": TenantQuota(max_agents=2, weight=3)})
    quotas.admit("acme", live=1, waiting=0)
    assert refused(quotas, live=2) == ("over the tenant's quota max_agents: 2 agents of this tenant may live here", 5.0)
    quotas.admit("other", live=2, waiting=0)
    assert (quotas.weight("acme"), quotas.weight("other")) == (3, 1)


def test_a_tenant_with_too_many_waiting_starts_is_refused():
    quotas = Quotas(clock=FakeClock(), default=TenantQuota(max_waiting=2))
    quotas.admit("acme", live=9, waiting=1)
    text, retry_after = refused(quotas, live=9, waiting=2)
    assert "max_waiting: 2" in text
    assert retry_after == 5.0


async def test_starts_per_second_allow_a_burst_and_tell_when_the_next_may_come():
    clock = FakeClock()
    quotas = Quotas(clock=clock, default=TenantQuota(starts_per_second=2))
    for _ in range(2):
        quotas.admit("acme", live=0, waiting=0)
    text, retry_after = refused(quotas)
    assert "starts_per_second: 2" in text
    assert retry_after == pytest.approx(0.5)
    quotas.admit("other", live=0, waiting=0)
    await clock.advance(0.5)
    quotas.admit("acme", live=0, waiting=0)
    refused(quotas)


async def test_a_slow_rate_lets_one_pass_and_then_makes_wait():
    clock = FakeClock()
    quotas = Quotas(clock=clock, default=TenantQuota(starts_per_second=0.1))
    quotas.admit("acme", live=0, waiting=0)
    _, retry_after = refused(quotas)
    assert retry_after == pytest.approx(10)
    await clock.advance(10)
    quotas.admit("acme", live=0, waiting=0)


async def test_tenants_of_long_ago_are_forgotten():
    clock = FakeClock()
    quotas = Quotas(clock=clock, default=TenantQuota(starts_per_second=1), max_buckets=3)
    for number in range(3):
        quotas.admit(f"t{number}", live=0, waiting=0)
    await clock.advance(1)
    quotas.admit("recent", live=0, waiting=0)
    assert set(quotas._buckets) == {"recent"}
    refused(quotas, "recent")


@given(
    rate=st.floats(0.01, 1000),
    steps=st.lists(st.floats(0, 100), max_size=60),
)
def test_no_more_pass_than_the_rate_and_one_burst_allow(rate, steps):
    clock = FakeClock(0)
    bucket = TokenBucket(rate, max(1.0, rate), clock=clock)
    passed, elapsed = 0, 0.0
    for step in steps:
        clock.skip(step)
        elapsed += step
        while passed < 3000 and bucket.wait() == 0:
            bucket.take()
            passed += 1
    assert passed <= max(1.0, rate) + elapsed * rate + 1e-6 * (1 + passed)


@given(rate=st.floats(0.01, 1000))
def test_who_waits_as_long_as_told_may_pass(rate):
    clock = FakeClock(1e6)
    bucket = TokenBucket(rate, max(1.0, rate), clock=clock)
    for _ in range(20):
        if (seconds := bucket.wait()) > 0:
            clock.skip(seconds + 1e-6)
        assert bucket.wait() == 0
        bucket.take()
