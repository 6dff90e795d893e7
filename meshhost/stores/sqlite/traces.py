"""Traces in a SQLite file. See `meshhost.stores.traces.contract` for the contract.

A batch is one transaction, which waits for no disk. The spans of a trace that come together are one row of JSON, so what is
written for a span is little more than its text, and each trace has a row with what it is found by. What each tenant has is
summed in a table of its own: the bounds are kept without counting.
"""

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from meshhost.errors import InvalidRequestError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.sqlite.database import SqliteDatabase, Statements
from meshhost.stores.traces.contract import TraceKey, TraceLimits, TracePage, TraceQuery, TraceSummary
from meshhost.traces.span import Span

__all__ = ["SqliteTraceStore"]

_SQL = Statements("traces.sql")
_execute = _SQL.execute

# Names of a kind that a trace is found by.
_MOST_NAMES = 32
# Below a bound that was reached, so that it is not reached again at once.
_ROOM_LEFT = 0.95
_DAY = 86_400.0
# A row of a trace, beside its spans.
_ROW_BYTES = 300
# The largest number that SQLite gives a row.
_MOST_ROWS = 2**63 - 1


@dataclass(slots=True)
class _Row:
    """The row of a trace that spans are added to."""

    id: int | None = None
    name: str = ""
    began: float = float("inf")
    ended: float = 0.0
    failed: int = 0
    queues: str = ""
    messages: str = ""
    agents: str = ""
    spans: int = 0
    dropped: int = 0
    bytes: int = 0


class SqliteTraceStore:
    """Keeps traces within these limits in the file `path`, which one process at a time can have open."""

    def __init__(self, path: Path, limits: TraceLimits = TraceLimits()) -> None:  # noqa: B008 - immutable
        self._database = SqliteDatabase(path, migrations="traces", what="trace store")
        self._limits = limits

    def __repr__(self) -> str:
        return f"<SqliteTraceStore {str(self._database.path)!r} open={self._database.is_open}>"

    async def open(self) -> None:
        """See TraceStore. The file is made if it is missing."""
        await self._database.open()

    async def close(self) -> None:
        """See TraceStore."""
        await self._database.close()

    async def add(self, batch: Mapping[TraceKey, Sequence[Span]], *, now: float) -> None:
        """See TraceStore."""

        def operation(db: sqlite3.Connection) -> None:
            self._database.require_space(db)
            for key, spans in batch.items():
                self._add(db, key, spans, now)
            self._keep_bounds(db, {key.room.tenant for key in batch}, now)

        await self._database.run(operation, is_durable=False)

    async def find(self, room: RoomKey, query: TraceQuery) -> TracePage:
        """See TraceStore."""
        before, before_id = _place(query.before)
        values = {
            **asdict(query),
            **{
                name: f"\n{value}\n" if (value := getattr(query, name)) else ""
                for name in ("queue", "message", "agent")
            },
            "tenant": room.tenant,
            "room": room.name,
            "failed": int(query.failed),
            "before": before,
            "before_id": before_id,
            "limit": query.limit + 1,
        }
        rows = await self._database.read(lambda db: _execute(db, "list", **values).fetchall(), tenant=room.tenant)
        shown = rows[: query.limit]
        more = f"{shown[-1][3]!r}:{shown[-1][0]}" if len(rows) > len(shown) else None
        return TracePage([_summary(row) for row in shown], more)

    async def get(self, key: TraceKey, *, since: float = 0.0) -> tuple[TraceSummary, Sequence[Span]] | None:
        """See TraceStore."""
        values = {"tenant": key.room.tenant, "room": key.room.name, "trace": key.trace, "since": since}

        def operation(db: sqlite3.Connection) -> tuple[TraceSummary, list[Span]] | None:
            row = _execute(db, "get", **values).fetchone()
            if row is None:
                return None
            batches = [json.loads(text) for (text,) in _execute(db, "spans_of", id=row[0])]
            found = {each["id"]: Span.read(each, trace=key.trace) for batch in batches for each in batch}
            return _summary(row), sorted(found.values(), key=lambda span: (span.begin, -span.seconds))

        return await self._database.read(operation, tenant=key.room.tenant)

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See TraceStore."""

        def operation(db: sqlite3.Connection) -> int:
            return _delete(db, _execute(db, "of_room", tenant=tenant, room=room).fetchall())

        while await self._database.run(operation, is_durable=False, tenant=tenant):
            pass

    def _add(self, db: sqlite3.Connection, key: TraceKey, spans: Sequence[Span], now: float) -> None:
        names = {"tenant": key.room.tenant, "room": key.room.name, "trace": key.trace}
        found = _execute(db, "find", **names).fetchone()
        row = _Row() if found is None else _Row(*found)
        before = row.bytes
        kept = self._fitting(row, spans)
        if row.id is None:
            row.bytes += _ROW_BYTES
            row.id = _execute(db, "insert", **names, **asdict(row), changed=now).lastrowid
        else:
            _execute(db, "update", **asdict(row), changed=now)
        if kept:
            _execute(
                db, "add_spans", id=row.id, spans=json.dumps([span.as_json() for span in kept], separators=(",", ":"))
            )
        _execute(db, "grow", tenant=key.room.tenant, bytes=row.bytes - before)

    def _fitting(self, row: _Row, spans: Sequence[Span]) -> list[Span]:
        """Those of the spans for which the trace has room, with the row as it is with them."""
        kept = []
        for span in spans:
            size = span.size
            if row.spans >= self._limits.trace_spans or row.bytes + size > self._limits.trace_bytes:
                row.dropped += 1
                continue
            kept.append(span)
            row.spans += 1
            row.bytes += size
            if span.begin < row.began:
                row.name, row.began = span.name, span.begin
            row.ended = max(row.ended, span.end)
            row.failed |= bool(span.error)
            row.queues = _with(row.queues, span.attributes.get("messaging.destination.name"))
            row.messages = _with(row.messages, span.attributes.get("messaging.message.id"))
            row.agents = _with(row.agents, span.agent)
        return kept

    def _keep_bounds(self, db: sqlite3.Connection, tenants: Iterable[str], now: float) -> None:
        _delete(db, _execute(db, "expired", until=now - self._limits.days * _DAY).fetchall())
        for tenant in tenants:
            (has,) = _execute(db, "bytes_of", tenant=tenant).fetchone() or (0,)
            if has > self._limits.tenant_bytes:
                _shrink(db, tenant, has - int(self._limits.tenant_bytes * _ROOM_LEFT))
        (total,) = _execute(db, "total").fetchone()
        if total > self._limits.total_bytes:
            self._shrink_all(db, total - int(self._limits.total_bytes * _ROOM_LEFT))

    def _shrink_all(self, db: sqlite3.Connection, left: int) -> None:
        """Free so many bytes, always of the tenant that has most."""
        while left > 0 and (freed := _shrink(db, _execute(db, "largest").fetchone()[0], 1)):
            left -= freed


def _shrink(db: sqlite3.Connection, tenant: str, left: int) -> int:
    """Delete the oldest traces of a tenant until so many bytes are free, or a few more; return how many are."""
    freed = 0
    while freed < left and (rows := _execute(db, "oldest", tenant=tenant).fetchall()):
        doomed, sum_of = [], freed
        for row in rows:
            if sum_of >= left:
                break
            doomed.append(row)
            sum_of += row[2]
        freed += _delete(db, doomed)
    return freed


def _delete(db: sqlite3.Connection, rows: Sequence[tuple[int, str, int]]) -> int:
    """Delete these traces; return the bytes that they had."""
    freed = 0
    for trace_id, tenant, size in rows:
        _execute(db, "delete_spans", id=trace_id)
        _execute(db, "delete", id=trace_id)
        _execute(db, "shrink", tenant=tenant, bytes=size)
        freed += size
    if rows:
        _execute(db, "forget_empty")
    return freed


def _with(names: str, name: Any) -> str:
    """The names with one more, unless it is there or they are many."""
    if (
        not isinstance(name, str)
        or not name
        or "\n" in name
        or f"\n{name}\n" in names
        or names.count("\n") > _MOST_NAMES
    ):
        return names
    return f"{names or chr(10)}{name}\n"


def _place(before: str | None) -> tuple[float | None, int]:
    if before is None:
        return None, 0
    began, _, row = before.partition(":")
    try:
        place = float(began), int(row)
        if math.isfinite(place[0]) and 0 <= place[1] <= _MOST_ROWS:
            return place
    except ValueError:
        pass
    raise InvalidRequestError("before", "expected the `next` of a page before")


def _summary(row: Sequence[Any]) -> TraceSummary:
    _, trace, name, began, ended, failed, queues, messages, agents, spans, dropped = row
    return TraceSummary(
        trace, name, began, ended, bool(failed), _names(queues), _names(messages), _names(agents), spans, dropped
    )


def _names(text: str) -> list[str]:
    return text.strip("\n").split("\n") if text else []
