"""Waits between tries grow, to a bound."""

import math

from hypothesis import given
from hypothesis import strategies as st

from meshhost.queues.retry import RetryPolicy

POLICIES = st.builds(
    RetryPolicy,
    first_delay=st.floats(0, 1e6),
    max_delay=st.floats(0, 1e6),
    factor=st.floats(1, 1000),
)


@given(policy=POLICIES, attempt=st.integers(1, 10**9))
def test_the_bound_never_falls_and_never_passes_the_cap(policy: RetryPolicy, attempt: int) -> None:
    assert 0 <= policy.longest(attempt) <= policy.longest(attempt + 1) <= policy.max_delay


@given(policy=POLICIES, attempt=st.integers(1, 100), number=st.floats(0, 1))
def test_a_wait_is_a_part_of_the_bound(policy: RetryPolicy, attempt: int, number: float) -> None:
    assert 0 <= policy.delay(attempt, lambda: number) <= policy.longest(attempt)


def test_the_first_bounds_are_those_of_the_policy() -> None:
    policy = RetryPolicy(first_delay=2, max_delay=10, factor=2)
    assert [policy.longest(attempt) for attempt in (1, 2, 3, 4, 1000)] == [2, 4, 8, 10, 10]
    assert policy.delay(2, lambda: 0.25) == 1
    assert math.isfinite(policy.longest(10**18))
