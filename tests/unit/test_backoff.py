"""Waits between tries grow, up to a cap, and spread."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.backoff import Backoff

BACKOFFS = st.builds(
    Backoff,
    first_delay=st.floats(0, 1e6),
    max_delay=st.floats(0, 1e6),
    factor=st.floats(1, 1000),
    jitter=st.floats(0, 1),
)


@given(backoff=BACKOFFS, attempt=st.integers(1, 10**9))
def test_the_bound_never_falls_and_never_passes_the_cap(backoff: Backoff, attempt: int) -> None:
    assert 0 <= backoff.longest(attempt) <= backoff.longest(attempt + 1) <= backoff.max_delay


@given(backoff=BACKOFFS, attempt=st.integers(1, 100), number=st.floats(0, 1))
def test_a_wait_lies_within_its_bounds(backoff: Backoff, attempt: int, number: float) -> None:
    wait = backoff.delay(attempt, lambda: number)
    # The last digit of a float may be rounded up.
    assert backoff.shortest(attempt) * (1 - 1e-9) <= wait <= backoff.longest(attempt) * (1 + 1e-9)


def test_the_first_bounds_double_from_the_first_delay_to_the_cap() -> None:
    backoff = Backoff(first_delay=2, max_delay=10, factor=2)
    assert [backoff.longest(attempt) for attempt in (1, 2, 3, 4, 1000)] == [2, 4, 8, 10, 10]
    assert math.isfinite(backoff.longest(10**18))
    assert Backoff(first_delay=0, max_delay=10).longest(10**18) == 0


@pytest.mark.parametrize(("jitter", "waits"), [(1.0, (0, 1, 4)), (0.5, (2, 2.5, 4)), (0.0, (4, 4, 4))])
def test_jitter_is_the_random_part_of_a_wait(jitter: float, waits: tuple[float, ...]) -> None:
    backoff = Backoff(first_delay=2, max_delay=10, jitter=jitter)
    assert tuple(backoff.delay(2, lambda number=number: number) for number in (0.0, 0.25, 1.0)) == waits


@pytest.mark.parametrize(
    "wrong", [{"first_delay": -1}, {"max_delay": -1}, {"factor": 0.5}, {"jitter": 1.5}, {"first_delay": math.nan}]
)
def test_waits_that_would_shrink_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected delays of at least 0"):
        Backoff(**wrong)
