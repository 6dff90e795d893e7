"""When schedules are due: cron lines where clocks change, intervals and single times, and what a wrong line is told."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from meshhost.errors import InvalidRequestError
from meshhost.triggers.timing import Cron, Interval, Once, Timing, check_time, shortest_gap

BERLIN, LORD_HOWE, ADELAIDE = "Europe/Berlin", "Australia/Lord_Howe", "Australia/Adelaide"
DAY = 24 * 3600.0


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def following(timing: Timing, time: float, count: int) -> list[str]:
    found = []
    for _ in range(count):
        due = timing.after(time)
        assert due is not None
        assert due > time
        found.append(datetime.fromtimestamp(due, UTC).strftime("%m-%d %H:%M"))
        time = due
    return found


def test_a_fixed_time_in_the_skipped_hour_runs_once_right_after_it() -> None:
    # 2027-03-28 in Berlin: after 01:59 comes 03:00.
    assert following(Cron("30 2 * * *", BERLIN), utc("2027-03-27T00:00"), 3) == [
        "03-27 01:30",
        "03-28 01:00",
        "03-29 00:30",
    ]


def test_a_fixed_time_in_the_repeated_hour_runs_the_first_time_only() -> None:
    # 2027-10-31 in Berlin: after 02:59 comes 02:00 again.
    cron = Cron("30 2 * * *", BERLIN)
    assert following(cron, utc("2027-10-30T00:00"), 3) == ["10-30 00:30", "10-31 00:30", "11-01 01:30"]
    # Asked in the second of the two hours, it is over.
    assert cron.after(utc("2027-10-31T01:10")) == utc("2027-11-01T01:30")
    assert list(cron.up_to(utc("2027-10-31T01:10"), since=0.0, most=1)) == [utc("2027-10-31T00:30")]


def test_a_line_with_a_star_goes_by_elapsed_time() -> None:
    assert following(Cron("0 * * * *", BERLIN), utc("2027-10-30T23:30"), 4) == [
        "10-31 00:00",
        "10-31 01:00",
        "10-31 02:00",
        "10-31 03:00",
    ]
    assert following(Cron("*/30 * * * *", BERLIN), utc("2027-03-28T00:15"), 3) == [
        "03-28 00:30",
        "03-28 01:00",
        "03-28 01:30",
    ]


def test_a_change_by_half_an_hour_and_an_offset_with_half_an_hour_are_kept() -> None:
    # Lord Howe, 2027-04-04: at 02:00 (+11:00) it is 01:30 (+10:30) again; 2027-10-03: after 01:59 comes 02:30.
    assert following(Cron("45 1 * * *", LORD_HOWE), utc("2027-04-02T00:00"), 3) == [
        "04-02 14:45",
        "04-03 14:45",
        "04-04 15:15",
    ]
    assert following(Cron("15 2 * * *", LORD_HOWE), utc("2027-10-01T00:00"), 3) == [
        "10-01 15:45",
        "10-02 15:30",
        "10-03 15:15",
    ]
    assert following(Cron("30 8 * * *", ADELAIDE), utc("2027-04-02T12:00"), 2) == ["04-02 22:00", "04-03 23:00"]


LINES = [
    "* * * * *",
    "*/7 * * * *",
    "0 * * * *",
    "30 2 * * *",
    "0,30 1-3 * * *",
    "15 2 28 3 0",
    "59 23 L * *",
    "*/30 2 * * *",
]
ZONES = ["UTC", BERLIN, LORD_HOWE, ADELAIDE, "Asia/Kolkata", "America/St_Johns"]
CHANGES = ["2027-03-28T01:00", "2027-10-31T01:00", "2027-04-03T15:00", "2027-10-02T15:30", "2027-06-01T12:00"]


@given(
    line=st.sampled_from(LINES),
    zone=st.sampled_from(ZONES),
    change=st.sampled_from(CHANGES),
    offset=st.integers(-8 * 3600, 8 * 3600),
    length=st.floats(0, 30 * 3600),
)
def test_backwards_there_are_the_same_occurrences_as_forwards(
    line: str, zone: str, change: str, offset: int, length: float
) -> None:
    # Where the clock changes by half an hour, cronsim looks for a fixed hour in whole hours and may find its second half.
    assume((zone, line) != (LORD_HOWE, "*/30 2 * * *"))
    cron, since = Cron(line, zone), utc(change) + offset
    until = since + length
    forwards, due = [], cron.after(since - 0.5)
    while due is not None and due <= until:
        forwards.append(due)
        due = cron.after(due)

    assert list(cron.up_to(until, since=since, most=10_000)) == forwards
    assert list(cron.up_to(until, since=since, most=3)) == forwards[-3:]


@given(zone=st.sampled_from(ZONES), change=st.sampled_from(CHANGES), minutes=st.integers(-600, 600))
def test_an_occurrence_shows_what_the_line_says(zone: str, change: str, minutes: int) -> None:
    due = Cron("*/20 3,4 * * *", zone).after(utc(change) + 60 * minutes)
    assert due is not None
    shown = datetime.fromtimestamp(due, ZoneInfo(zone))
    assert (shown.hour in {3, 4} and shown.minute % 20 == 0) or shown.utcoffset() != (
        shown - timedelta(hours=2)
    ).utcoffset()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("61 * * * *", "cron: minute: expected 0-59, got '61'"),
        ("* 24 * * *", "cron: hour: expected 0-23, got '24'"),
        ("* * 0 * *", "cron: day-of-month: expected 1-31"),
        ("0 0 31 2 *", "cron: day-of-month: expected 1-31, L or LW, in a month that has that day"),
        ("* * * DEZ *", "cron: month: expected 1-12 or JAN-DEC, got 'DEZ'"),
        ("* * * * 8", "cron: day-of-week: expected 0-7 or SUN-SAT, got '8'"),
        ("* * * *", "cron: expected five fields .*, got 4"),
        ("0 * * * * *", "cron: expected five fields .*, got 6"),
        ("0,*/0 * * * *", "cron: minute"),
        ("@often", "cron: expected five fields"),
        ("0 " * 200, "cron: expected five fields"),
        (f"{'0,' * 100}0 * * * *", "cron: expected five fields"),
        ("0 0 29 2 MON#5,", "cron: day-of-week"),
    ],
)
def test_a_wrong_line_is_told_which_field_is_wrong(line: str, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        Cron(line)


def test_a_line_that_never_runs_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="day-of-month"):
        Cron("0 0 30 2 *")
    with pytest.raises(InvalidRequestError, match="never run"):
        Cron("0 0 */31 * MON#5")  # the first day is no fifth Monday


def test_a_wrong_zone_is_told() -> None:
    for zone in ("Europe/Bonn", "", "../etc/passwd", "/etc/localtime", "Europe", "\0"):
        with pytest.raises(InvalidRequestError, match="timezone: expected the name of a time zone"):
            Cron("* * * * *", zone)


def test_names_of_usual_lines_are_known() -> None:
    assert Cron("@Daily ", BERLIN).after(utc("2027-01-01T12:00")) == utc("2027-01-01T23:00")


@given(seconds=st.floats(10, 1e6), start=st.floats(0, 2e9), time=st.floats(0, 2e9), most=st.integers(0, 5))
def test_an_interval_goes_on_from_its_start(seconds: float, start: float, time: float, most: int) -> None:
    interval = Interval(seconds, start)
    due = interval.after(time)
    assert due is not None
    assert max(start, time) <= due <= max(start, time + seconds + 1e-3)
    found = interval.up_to(time, since=time - 3.5 * seconds, most=most)
    assert len(found) <= min(most, 4)
    assert all(time - 3.5 * seconds <= each <= time and each >= start for each in found)
    assert all(interval.after(each) == following for each, following in pairwise(found))
    if found:
        assert interval.after(found[-1]) == due


@pytest.mark.parametrize("seconds", [0.0, 9.9, -1.0, float("nan"), 367 * DAY])
def test_an_interval_has_bounds(seconds: float) -> None:
    with pytest.raises(InvalidRequestError, match="every: expected from 10 seconds"):
        Interval(seconds, 0.0)


def test_one_time_is_due_once() -> None:
    once = Once(10.0)
    assert (once.after(9.0), once.after(10.0)) == (10.0, None)
    assert list(once.up_to(10.0, since=10.0, most=5)) == [10.0]
    assert list(once.up_to(9.0, since=0.0, most=5)) == []
    assert list(once.up_to(20.0, since=11.0, most=5)) == []


def test_the_shortest_gap_is_found_within_a_year() -> None:
    start = utc("2027-01-01T00:00")
    assert shortest_gap(Cron("0 8,9 * * 1"), start) == 3600.0
    assert shortest_gap(Cron("0 0 29 2 *"), start) is None  # beyond a year
    assert shortest_gap(Interval(90.0, start), start) == 90.0
    assert shortest_gap(Once(start + 1), start) is None
    assert shortest_gap(Once(start), start) is None


def test_times_are_those_of_a_calendar() -> None:
    assert check_time(5.0) == 5.0
    for time in (-1.0, 1e15, float("nan"), float("inf")):
        with pytest.raises(InvalidRequestError, match="at: expected a time"):
            check_time(time)
