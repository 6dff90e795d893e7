"""Gives what is logged while an agent works on a message to a sink, as lines.

A consumer of a queue opens `logging_work` for each message (`meshhost.room.consuming.job`). Whatever is logged inside by any
logger, in the task, in those that it starts and in threads that have its context, is also given to a `LineSink` as a `Line`,
which says to which message it belongs; the client of the room reports lines to the server
(`meshhost.room.services.reports.log_lines`).
Nothing else about logging changes: handlers, levels and formats stay those of the program, and the lines are those that its
levels let pass, from INFO on.

The handler that does so is added to the root logger with the first message, if the program has configured logging: a library
that adds the first handler would keep `logging.basicConfig` from doing anything. Where server and agent are one process, the
server sees the same records itself; `is_reported` tells it which of them come as lines.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import NamedTuple, Protocol

from meshhost.logs import ContextFilter, current_log_context, enter_log_context, leave_log_context
from meshhost.work_log.line import Line, Worked

__all__ = ["LineSink", "handler", "is_reported", "logging_work", "reported_elsewhere"]

_EMPTY: Mapping[str, object] = MappingProxyType({})


class LineSink(Protocol):
    """Takes lines, in any thread, at once; it never raises and may drop them."""

    def may_add(self) -> bool:
        """Whether a line is taken now. One that is not counts as left out, and need not be made."""
        ...

    def add(self, line: Line) -> None:
        """Take a line."""
        ...


class _Place(NamedTuple):
    sink: LineSink | None
    of: Worked
    context: Mapping[str, object] = _EMPTY


_NOBODY = Worked("", "", 0)
_place: ContextVar[_Place | None] = ContextVar("meshhost_work_log", default=None)


class logging_work:  # noqa: N801 - used as a function
    """Give what is logged inside to the sink, and name the message in every record. Without a sink only the latter.

    A class, since every message enters one: blocks made of generators took a fifth of the worker's time for a small message.
    """

    __slots__ = ("_fields", "_of", "_outer", "_sink")

    def __init__(self, of: Worked, sink: LineSink | None) -> None:
        self._of = of
        self._sink = sink

    def __enter__(self) -> None:
        of, sink = self._of, self._sink
        if sink is not None:
            _attach()
        self._outer = _place.set(None if sink is None else _Place(sink, of, current_log_context()))
        self._fields = enter_log_context({"queue": of.queue, "message_id": of.id, "attempt": of.attempt})

    def __exit__(self, *_: object) -> None:
        leave_log_context(self._fields)
        _place.reset(self._outer)


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
            if place.sink.may_add():
                place.sink.add(Line.of_record(record, place.of, place.context))
        except Exception:  # noqa: BLE001 - logging must not make the code fail that logs
            self.handleError(record)


handler = _Handler()
"""What takes the records: it is attached to the root logger when the first work is logged."""


def _attach() -> None:
    root = logging.getLogger()
    if root.handlers and handler not in root.handlers:
        root.addHandler(handler)
