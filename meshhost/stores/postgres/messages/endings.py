"""How messages leave a queue: done, dead, cancelled or expired.

Used by whatever ends messages, inside its transaction. What is to be known of them is kept in `outcomes`, or in `dead_letters`,
and the next one of a key follows. Invariant: the rows are locked by this transaction, and so are the keys of those that have
one (`keys.py`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from meshhost.stores.messages import EndReason, MessageState, kept_error
from meshhost.stores.postgres.database import Connection
from meshhost.stores.postgres.messages.tables import SQL, QueueTables

__all__ = ["Ended", "Ending", "end_messages", "error_text", "json_bytes", "let_follow", "note_of"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a message ends. `note` is how its delivery ended by this, if one did; `death` the reason of a dead letter."""

    lane: int
    message_id: int
    state: MessageState
    note: EndReason | None = None
    error: str = ""
    failed: bool = False
    result: bytes | None = None
    death: str | None = None


class Ended(NamedTuple):
    """A message that has ended, with its key."""

    lane: int
    message_id: int
    key_hash: int | None
    key: bytes | None
    was_held_back: bool


async def end_messages(connection: Connection, tables: QueueTables, endings: Sequence[Ending]) -> list[Ended]:
    """End the messages; return those that were still there. `let_follow` must be called with them."""
    values: dict[str, object] = {
        "lanes": [ending.lane for ending in endings],
        "ids": [ending.message_id for ending in endings],
        "states": [ending.state.value for ending in endings],
        "notes": [None if ending.note is None else note_of(ending.note) for ending in endings],
        "errors": [error_text(ending.error) for ending in endings],
        "failed": [int(ending.failed) for ending in endings],
        "results": [ending.result for ending in endings],
        # An exception's text may hold lone surrogates.
        "deaths": [
            None if ending.death is None else ending.death.encode(errors="backslashreplace") for ending in endings
        ],
    }
    rows = await (await connection.execute(SQL["end_messages"], {**values, **tables.times()})).fetchall()
    return [
        Ended(lane, number, key_hash, None if key is None else bytes(key), held)
        for lane, number, key_hash, key, held in rows
    ]


async def let_follow(connection: Connection, ended: Sequence[Ended]) -> set[tuple[int, bytes]]:
    """Let the next ones of the keys of these messages follow; return the keys that have one, each with its lane."""
    heads = {(one.lane, one.key_hash, one.key) for one in ended if one.key_hash is not None and not one.was_held_back}
    if not heads:
        return set()
    lanes, hashes, keys = zip(*heads, strict=True)
    values = {"lanes": list(lanes), "hashes": list(hashes), "keys": list(keys)}
    rows = await (await connection.execute(SQL["let_follow"], values)).fetchall()
    return {(lane, bytes(key)) for lane, key in rows}


def note_of(reason: EndReason) -> str:
    """The reason for a history."""
    return json.dumps(reason.value)


def error_text(error: str) -> str:
    """An error for a history: JSON of ASCII, so that it may be any text."""
    return json.dumps(kept_error(error))


def json_bytes(text: str) -> bytes:
    """A JSON text as it is kept; a lone surrogate becomes its escape, which is the same JSON."""
    return text.encode(errors="backslashreplace")
