"""Which agent a log record is about.

`log_context(tenant=…, room=…)` marks everything logged inside it, in this task and in those it starts; a `ContextFilter` on a
handler writes the marks into each record. The library only marks: programs choose handlers and formats.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

__all__ = ["ContextFilter", "LineFormatter", "add_context_to_root_handlers", "current_log_context", "log_context"]

_fields: ContextVar[Mapping[str, object]] = ContextVar("meshhost_log_fields", default=MappingProxyType({}))


@contextmanager
def log_context(**fields: object) -> Iterator[None]:
    """Add these fields to every record logged inside; inner contexts win over outer ones."""
    token = _fields.set(MappingProxyType({**_fields.get(), **fields}))
    try:
        yield
    finally:
        _fields.reset(token)


def current_log_context() -> Mapping[str, object]:
    """The fields of the contexts that are open here."""
    return _fields.get()


class ContextFilter(logging.Filter):
    """Lets every record pass and adds the context's fields as attributes. A record's own `extra` wins."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        for name, value in _fields.get().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


# What every record has; everything else on it came from `extra` or from the context.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """A record as one line: time, level, logger, the sentence, then its fields as `name=value`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """The line without a traceback."""
        fields = [f"{name}={value}" for name, value in vars(record).items() if name not in _USUAL]
        return " ".join([super().formatMessage(record), *fields])


def add_context_to_root_handlers() -> None:
    """Give every handler of the root logger a ContextFilter, once. For programs that own the process."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(present, ContextFilter) for present in handler.filters):
            handler.addFilter(ContextFilter())
