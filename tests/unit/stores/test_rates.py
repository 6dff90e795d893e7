"""The arithmetic of rates: what a burst allows, and that no order of starts, pauses and clocks set back breaks the bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import InvalidRequestError
from meshhost.stores.queue_settings import QueueSettings
from meshhost.stores.rates import Rate, rate_of


def rate(text: str, burst: int | None = None) -> Rate:
    found = rate_of(text, burst)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "interval", "burst"),
    [
        ("10/s", 0.1, 10),
        ("10/sec", 0.1, 10),
        ("2.5/second", 0.4, 2),
        ("600/m", 0.1, 10),
        ("30/min", 2.0, 1),
        ("100/hour", 36.0, 1),
        ("0.5/s", 2.0, 1),
    ],
)
def test_a_rate_is_read_as_people_write_it_and_bursts_by_a_second(text: str, interval: float, burst: int) -> None:
    assert rate(text).interval == pytest.approx(interval)
    assert rate(text).burst == burst
    assert rate(text, 7).burst == 7
    assert rate_of(None) is None


@pytest.mark.parametrize(
    "text", ["", "10", "10/d", "/s", "-1/s", "1e3/s", "0/s", "1000001/s", "1/h ", "0.01/h", "ten/s"]
)
def test_what_is_no_rate_is_refused_with_examples(text: str) -> None:
    for name in ("rate", "key_rate"):
        with pytest.raises(InvalidRequestError, match=rf"{name}: expected (starts per time, such as 10/s|between)"):
            QueueSettings(**{name: text})
    with pytest.raises(InvalidRequestError, match="burst: expected a number from 1"):
        QueueSettings(burst=0)


def test_a_burst_comes_at_once_and_then_one_after_each_interval() -> None:
    limit, until, now = rate("10/s", 3), 0.0, 1000.0
    assert limit.places(until, now) == 3
    until = limit.taken(until, now, 3)
    assert limit.places(until, now) == 0
    assert limit.next_at(until, now) == pytest.approx(now + 0.1)
    assert limit.places(until, limit.next_at(until, now)) == 1
    assert limit.places(until, now + 0.25) == 2
    assert limit.places(until, now + 60) == 3


def test_no_clock_that_is_set_back_makes_anybody_wait_longer_than_a_burst() -> None:
    limit = rate("1/m", 2)
    until = limit.taken(0.0, 1_000_000.0, 2)
    assert limit.next_at(until, 10.0) == 10.0 + 60


@given(
    interval=st.sampled_from(["10/s", "1/s", "1/m"]),
    burst=st.integers(1, 5),
    steps=st.lists(st.tuples(st.floats(0, 100), st.integers(1, 4), st.sampled_from([0.0, 0.0, -1e6])), max_size=40),
)
def test_over_any_time_no_more_is_started_than_the_burst_and_the_rate_allow(
    interval: str, burst: int, steps: list[tuple[float, int, float]]
) -> None:
    limit, until, true_time, clock = rate(interval, burst), 0.0, 0.0, 1e9
    starts: list[float] = []
    for pause, wanted, jump in steps:
        true_time, clock = true_time + pause, clock + pause + jump
        count = min(wanted, limit.places(until, clock))
        until = limit.taken(until, clock, count) if count else until
        starts += [true_time] * count
    for first, begin in enumerate(starts):
        for last in range(first, len(starts)):
            assert last - first + 1 <= burst + (starts[last] - begin) / limit.interval + 0.1
