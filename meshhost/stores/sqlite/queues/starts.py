"""Keeps queues of the SQLite store to their rates, and each key to its own (`meshhost.stores.rates`).

`leasing.py` makes a `Starts` for a claim of a queue that has a rate, asks it how many may be started, whether a message's key
has a start left, and tells it what was started; `store.py` does with the table what time asks for. All within one operation
each.
"""

import json
import sqlite3

from meshhost.stores.queue_settings import QueueSettings
from meshhost.stores.queues import QueueKey
from meshhost.stores.rates import MAX_INTERVAL
from meshhost.stores.sqlite.database import Statements
from meshhost.stores.sqlite.queues.rows import QueueRow, keys_of

__all__ = ["Starts", "begin_anew", "bound_wakes", "move_starts", "next_wake", "sweep_starts"]

_execute = Statements("queues/starts.sql").execute

_OF_QUEUE = ""


class Starts:
    """One claim of a queue at a time; `allowed` comes first, `keep` last."""

    def __init__(self, db: sqlite3.Connection, row: QueueRow, now: float) -> None:
        self._db = db
        self._first = row.first
        self._now = now
        self._limit, self._key_limit = row.settings.limit(), row.settings.key_limit()
        found = _execute(db, "find", first=row.first, key=_OF_QUEUE).fetchone() if self._limit else None
        self._until: float = 0.0 if found is None else found[0]
        self._wake_at: float | None = None if found is None else found[1]

    def allowed(self, wanted: int) -> int:
        """How many of those that are wanted may be started."""
        return wanted if self._limit is None else min(wanted, self._limit.places(self._until, self._now))

    def start(self, key: str | None) -> float | None:
        """Count a start of a key. When it has none left: when it will, until which the message must be put off."""
        if self._key_limit is None or key is None:
            return None
        name = f"k{key}"
        (until, _) = _execute(self._db, "find", first=self._first, key=name).fetchone() or (0.0, None)
        if self._key_limit.places(until, self._now):
            until = self._key_limit.taken(until, self._now)
            _execute(self._db, "keep", first=self._first, key=name, until=until, wake_at=None)
            return None
        put_off: float = self._key_limit.next_at(until, self._now)
        _execute(self._db, "put_off", first=self._first, key=name, until=put_off)
        return put_off

    def keep(self, started: int, *, is_short: bool) -> float | None:
        """Count what was started. When more was wanted: when the next one may be."""
        if self._limit is None or not (started or is_short):
            return None
        until = self._limit.taken(self._until, self._now, started)
        wake_at = self._limit.next_at(until, self._now) if is_short else self._wake_at
        if (until, wake_at) != (self._until, self._wake_at):
            _execute(self._db, "keep", first=self._first, key=_OF_QUEUE, until=until, wake_at=wake_at)
        return wake_at if is_short else None


def begin_anew(db: sqlite3.Connection, row: QueueRow, settings: QueueSettings, now: float) -> None:
    """These settings are about to be set: a rate that changes begins anew, and what it has put off is ready."""
    if settings.limit() != row.settings.limit():
        _execute(db, "begin_anew", first=row.first)
    if settings.key_rate != row.settings.key_rate:
        _execute(db, "let_go", queue=row.id, first=row.first, now=now)
        _execute(db, "begin_keys_anew", first=row.first)


def sweep_starts(db: sqlite3.Connection, now: float, *, limit: int) -> list[QueueKey]:
    """Return the queues whose rates allow a start now that a claim was refused before; each once.

    What does not count any more is deleted, up to `limit` rows.
    """
    _execute(db, "forget", now=now, limit=limit)
    firsts = [first for (first,) in _execute(db, "sweep", now=now)]
    return keys_of(_execute(db, "queues_of_firsts", firsts=json.dumps(firsts))) if firsts else []


def next_wake(db: sqlite3.Connection) -> float | None:
    """Return when `sweep_starts` will next have something to return."""
    row = _execute(db, "next_wake").fetchone()
    return None if row is None else row[0]


def move_starts(db: sqlite3.Connection, seconds: float) -> None:
    """The clock was set."""
    _execute(db, "move", seconds=seconds)


def bound_wakes(db: sqlite3.Connection, now: float) -> None:
    """Bound what a clock that was set back while nobody had the file open would prolong."""
    _execute(db, "bound", latest=now + MAX_INTERVAL)
