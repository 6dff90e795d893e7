"""A logging handler that sends records to the host, which emits them as its own (`processes.log_relay`).

It is the only handler of an agent's process unless the program adds others. Values that JSON cannot carry become text, and an
error is described, not pickled.
"""

import logging
from collections.abc import Callable, Mapping

from meshhost.hosting.processes.messages import Log, RemoteError, sendable
from meshhost.logs import ContextFilter
from meshhost.work_log.recording import is_reported

__all__ = ["ChannelHandler"]

# Attributes that every record has; all others are fields.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class ChannelHandler(logging.Handler):
    """Gives records to `send`. `fields` are added to each; what the record or its context says wins."""

    def __init__(self, send: Callable[[Log], None]) -> None:
        super().__init__()
        self._send = send
        self.fields: Mapping[str, str] = {}
        self.addFilter(ContextFilter())

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record; never raises."""
        try:
            self._send(self._described(record))
        except Exception:  # noqa: BLE001 - logging must not make the code fail that logs
            self.handleError(record)

    def _described(self, record: logging.LogRecord) -> Log:
        fields = {name: _plain(value) for name, value in vars(record).items() if name not in _OWN}
        error = record.exc_info[1] if record.exc_info else None
        return Log(
            name=record.name,
            level=record.levelno,
            text=sendable(record.getMessage()),
            created=record.created,
            where=record.pathname,
            line=record.lineno,
            fields={**self.fields, **fields},
            error=None if error is None else RemoteError.of(error),
            is_reported=is_reported(),
        )


def _plain(value: object) -> str | int | float | bool | None:
    return value if value is None or isinstance(value, int | float | bool) else sendable(str(value))
