"""Lists and replays the dead letters of a queue in SQLite: both may concern a million of them, so both go page by page.

`SqliteQueueStore` is the caller; it finds the queue's ids. A list is read beside the thread that writes (`reader.py`), each
page at a moment of its own. A replay is a series of operations of BATCH letters: each letter is dead or ready at any moment,
and a crash in the middle leaves the rest dead. Letters that die again meanwhile are not replayed twice.
"""

import json
import math
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from meshhost.stores.queues import DeadLetter
from meshhost.stores.sqlite.database import SqliteDatabase, Statements
from meshhost.stores.sqlite.queues.rows import QueueRow
from meshhost.stores.sqlite.queues.rows import execute as execute_queues
from meshhost.stores.sqlite.queues.sending import HELD_BACK

__all__ = ["BATCH", "read_dead_letters", "replay_dead_letters"]

BATCH = 250
_PAGE = 50

_execute = Statements("queues/dead_letters.sql").execute

# Returns the queue. Raises NotFoundError.
Find: TypeAlias = Callable[[sqlite3.Connection], QueueRow]


async def read_dead_letters(
    database: SqliteDatabase,
    find: Find,
    *,
    tenant: str,
    limit: int,
    before: tuple[float, int] | None,
    max_bytes: int | None,
) -> Sequence[DeadLetter]:
    """See `QueueStore.dead_letters`."""
    found: list[DeadLetter] = []
    place, left = before or (math.inf, 0), math.inf if max_bytes is None else max_bytes
    while len(found) < limit and left > 0:
        page = await database.read(
            partial(_page, find=find, place=place, limit=min(_PAGE, limit - len(found)), max_bytes=left),
            tenant=tenant,
        )
        if not page:
            break
        found += page
        left -= sum(map(_size, page))
        place = (page[-1].died_at, page[-1].message_id)
    return found


async def replay_dead_letters(
    database: SqliteDatabase, find: Find, message_ids: Sequence[int] | None, *, tenant: str
) -> int:
    """See `QueueStore.replay`."""
    read, run = partial(database.read, tenant=tenant), partial(database.run, tenant=tenant)
    if message_ids is not None:
        await read(find)
        chunks = [list(message_ids[start : start + BATCH]) for start in range(0, len(message_ids), BATCH)]
        return sum([await run(partial(_replay, find=find, message_ids=ids)) for ids in chunks])
    until = await read(partial(_last_death, find=find))
    count = 0
    while (replayed := await run(partial(_replay_some, find=find, until=until))) > 0:
        count += replayed
    return count


def _page(
    db: sqlite3.Connection, find: Find, place: tuple[float, int], limit: int, max_bytes: float
) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    rows = _execute(db, "dead_letters", first=find(db).first, died_at=place[0], id=place[1], limit=limit)
    for message_id, body, headers, *rest in rows:
        found.append(DeadLetter(message_id, body, json.loads(headers), *rest))
        max_bytes -= _size(found[-1])
        if max_bytes <= 0:
            break
    return found


def _size(letter: DeadLetter) -> int:
    return len(letter.body) + len(letter.reason)


def _last_death(db: sqlite3.Connection, find: Find) -> float:
    (last,) = _execute(db, "last_death", first=find(db).first).fetchone()
    return -math.inf if last is None else float(last)


def _replay_some(db: sqlite3.Connection, find: Find, until: float) -> int:
    rows = _execute(db, "some_dead", first=find(db).first, until=until, limit=BATCH)
    return _replay(db, find, [found for (found,) in rows])


def _replay(db: sqlite3.Connection, find: Find, message_ids: list[int]) -> int:
    queue = find(db)
    values = {"queue": queue.id, "first": queue.first, "ids": json.dumps(message_ids)}
    count = _execute(db, "replay", **values).rowcount
    for message_id, key in _execute(db, "keyed", **values).fetchall():
        is_behind = execute_queues(db, "has_key", queue=queue.id, key=key).fetchone() is not None
        _execute(db, "replay_keyed", id=message_id, queue=queue.id, ready=HELD_BACK if is_behind else 1)
        count += 1
    _execute(db, "forget_replayed", **values)
    # The same column that a send changes: `depth` counts what is not dead.
    execute_queues(db, "change_depth", queue=queue.id, change=count)
    return count
