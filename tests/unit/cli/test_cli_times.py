"""Durations and times of options."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest
import typer

from meshhost.cli.times import moment_of, past_moment_of, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86400), ("5", 5), ("0.5m", 30), ("0", 0)]
)
def test_a_duration_is_read_with_its_unit(text: str, seconds: float) -> None:
    assert seconds_of(text, option="--ttl") == seconds


@pytest.mark.parametrize("text", ["", "m", "10x", "-5s", "nan", "inf", "ten minutes"])
def test_a_wrong_duration_is_refused_with_the_option(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a duration") as raised:
        seconds_of(text, option="--ttl")
    assert raised.value.param_hint == "--ttl"


@pytest.mark.parametrize(
    ("text", "bounds", "said"),
    [
        ("31d", {"most": 30 * 86400.0}, "expected at most 30d, got '31d'"),
        ("2h", {"most": 5400.0}, "expected at most 90m, got '2h'"),
        ("0", {"needs_some": True, "most": 60.0}, "expected more than 0 and at most 1m, got '0'"),
        ("0s", {"needs_some": True}, "expected more than 0, got '0s'"),
    ],
)
def test_a_duration_out_of_its_bounds_is_refused_in_the_units_of_users(text: str, bounds: Any, said: str) -> None:
    with pytest.raises(typer.BadParameter) as raised:
        seconds_of(text, option="--ttl", **bounds)
    assert raised.value.message == said
    assert seconds_of("1m", option="--ttl", **bounds) == 60


def test_a_time_is_read_with_its_offset_and_else_in_the_local_zone() -> None:
    assert moment_of("2026-12-01T08:00+02:00", option="--at") == datetime(2026, 12, 1, 6, tzinfo=UTC).timestamp()
    assert moment_of("2026-12-01T08:00", option="--at") == datetime(2026, 12, 1, 8).timestamp()  # noqa: DTZ001 - local
    assert moment_of("2026-12-01", option="--at") == datetime(2026, 12, 1).timestamp()  # noqa: DTZ001 - local


@pytest.mark.parametrize("text", ["tomorrow", "2026-13-01"])
def test_a_wrong_time_is_refused_with_the_option(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a time such as"):
        moment_of(text, option="--at")


def test_a_time_of_the_past_may_be_how_long_ago_it_is() -> None:
    before = time.time()
    found = past_moment_of("2h", option="--since")
    assert before - 7200 <= found <= time.time() - 7200
    assert past_moment_of("2026-12-01T08:00Z", option="--since") == datetime(2026, 12, 1, 8, tzinfo=UTC).timestamp()


def test_a_time_before_all_clocks_is_refused_with_the_option() -> None:
    with pytest.raises(typer.BadParameter, match="expected a time after 1970, got '99999999d'"):
        past_moment_of("99999999d", option="--since")
