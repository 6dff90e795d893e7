"""Says which agent a log record is about, and formats records for programs of ours.

`log_context(tenant=…, room=…)` adds fields to everything that is logged inside it, in this task and in tasks that it starts; a
`ContextFilter` on a handler writes the fields into each record. The library only adds fields: programs choose handlers and
formats, and the CLI uses `LineFormatter`. The fields are for people: no code may decide by them.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from meshhost.tenant_names import known_name_of

__all__ = [
    "ContextFilter",
    "LineFormatter",
    "add_context_to_root_handlers",
    "current_log_context",
    "log_context",
    "log_context_of",
]

_fields: ContextVar[Mapping[str, object]] = ContextVar("meshhost_log_fields", default=MappingProxyType({}))


@contextmanager
def log_context(**fields: object) -> Iterator[None]:
    """Add these fields to every record logged inside. Inner contexts win over outer ones."""
    with log_context_of(MappingProxyType(fields)):
        yield


@contextmanager
def log_context_of(fields: Mapping[str, object]) -> Iterator[None]:
    """`log_context` with a mapping. It is read for each record, so it must not change inside the block."""
    outer = _fields.get()
    token = _fields.set(MappingProxyType({**outer, **fields}) if outer else fields)
    try:
        yield
    finally:
        _fields.reset(token)


def current_log_context() -> Mapping[str, object]:
    """The fields of all open contexts."""
    return _fields.get()


class ContextFilter(logging.Filter):
    """Passes every record and adds the context's fields to it. A record's own `extra` wins.

    A record with a `tenant`, which is an id, also gets its present `tenant_name`, if that is known in this process.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        for name, value in _fields.get().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        tenant = getattr(record, "tenant", None)
        if isinstance(tenant, str) and not hasattr(record, "tenant_name"):
            tenant_name = known_name_of(tenant)
            if tenant_name is not None:
                record.tenant_name = tenant_name
        return True


# The attributes of every record; all others came with `extra` or the context.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_COLOURS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}


class LineFormatter(logging.Formatter):
    """`12:00:01 INFO  meshhost.server.core.room: sentence room=demo`. Without `tracebacks` an error is a field like others."""

    def __init__(self, *, is_coloured: bool, tracebacks: bool) -> None:
        super().__init__()
        self._is_coloured = is_coloured
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, with a traceback as several."""
        fields = {name: value for name, value in vars(record).items() if name not in _OWN}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not self._tracebacks:
            fields["error"] = type(error).__name__
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{moment} {self._level(record)} {record.name}: {_escaped(record.getMessage())}"
        line += "".join(f" {name}={_value(value)}" for name, value in fields.items())
        if record.exc_info and error is not None and self._tracebacks:
            line += f"\n{self.formatException(record.exc_info)}"
        return line

    def _level(self, record: logging.LogRecord) -> str:
        colour = _COLOURS.get(record.levelno)
        padded = f"{record.levelname:<7}"
        return f"\x1b[{colour}m{padded}\x1b[0m" if self._is_coloured and colour is not None else padded


def add_context_to_root_handlers() -> None:
    """Give every handler of the root logger a ContextFilter, once. For programs that own the process."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(present, ContextFilter) for present in handler.filters):
            handler.addFilter(ContextFilter())


def _value(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    is_plain = text != "" and text.isprintable() and not any(character in ' "=' for character in text)
    return text if is_plain else json.dumps(text)


def _escaped(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]
