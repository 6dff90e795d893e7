"""The last log records of a host, for an operator who looks at them over the admin API (`meshhost logs`).

`RecentLogs` is a handler of the root logger while the host runs. It keeps the records of agents, also of those in processes,
which arrive in the host's loggers (`processes.log_relay`), and of the host itself, from INFO on and no more than the program's
own level lets through. It keeps text only, at most `most` records of bounded size, the same for ten agents and ten thousand.
Records are numbered, so that who follows asks for what came after the last one that it has.

`emit` is called in any thread and must not raise; the handler's own lock makes it and `after` safe.
"""

import itertools
import logging
import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from meshhost.logs import ContextFilter, as_json

__all__ = ["RecentLogs"]

_MOST = 2_000
_MAX_TEXT = 2_000


class RecentLogs(logging.Handler):
    """The last `most` records."""

    def __init__(self, *, most: int = _MOST) -> None:
        super().__init__(logging.INFO)
        self._records: deque[dict[str, Any]] = deque(maxlen=most)
        self._numbers = itertools.count(1)
        self.addFilter(ContextFilter())

    def attach(self) -> None:
        """Keep records from now on. Not in a program without handlers: Python then writes its warnings to stderr itself."""
        root = logging.getLogger()
        if root.handlers and self not in root.handlers:
            root.addHandler(self)

    def detach(self) -> None:
        """Keep no more records."""
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record, if it is of an agent or of this package."""
        if not (hasattr(record, "spawn_id") or record.name.startswith("meshhost.")):
            return
        try:
            content = {name: _bounded(value) for name, value in as_json(record).items()}
            self._records.append({**content, "number": next(self._numbers)})
        except Exception:  # noqa: BLE001 - logging must not make the code fail that logs
            self.handleError(record)

    def after(self, number: int, *, limit: int, fields: Mapping[str, str]) -> tuple[list[dict[str, Any]], int]:
        """The newest `limit` records after this number whose fields have these values, oldest first; and the last number.

        A field `spawn_id` is matched by its beginning, `tenant` by its id or name. After a restart of the host, numbers
        begin again: a number from before gets everything.
        """
        self.acquire()
        try:
            records = list(self._records)
        finally:
            self.release()
        last = records[-1]["number"] if records else 0
        start = 0 if number > last else number
        found = [one for one in records if one["number"] > start and _matches(one, fields)]
        return found[-limit:], last


def _matches(record: Mapping[str, Any], fields: Mapping[str, str]) -> bool:
    return all(_matches_one(record, name, value) for name, value in fields.items())


def _matches_one(record: Mapping[str, Any], name: str, value: str) -> bool:
    own = str(record.get(name, ""))
    if name == "spawn_id":
        return own.startswith(value)
    return own == value or (name == "tenant" and record.get("tenant_name") == value)


def _bounded(value: object) -> object:
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    text = value if isinstance(value, str) else str(value)
    # The end: the last line of a traceback says most.
    return text if len(text) <= _MAX_TEXT else f"…{text[-_MAX_TEXT:]}"
