"""Writes log records to stderr, one line each, with their fields. Called once, by each command that runs code which logs."""

import logging
import sys
from typing import TextIO

from meshhost.errors import SettingsError
from meshhost.logs import ContextFilter, LineFormatter
from meshhost.settings import read_settings

__all__ = ["log_for_command", "log_for_server"]


def log_for_server() -> None:
    """Log at MESHHOST_LOG_LEVEL, with tracebacks. Raises SettingsError."""
    _log(_level(), tracebacks=True)


def log_for_command() -> None:
    """Log at MESHHOST_LOG_LEVEL, or warnings when it is not set; tracebacks at DEBUG only. Raises SettingsError."""
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
