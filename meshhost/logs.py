"""Says which agent a log record is about, and formats records for programs of ours.

`log_context(tenant=…, room=…)` adds fields to everything that is logged inside it, in this task and in tasks that it starts; a
`ContextFilter` on a handler writes the fields into each record. The library only adds fields: programs choose handlers and
formats. Programs of ours, and a host that is run by a program which chose none (`is_configured`), call `configure_logs`. It
writes one line for each record, as text for people (`LineFormatter`) or as JSON for machines (`JsonFormatter`).
The fields are for people: no code may decide by them.
"""

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from meshhost.tenant_names import known_name_of

__all__ = [
    "ContextFilter",
    "JsonFormatter",
    "LineFormatter",
    "add_context_to_root_handlers",
    "as_json",
    "configure_logs",
    "current_log_context",
    "describe_error",
    "enter_log_context",
    "is_configured",
    "leave_log_context",
    "line_of",
    "log_context",
    "log_context_of",
    "log_handler",
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
    token = enter_log_context(fields)
    try:
        yield
    finally:
        leave_log_context(token)


def enter_log_context(fields: Mapping[str, object]) -> Token[Mapping[str, object]]:
    """`log_context_of` without a block, for what is entered for every message; end it with `leave_log_context`."""
    outer = _fields.get()
    return _fields.set(MappingProxyType({**outer, **fields}) if outer else fields)


def leave_log_context(token: Token[Mapping[str, object]]) -> None:
    """End what `enter_log_context` began, in the same context."""
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
# Code that runs an agent's code. What it adds at the top of a traceback is the same for every agent.
_RUNNERS = (
    f"{Path(__file__).parent}/",
    *(
        f"{Path(traceback.__file__).parent}/{name}"
        for name in ("asyncio/", "concurrent/", "contextlib.py", "threading.py")
    ),
)
# `openai` uses the first up to its release 2, and the second since its release 3.
_HTTP_CLIENTS = ("httpx", "httpx2")
_MAX_LINE = 300
# A superset of what is not printable, which `_as_escape` looks at closely.
_UNPRINTABLE = re.compile(r"[^ -~]")
_SHORT_ID = 8


class LineFormatter(logging.Formatter):
    """`12:00:01 INFO  meshhost.server.core.room: sentence room=demo`, for people.

    An error is the field `error`, with its text. With `tracebacks` its traceback follows, from the first line of code that is
    neither ours nor asyncio's.
    """

    def __init__(self, *, is_coloured: bool, tracebacks: bool) -> None:
        super().__init__()
        self._is_coloured = is_coloured
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, with a traceback as several."""
        level = self._level(record)
        line = line_of(record.created, level, record.name, record.getMessage(), _fields_of(record))
        if record.exc_info and record.exc_info[1] is not None and self._tracebacks:
            line += f"\n{_traceback_of(record.exc_info[1])}"
        return line

    def _level(self, record: logging.LogRecord) -> str:
        colour = _COLOURS.get(record.levelno)
        padded = f"{record.levelname:<7}"
        return f"\x1b[{colour}m{padded}\x1b[0m" if self._is_coloured and colour is not None else padded


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (UTC), `level`, `logger`, `message`, the fields, and `traceback` of an error."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        return json.dumps(as_json(record), default=str)


def as_json(record: logging.LogRecord) -> dict[str, Any]:
    """The record with all its fields, as JsonFormatter writes it."""
    content: dict[str, Any] = {
        **_fields_of(record),
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage(),
    }
    if record.exc_info and record.exc_info[1] is not None:
        content["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
    return content


def line_of(created: float, level: str, logger: str, message: str, fields: dict[str, Any]) -> str:
    """A record as a line for people, without control characters. `created` is in seconds since the epoch."""
    moment = time.strftime("%H:%M:%S", time.localtime(created))
    shown = "".join(f" {name}={_value(value)}" for name, value in _for_people(fields).items())
    return f"{moment} {level} {logger}: {_escaped(message)}{shown}"


def log_handler(stream: TextIO, *, is_json: bool, tracebacks: bool) -> logging.Handler:
    """A handler that writes records with the fields of their context to the stream."""
    handler = logging.StreamHandler(stream)
    lines = LineFormatter(is_coloured=stream.isatty(), tracebacks=tracebacks)
    handler.setFormatter(JsonFormatter() if is_json else lines)
    handler.addFilter(ContextFilter())
    return handler


def configure_logs(level: int, *, is_json: bool, tracebacks: bool = True) -> None:
    """Write our records from `level` on, and those of libraries, to stderr; what was configured before is replaced."""
    handler = log_handler(sys.stderr, is_json=is_json, tracebacks=tracebacks)
    # Libraries stay at INFO: at DEBUG some of them log payloads and keys.
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler], force=True)
    logging.getLogger("meshhost").setLevel(level)
    # Clients of model providers log each request; our own records say what a model answered.
    for name in _HTTP_CLIENTS:
        logging.getLogger(name).setLevel(logging.WARNING if level > logging.DEBUG else logging.NOTSET)


def is_configured() -> bool:
    """Whether the program has chosen where records go."""
    return any(logging.getLogger(name).handlers for name in (None, "meshhost"))


def describe_error(error: BaseException) -> str:
    """The error in one line, such as `KeyError: 'to'`, shortened."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - the error is an agent's own class and may fail in any way
        text = "(the error cannot be shown as text)"
    text = text if len(text) <= _MAX_LINE else f"{text[:_MAX_LINE]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def add_context_to_root_handlers() -> None:
    """Give every handler of the root logger a ContextFilter, once. For programs that own the process."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(present, ContextFilter) for present in handler.filters):
            handler.addFilter(ContextFilter())


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    fields = {name: value for name, value in vars(record).items() if name not in _OWN}
    if record.exc_info and record.exc_info[1] is not None:
        fields.setdefault("error", describe_error(record.exc_info[1]))
    return fields


def _for_people(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what the other fields say already; JSON has all of it."""
    if "tenant_name" in fields:
        fields["tenant"] = fields.pop("tenant_name")
    if fields.get("agent") == f"{fields.get('identity')} in {fields.get('room')}":
        del fields["agent"]
    if isinstance(fields.get("spawn_id"), str):
        # As much of it as the commands of `meshhost host` need.
        fields["spawn_id"] = fields["spawn_id"][:_SHORT_ID]
    return fields


def _traceback_of(error: BaseException) -> str:
    described = traceback.TracebackException.from_exception(error)
    pending = [described]
    while pending:
        one = pending.pop()
        foreign = [n for n, frame in enumerate(one.stack) if not frame.filename.startswith(_RUNNERS)]
        if foreign:
            one.stack = traceback.StackSummary.from_list(one.stack[foreign[0] :])
        pending += [linked for linked in (one.__cause__, one.__context__) if linked is not None]
        pending += one.exceptions or ()
    # The text of an error may be anybody's: indented it is no record, and it gives a terminal no orders.
    lines = "".join(described.format()).rstrip("\n").split("\n")
    return "\n".join(f"  {_UNPRINTABLE.sub(_as_escape, line)}" for line in lines)


def _as_escape(found: re.Match[str]) -> str:
    letter = found[0]
    return letter if letter.isprintable() or letter == "\t" else letter.encode("unicode_escape").decode()


def _value(value: object) -> str:
    if isinstance(value, float):
        value = round(value, 3)
    text = value if isinstance(value, str) else str(value)
    is_plain = text != "" and text.isprintable() and not any(character in ' "=' for character in text)
    return text if is_plain else _quoted(text)


def _escaped(text: str) -> str:
    return text if text.isprintable() else _quoted(text)[1:-1]


def _quoted(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f")
