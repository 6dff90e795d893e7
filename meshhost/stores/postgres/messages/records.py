"""What is known of messages in PostgreSQL: of one, or of those that are looked for.

`PostgresQueueStore` is the caller. A page is one statement, and so one view of what is kept (`messages`), dead, and ended
(`outcomes`). It goes down by id through each of them and looks at no more than SCAN rows of each, and at bodies of no more than
HEAVIEST bytes: what it did not reach is left to the next page, so no page takes long. Where an index has fewer rows to look at
(of a key, held back, leased or delayed), it is used.
"""

import json
from collections.abc import Sequence

from meshhost.stores.messages import AttemptRecord, EndReason, MessagePage, MessageQuery, MessageRecord, MessageState
from meshhost.stores.postgres.database import Row
from meshhost.stores.postgres.messages.keys import hash_of_key
from meshhost.stores.postgres.messages.tables import QueueTables
from meshhost.stores.postgres.queue_rows import MAX_ID, is_storable, names_of
from meshhost.stores.queues import QueueKey
from meshhost.stores.shared.refusals import queue_missing
from meshhost.stores.shared.statements import read_statements

__all__ = ["find_messages", "get_message", "next_messages"]

_SCAN = 2000
_HEAVIEST = 16 * 1024 * 1024
_PARTS = read_statements("meshhost.stores.postgres", "search.sql")
_RECORDS = _PARTS["records"].replace("{state}", _PARTS["state"])
_GET = _PARTS["get"].replace("{target}", _PARTS["target"]).replace("{records}", _RECORDS)
_NEXT = _PARTS["next"].replace("{target}", _PARTS["target"]).replace("{records}", _RECORDS)
_OUTCOMES = (MessageState.DONE, MessageState.CANCELLED, MessageState.EXPIRED)
_WAITING = frozenset({MessageState.LEASED, MessageState.DELAYED, MessageState.FAILED})
_KEPT = _WAITING | {MessageState.READY, MessageState.BLOCKED}


async def get_message(tables: QueueTables, queue: QueueKey, message_id: int) -> MessageRecord | None:
    """See `QueueStore.get`."""
    number = message_id if 0 < message_id <= MAX_ID else 0
    rows = await _rows(tables, queue, _GET, {"id": number, "now": tables.steady.time()})
    return _record(tables, rows[0]) if rows[0][1] is not None else None


async def next_messages(tables: QueueTables, queue: QueueKey, limit: int) -> Sequence[MessageRecord]:
    """See `QueueStore.peek`."""
    rows = await _rows(tables, queue, _NEXT, {"limit": limit, "now": tables.steady.time()})
    return [_record(tables, row, has_history=False) for row in rows if row[1] is not None]


async def find_messages(tables: QueueTables, queue: QueueKey, query: MessageQuery) -> MessagePage:
    """See `QueueStore.find`."""
    key = None if query.key is None else query.key.encode(errors="surrogatepass")  # which no message can have
    values: dict[str, object] = {
        "before": MAX_ID if query.before is None else max(0, min(query.before, MAX_ID)),
        "scan": _SCAN,
        "heaviest": _HEAVIEST,
        "states": None if query.states is None else [state.value for state in query.states],
        "key": key,
        "key_hash": hash_of_key(queue, key) if is_storable(queue) else None,
        "since": query.since,
        "until": query.until,
        "text": None if query.text is None else query.text.encode(errors="surrogatepass"),
        "limit": query.limit + 1,
        "now": tables.steady.time(),
    }
    scans = await _scans(tables, queue, query, values)
    if not scans:
        await _rows(tables, queue, _GET, {"id": 0, "now": values["now"]})
        return MessagePage([], None)
    statement = _PARTS["find"]
    for name, part in {
        "target": _PARTS["target"],
        "scans": "\nUNION ALL\n".join(scans),
        "weighing": _PARTS["not_weighed" if query.text is None else "weighed"],
        "has_text": "" if query.text is None else _PARTS["has_text"],
        "records": _RECORDS,
    }.items():
        statement = statement.replace(f"{{{name}}}", part)
    rows = await _rows(tables, queue, statement, values)
    edge = rows[0][0]
    found = [_record(tables, row, has_history=False) for row in rows if row[1] is not None]
    page = found[: query.limit]
    return MessagePage(page, page[-1].id if len(found) > len(page) else edge)


async def _scans(tables: QueueTables, queue: QueueKey, query: MessageQuery, values: dict[str, object]) -> Sequence[str]:
    """The parts of a statement that go through what may have messages of the states that are looked for."""
    states = query.states if query.states is not None else frozenset(MessageState)
    scans = []
    if kept := states & _KEPT:
        which = ""
        if query.key is not None:
            which = _PARTS["which_key"]
        elif kept == {MessageState.BLOCKED}:
            which = _PARTS["which_held_back"]
        elif kept <= _WAITING and is_storable(queue):
            few = await tables.database.rows(_PARTS["few_waiting"], {**names_of(queue), **values})
            if len(few) < _SCAN:
                which, values["ids"] = _PARTS["which_ids"], [number for (number,) in few]
        scans.append(_PARTS["scan_messages"].replace("{state}", _PARTS["state"]).replace("{which}", which))
    if MessageState.DEAD in states:
        scans.append(_PARTS["scan_dead"])
    scans += [_PARTS["scan_outcomes"].replace("{state}", state.value) for state in _OUTCOMES if state in states]
    return scans


async def _rows(tables: QueueTables, queue: QueueKey, statement: str, values: dict[str, object]) -> list[Row]:
    """The rows of a statement, of which one at least is there when there is a queue. Raises NotFoundError."""
    if not is_storable(queue):
        raise queue_missing(queue)
    rows = await tables.database.rows(statement, {**names_of(queue), **values})
    if not rows:
        raise queue_missing(queue)
    return rows


def _record(tables: QueueTables, row: Row, *, has_history: bool = True) -> MessageRecord:
    _, number, state, sent_at, priority, key, body, headers, failures, ended, due, expires, began, by, until, *rest = (
        row
    )
    progress, result, ended_at, reason, is_cancelled, history = rest
    shift = tables.clock.time() - tables.steady.time()
    return MessageRecord(
        id=number,
        state=MessageState(state),
        sent_at=sent_at,
        priority=priority,
        key=_text(key),
        body=_text(body),
        headers={} if headers is None else json.loads(headers),
        failures=failures,
        deliveries=ended,
        due_at=None if due is None else due + shift,
        expires_at=None if expires is None else expires + shift,
        began_at=began,
        by=None if by is None else json.loads(by),
        lease_until=None if until is None else until + shift,
        progress=_text(progress),
        result=_text(result),
        ended_at=ended_at,
        reason=_text(reason),
        is_cancelling=is_cancelled,
        history=tuple(_attempt(text) for text in history) if has_history else (),
    )


def _attempt(text: str) -> AttemptRecord:
    began_at, ended_at, by, reason, error = json.loads(text)
    return AttemptRecord(float(began_at), float(ended_at), by, EndReason(reason), error)


def _text(value: bytes | None) -> str | None:
    return None if value is None else bytes(value).decode()
