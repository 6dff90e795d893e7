"""`ModelPatterns`: things that are set by patterns of model names, found by the name of a model.

A pattern is an exact name, a prefix with `*` at its end, or `*` for every name. An exact name wins, then the longest prefix;
so `gpt-5.2*` also covers names with a date such as `gpt-5.2-2026-01-31`. Providers and prices are set in this way.
"""

from collections.abc import Mapping
from typing import Generic, TypeVar

from meshhost.errors import SettingsError

__all__ = ["ModelPatterns", "check_pattern"]

T = TypeVar("T")


class ModelPatterns(Generic[T]):
    """An unchanging mapping by pattern. Raises SettingsError for a pattern that is none."""

    def __init__(self, found: Mapping[str, T]) -> None:
        for pattern in found:
            check_pattern(pattern)
        self._found = dict(found)
        self._prefixes = sorted((p[:-1] for p in self._found if p.endswith("*")), key=len, reverse=True)

    def find(self, model: str) -> T | None:
        """What is set for this model, or None."""
        if (exact := self._found.get(model)) is not None:
            return exact
        prefix = next((prefix for prefix in self._prefixes if model.startswith(prefix)), None)
        return None if prefix is None else self._found[f"{prefix}*"]


def check_pattern(pattern: str) -> str:
    """Return the pattern. Raises SettingsError for what is none."""
    if not pattern or "*" in pattern[:-1]:
        raise SettingsError(f"model pattern {pattern!r}: expected a model name, a prefix with '*' at its end, or '*'")
    return pattern
