"""A line: a record of a log that was written while an agent worked on a message, and the bounds of what it may hold.

Lines come from agents and are shown to people, so everything about them is bounded.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from meshhost.logs import as_json

__all__ = ["LEVELS", "MAX_BATCH", "MAX_FIELDS", "MAX_LINE_TEXT", "MAX_NAME", "Line", "Worked"]

MAX_NAME, MAX_LINE_TEXT, MAX_FIELDS = 200, 2_000, 24
MAX_BATCH = 100
"""Lines of one report."""
_MAX_VALUE, _MAX_TRACEBACK = 300, 1_500
LEVELS = ("INFO", "WARNING", "ERROR", "CRITICAL")
# Of a record, what a line says elsewhere.
_KNOWN = frozenset({"time", "level", "message", "logger", "tenant_name", "queue", "message_id", "attempt"})


_EMPTY: Mapping[str, object] = MappingProxyType({})


class Worked(NamedTuple):
    """The message that is worked on."""

    queue: str
    id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Line:
    """A record of a log. `at` is wall clock, seconds since the epoch; `level` is one of LEVELS."""

    at: float
    level: str
    logger: str
    text: str
    of: Worked
    fields: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)

    @classmethod
    def of_record(cls, record: logging.LogRecord, of: Worked, context: Mapping[str, object] = _EMPTY) -> "Line":
        """Make one, cut to its bounds, without the fields of `context`, which all records of its agent have."""
        others = [
            (name, value)
            for name, value in as_json(record).items()
            if name not in _KNOWN and (name not in context or context[name] != value)
        ]
        return cls(
            at=record.created,
            level=_level(record.levelno),
            logger=record.name[:MAX_NAME],
            text=_storable(record.getMessage()[:MAX_LINE_TEXT]),
            of=of,
            fields={str(name)[:64]: _plain(name, value) for name, value in others[:MAX_FIELDS]},
        )

    def as_json(self) -> dict[str, Any]:
        """The form on the wire."""
        return {
            "at": self.at,
            "level": self.level,
            "logger": self.logger,
            "text": self.text,
            "queue": self.of.queue,
            "message_id": self.of.id,
            "attempt": self.of.attempt,
            "fields": dict(self.fields),
        }


def _level(number: int) -> str:
    return LEVELS[min(max(number // 10 - 2, 0), len(LEVELS) - 1)]


def _plain(name: str, value: object) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool | int):
        return value if not isinstance(value, int) or abs(value) < 2**53 else str(value)[:_MAX_VALUE]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    # The end of a traceback says what went wrong.
    text = str(value)
    return _storable(text[-_MAX_TRACEBACK:] if name == "traceback" else text[:_MAX_VALUE])


def _storable(text: str) -> str:
    return text.encode(errors="replace").decode()
