"""What is logged while an agent works on a message, so that the log can be read beside the message.

A consumer of a queue opens `logging_work` for each message (`meshhost.room.consuming.job`). Whatever is logged inside by any
logger, in the task, in those that it starts and in threads that have its context, is also given to a `LineSink` as a `Line`,
which says to which message it belongs; the client of the room reports lines to the server (`meshhost.room.services.log_lines`).
Nothing else about logging changes: handlers, levels and formats stay those of the program, and the lines are those that its
levels let pass, from INFO on.

The handler that does so is added to the root logger with the first message, if the program has configured logging: a library
that adds the first handler would keep `logging.basicConfig` from doing anything. Where server and agent are one process, the
server sees the same records itself; `is_reported` tells it which of them come as lines.

Lines come from agents and are shown to people, so everything about them is bounded.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from meshhost.logs import ContextFilter, as_json, current_log_context, log_context

__all__ = [
    "LEVELS",
    "MAX_BATCH",
    "MAX_FIELDS",
    "MAX_LINE_TEXT",
    "MAX_NAME",
    "Line",
    "LineSink",
    "Worked",
    "is_reported",
    "logging_work",
    "reported_elsewhere",
]

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


class LineSink(Protocol):
    """Takes lines, in any thread, at once; it never raises and may drop them."""

    def add(self, line: Line) -> None:
        """Take a line."""
        ...


class _Place(NamedTuple):
    sink: LineSink | None
    of: Worked
    context: Mapping[str, object] = _EMPTY


_NOBODY = Worked("", "", 0)
_place: ContextVar[_Place | None] = ContextVar("meshhost_work_log", default=None)


@contextmanager
def logging_work(of: Worked, sink: LineSink | None) -> Iterator[None]:
    """Give what is logged inside to the sink, and name the message in every record. Without a sink only the latter."""
    if sink is not None:
        _attach()
    token = _place.set(None if sink is None else _Place(sink, of, current_log_context()))
    try:
        with log_context(queue=of.queue, message_id=of.id, attempt=of.attempt):
            yield
    finally:
        _place.reset(token)


@contextmanager
def reported_elsewhere() -> Iterator[None]:
    """What is logged inside was given to a sink already, in another process."""
    token = _place.set(_Place(None, _NOBODY))
    try:
        yield
    finally:
        _place.reset(token)


def is_reported() -> bool:
    """Whether what is logged now is given to a sink, here or in another process."""
    return _place.get() is not None


class _Handler(logging.Handler):
    """Gives the records of work to its sink."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.addFilter(ContextFilter())

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler; never raises."""
        place = _place.get()
        if place is None or place.sink is None:
            return
        try:
            place.sink.add(Line.of_record(record, place.of, place.context))
        except Exception:  # noqa: BLE001 - logging must not make the code fail that logs
            self.handleError(record)


_handler = _Handler()


def _attach() -> None:
    root = logging.getLogger()
    if root.handlers and _handler not in root.handlers:
        root.addHandler(_handler)


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
