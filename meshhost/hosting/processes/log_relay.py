"""Emits the log records of an agent's process in the host, as if the host's loggers had made them."""

import logging
from contextlib import nullcontext
from pathlib import Path

from meshhost.hosting.processes.messages import Log
from meshhost.work_log.recording import reported_elsewhere

__all__ = ["emit_here"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def emit_here(log: Log, pid: int) -> None:
    """Handle the record by the logger of its name, unless that logger's level is above it."""
    target = logging.getLogger(log.name)
    if not target.isEnabledFor(log.level):
        return
    error = log.error.rebuilt() if log.error is not None else None
    # The child chooses the names of fields: it must not overwrite what a record is made of.
    fields = {name: value for name, value in log.fields.items() if name not in _STANDARD}
    facts = {
        "name": log.name,
        "levelno": log.level,
        "levelname": logging.getLevelName(log.level),
        "msg": log.text,
        "created": log.created,
        "pathname": log.where,
        "filename": Path(log.where).name,
        "lineno": log.line,
        "process": pid,
        "exc_info": None if error is None else (type(error), error, None),
    }
    with reported_elsewhere() if log.is_reported else nullcontext():
        target.handle(logging.makeLogRecord({**fields, **facts}))
