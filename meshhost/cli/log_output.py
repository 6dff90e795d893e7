"""Log records on stderr: one line each, with the fields they carry."""

import json
import logging
import sys
import time
from typing import TextIO

from meshhost.errors import SettingsError
from meshhost.logs import ContextFilter
from meshhost.settings import read_settings

__all__ = ["LineFormatter", "log_for_command", "log_for_server"]

# What every record has; the rest came with `extra` or the context.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_COLOURS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}


class LineFormatter(logging.Formatter):
    """`12:00:01 INFO  meshhost.server.room: sentence room=demo`. Without `tracebacks` an error is a field like others."""

    def __init__(self, *, is_coloured: bool, tracebacks: bool) -> None:
        super().__init__()
        self._is_coloured = is_coloured
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """The record's line; with a traceback, more of them."""
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


def log_for_server() -> None:
    """Log at MESHHOST_LOG_LEVEL, with tracebacks. Raises SettingsError."""
    _log(_level(), tracebacks=True)


def log_for_command() -> None:
    """Log warnings, or at MESHHOST_LOG_LEVEL when it is set; tracebacks at DEBUG only. Raises SettingsError."""
    level = _level() if "log_level" in read_settings().model_fields_set else logging.WARNING
    _log(level, tracebacks=level <= logging.DEBUG)


def _log(level: int, *, tracebacks: bool) -> None:
    handler = _handler(sys.stderr, tracebacks=tracebacks)
    # Libraries stay at INFO: at DEBUG some of them log payloads and keys.
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler], force=True)
    logging.getLogger("meshhost").setLevel(level)


def _handler(stream: TextIO, *, tracebacks: bool) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(is_coloured=stream.isatty(), tracebacks=tracebacks))
    handler.addFilter(ContextFilter())
    return handler


def _level() -> int:
    name = read_settings().log_level.upper()
    level = logging.getLevelNamesMapping().get(name)
    if level is None:
        raise SettingsError("MESHHOST_LOG_LEVEL: expected DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return level


def _value(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    is_plain = text != "" and text.isprintable() and not any(character in ' "=' for character in text)
    return text if is_plain else json.dumps(text)


def _escaped(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]
