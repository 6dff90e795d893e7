"""Durations and times as users type them: `90s`, `10m`, `2h`, `1d`, and ISO 8601.

Options of commands are read with these, so that a time is written in one way everywhere. A wrong one is a BadParameter that
names the option. A time without an offset is in the time zone of this machine: the user reads the same clock.
"""

import math
import time
from datetime import datetime

import typer

__all__ = ["LONGEST_SECONDS", "moment_of", "past_moment_of", "seconds_of"]

# The server takes no longer delay, ttl, deadline or time before a retry.
LONGEST_SECONDS = 30 * 86400.0

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(text: str, *, option: str, needs_some: bool = False, most: float | None = None) -> float:
    """Return a duration in seconds; without a unit it is in seconds.

    Raises BadParameter, also for one above `most` seconds, and for none at all when it `needs_some`.
    """
    seconds = _seconds(text)
    if seconds is None:
        raise typer.BadParameter(f"expected a duration such as 90s, 10m, 2h or 1d, got {text!r}", param_hint=option)
    if (needs_some and not seconds) or (most is not None and seconds > most):
        bounds = ["more than 0"] * needs_some + ([] if most is None else [f"at most {_shown(most)}"])
        raise typer.BadParameter(f"expected {' and '.join(bounds)}, got {text!r}", param_hint=option)
    return seconds


def moment_of(text: str, *, option: str) -> float:
    """Return a time in seconds since the epoch. Raises BadParameter."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"expected a time such as 2026-12-01T08:00, got {text!r}", param_hint=option) from None


def past_moment_of(text: str, *, option: str) -> float:
    """Return a time in seconds since the epoch, which may also be given as how long ago it is. Raises BadParameter."""
    seconds = _seconds(text)
    if seconds is None:
        return moment_of(text, option=option)
    moment = time.time() - seconds
    if moment < 0:
        raise typer.BadParameter(f"expected a time after 1970, got {text!r}", param_hint=option)
    return moment


def _shown(seconds: float) -> str:
    unit = next(name for name, size in reversed(_UNITS.items()) if seconds >= size and not seconds % size)
    return f"{seconds / _UNITS[unit]:g}{unit}"


def _seconds(text: str) -> float | None:
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    try:
        seconds = float(number) * _UNITS[unit]
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
