"""Reports of work: where they go, and what sums keep of them."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import InvalidRequestError
from meshhost.usage import (
    BOUNDS,
    OUTCOMES,
    Durations,
    Tally,
    UsageSums,
    current_sink,
    report_message,
    report_tokens,
    reporting_to,
)

wild = st.floats() | st.integers()
reports = st.lists(
    st.tuples(st.sampled_from(OUTCOMES), st.none() | st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 10**6)),
    max_size=20,
)


def report(reported: list) -> Tally:
    tally = Tally()
    with reporting_to(tally):
        for outcome, waited, worked, tokens in reported:
            report_message(outcome, waited=waited, worked=worked)
            report_tokens("m", tokens, 2 * tokens)
    return tally


def test_without_a_sink_nothing_happens() -> None:
    assert current_sink() is None
    report_message("done", waited=1.0, worked=1.0)
    report_tokens("m", 1, 1)


def test_reports_are_added_up() -> None:
    sums = report([("done", 0.003, 2.0, 10), ("done", None, 0.5, 0), ("failed", 9999.0, 0.0, 1)]).sums()
    assert sums.messages == {"done": 2, "failed": 1}
    assert (sums.input_tokens, sums.output_tokens) == (11, 22)
    assert (sum(sums.waits.counts), sums.waits.counts[0], sums.waits.counts[-1]) == (2, 1, 1)
    assert (sum(sums.works.counts), sums.works.total) == (3, 2.5)


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_bucket_has_what_is_up_to_its_bound(bound: float) -> None:
    durations = Durations()
    durations.observe(bound)
    durations.observe(math.nextafter(bound, math.inf))
    place = BOUNDS.index(bound)
    assert durations.counts[place : place + 2] == [1, 1]


async def test_the_innermost_sink_counts_also_in_the_tasks_begun_there() -> None:
    outer, inner = Tally(), Tally()

    async def work() -> None:
        await asyncio.to_thread(report_tokens, "m", 1, 2)

    with reporting_to(outer):
        with reporting_to(inner):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(work())
        with reporting_to(None):
            report_tokens("m", 5, 5)
        assert current_sink() is outer
    assert outer.take() is None
    assert inner.sums() == UsageSums(input_tokens=1, output_tokens=2)


def test_an_outcome_that_is_none_is_named_also_without_a_sink() -> None:
    with pytest.raises(InvalidRequestError, match="expected one of done, failed"):
        report_message("fine", worked=1.0)  # type: ignore[arg-type]


@given(waited=wild, worked=wild, tokens=wild)
def test_whatever_is_reported_sums_stay_finite_and_never_fall(waited: float, worked: float, tokens: float) -> None:
    tally = Tally()
    with reporting_to(tally):
        report_message("done", waited=waited, worked=worked)
        report_tokens("m", tokens, tokens)  # type: ignore[arg-type]
    sums = tally.sums()
    for number in (sums.waits.total, sums.works.total, sums.input_tokens, sums.output_tokens):
        assert 0 <= number <= 10**9


@given(before=reports, after=reports)
def test_what_is_taken_in_parts_makes_up_the_whole(before: list, after: list) -> None:
    tally = report(before)
    parts = [tally.take()]
    assert tally.take() is None
    tally.add(report(after).sums())
    parts.append(tally.take())
    whole = Tally()
    for part in parts:
        if part is not None:
            whole.add(part)
    expected = report([*before, *after]).sums()
    assert whole.sums().works.total == pytest.approx(expected.works.total)
    assert whole.sums().waits.total == pytest.approx(expected.waits.total)
    for sums in (seen := whole.sums(), expected):
        sums.works.total = sums.waits.total = 0.0
    assert seen == expected


def test_sums_that_were_given_out_do_not_change() -> None:
    tally = report([("done", 1.0, 1.0, 1)])
    shown = tally.sums()
    with reporting_to(tally):
        report_message("done", worked=1.0)
    assert shown.messages == {"done": 1}
    assert sum(shown.works.counts) == 1
