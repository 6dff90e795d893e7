"""Reads lifetimes such as `12h`, for options of commands."""

import re

import typer

__all__ = ["lifetime_seconds"]

_LIFETIME = re.compile("([1-9][0-9]{0,8})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# What a time may be at most: later ones have no date.
_MAX_SECONDS = 1000 * 365 * 86400


def lifetime_seconds(text: str, *, option: str) -> int | None:
    """The seconds of a lifetime; None for never. Raises BadParameter, which names the option."""
    if text == "never":
        return None
    match = _LIFETIME.fullmatch(text)
    if match is None:
        raise typer.BadParameter("expected a time such as 30m, 12h or 7d, or never", param_hint=option)
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds > _MAX_SECONDS:
        raise typer.BadParameter("too long: use never", param_hint=option)
    return seconds
