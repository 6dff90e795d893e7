"""What is known of messages in the SQLite store: one by its id, a page of those that fit a query, and how one is cancelled.

`store.py` is the caller. Pages are read beside the thread that writes, from three tables that each have ids of their own: what
has not ended, what is dead, and what ended. A page is made of steps that read a bounded number of rows each, however few of
them fit, so that a search in a million messages holds up nobody: the caller goes on from where the page ends.
"""

import json
import sqlite3
from collections.abc import Collection
from typing import NamedTuple

from meshhost.stores.messages import EndReason, MessagePage, MessageQuery, MessageRecord, MessageState
from meshhost.stores.shared.history import load_history
from meshhost.stores.sqlite.database import Statements
from meshhost.stores.sqlite.queues.leasing import Times, end, note_end
from meshhost.stores.sqlite.queues.rows import QueueRow
from meshhost.stores.sqlite.queues.rows import execute as execute_queues
from meshhost.stores.sqlite.queues.sending import HELD_BACK

__all__ = ["cancel", "find_page", "get", "peek", "referred"]

_execute = Statements("queues/life.sql").execute

_MAX_ID = 2**63 - 1
# Rows of each table that one step reads, and the steps of a page.
_STEP = 200
_STEPS = 10

_WAITING = frozenset({MessageState.DELAYED, MessageState.FAILED, MessageState.LEASED, MessageState.BLOCKED})
_LIVE = _WAITING | {MessageState.READY}
_ENDED = frozenset({MessageState.DONE, MessageState.CANCELLED, MessageState.EXPIRED})


class _Row(NamedTuple):
    """The columns of `life.sql`; `state` is NULL for a message that has not ended."""

    id: int
    state: str | None
    sent_at: float
    priority: int
    key: str | None
    failures: int
    ended: int
    ready: int
    due: float | None
    delayed_until: float | None
    expires_at: float | None
    has_holder: int
    began_at: float | None
    worker: str | None
    progress: str | None
    is_cancelled: int
    result: str | None
    ended_at: float | None
    reason: str | None
    history: str | None
    body: str | None
    headers: str | None

    def record(self, now: Times) -> MessageRecord:
        """The row as a value of the contract."""
        shift = now.wall - now.steady
        state = self._live_state(now.steady) if self.state is None else MessageState(self.state)
        due = None if self.has_holder else self.due if self.due is not None else self.delayed_until
        return MessageRecord(
            id=self.id,
            state=state,
            sent_at=self.sent_at,
            priority=self.priority,
            key=self.key,
            body=self.body,
            headers=json.loads(self.headers or "{}"),
            failures=self.failures,
            deliveries=self.ended,
            due_at=None if due is None else due + shift,
            expires_at=None if self.expires_at is None else self.expires_at + shift,
            began_at=self.began_at,
            by=self.worker,
            lease_until=(self.due or 0.0) + shift if state is MessageState.LEASED else None,
            progress=self.progress,
            result=self.result,
            ended_at=self.ended_at,
            reason=self.reason,
            is_cancelling=bool(self.is_cancelled),
            history=load_history(self.history),
        )

    def _live_state(self, now: float) -> MessageState:
        if self.ready == HELD_BACK:
            return MessageState.BLOCKED
        if self.due is None or self.due <= now:
            return MessageState.READY
        if self.has_holder:
            return MessageState.LEASED
        return MessageState.FAILED if self.failures else MessageState.DELAYED


def get(db: sqlite3.Connection, queue: QueueRow, message_id: int, now: Times) -> MessageRecord | None:
    """See `QueueStore.get`."""
    if not 0 < message_id <= _MAX_ID:
        return None
    values = {"id": message_id, "queue": queue.id, "first": queue.first, "now": now.steady}
    for statement in ("message", "dead", "outcome"):
        if (row := _execute(db, statement, **values).fetchone()) is not None:
            return _Row(*row).record(now)
    return None


def find_page(db: sqlite3.Connection, queue: QueueRow, query: MessageQuery, now: Times) -> MessagePage:
    """See `QueueStore.find`."""
    statements = _statements(query)
    before: int | None = _MAX_ID if query.before is None else max(min(query.before, _MAX_ID), 0)
    found: list[MessageRecord] = []
    for _ in range(_STEPS):
        rows, following = _step(db, queue, statements, query.key, before or 0, now.steady)
        for record in (row.record(now) for row in rows):
            if query.fits(record):
                if len(found) == query.limit:
                    return MessagePage(found, found[-1].id)
                found.append(record)
        if (before := following) is None:
            return MessagePage(found, None)
    return MessagePage(found, before)


def peek(db: sqlite3.Connection, queue: QueueRow, limit: int, now: Times) -> list[MessageRecord]:
    """See `QueueStore.peek`."""
    rows = _execute(db, "next_messages", queue=queue.id, now=now.steady, limit=limit)
    return [_Row(*row).record(now) for row in rows]


def _statements(query: MessageQuery) -> list[str]:
    """Return the statements that find all that fit, each with as few others as an index allows."""
    states = frozenset(MessageState) if query.states is None else query.states
    statements = []
    if states & _LIVE:
        live = "waiting_messages" if not states & _LIVE - _WAITING else "messages"
        statements.append(live if query.key is None else "messages_of_key")
    if MessageState.DEAD in states:
        statements.append("deads")
    if states & _ENDED:
        statements.append("outcomes")
    return statements


def _step(
    db: sqlite3.Connection, queue: QueueRow, statements: list[str], key: str | None, before: int, now: float
) -> tuple[list[_Row], int | None]:
    """Return the newest rows below `before`, and what is `before` in the next step; None: there is none."""
    values = {"queue": queue.id, "first": queue.first, "key": key, "before": before, "now": now, "limit": _STEP}
    rows: list[_Row] = []
    lowest = None
    for statement in statements:
        part = [_Row(*row) for row in _execute(db, statement, **values)]
        rows += part
        if len(part) == _STEP:
            # Below its last row there may be more of this table: those of the others below it belong to a later step.
            lowest = max(part[-1].id, lowest or 0)
    rows.sort(key=lambda row: row.id, reverse=True)
    return [row for row in rows if lowest is None or row.id >= lowest], lowest


def cancel(db: sqlite3.Connection, queue: QueueRow, message_id: int, now: Times) -> MessageState | None:
    """See `QueueStore.cancel`."""
    found = get(db, queue, message_id, now)
    if found is None or found.state in _ENDED:
        return None if found is None else found.state
    if found.state is MessageState.LEASED:
        _execute(db, "cancel_leased", id=message_id)
        return MessageState.LEASED
    if found.state is MessageState.DEAD:
        _discard(db, queue, message_id, now)
        return MessageState.CANCELLED
    has_holder, history = _execute(db, "last_delivery", id=message_id).fetchone()
    if has_holder:
        note_end(db, message_id, EndReason.EXPIRED, "", now, found.began_at, found.by, history)
    end(db, queue.id, queue.first, queue.settings_text, message_id, MessageState.CANCELLED, now)
    return MessageState.CANCELLED


def _discard(db: sqlite3.Connection, queue: QueueRow, message_id: int, now: Times) -> None:
    """Delete a dead letter."""
    if (ttl := queue.settings.result_ttl) > 0:
        values = {"now": now.wall, "forget_at": now.steady + ttl}
        execute_queues(db, "add_outcome_of_dead", id=message_id, state=MessageState.CANCELLED, **values)
    execute_queues(db, "delete_content", id=message_id)
    execute_queues(db, "delete_dead", id=message_id)


def referred(db: sqlite3.Connection, names: Collection[str]) -> set[str]:
    """Return those of these names of objects to which a body or a result refers."""
    return {name for (name,) in _execute(db, "referred", names=json.dumps(list(names)))}
