"""Which table of SQLite becomes which of PostgreSQL, column by column, when an installation is moved.

`copy.py` is the user. A column of PostgreSQL that is not named here is read from the column of the same name, so a column that
both engines get needs no line. A table needs one: TABLES are in the order of their references, and NOT_COPIED says why a table
has no counterpart. A test compares both with the tables and columns that the migrations make, so none can be forgotten.

What nobody sees any more is left behind: messages of queues that were drained or deleted, and rows whose owner is gone.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.postgres.messages.keys import hash_of_key
from meshhost.stores.queues import QueueKey

__all__ = ["FUNCTIONS", "MESSAGE_IDS", "NOT_COPIED", "TABLES", "Table"]

NOT_COPIED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "versions": "of the schema: the same as after every migration",
        "key_version": "counts changes; the copy of the keys is one",
        "configuration_version": "counts changes; the copy of what tenants configured is one",
        "checks": "proves that something can be written",
        "removals": "names rows that are being deleted, which are not copied",
        "dropped_lanes": "names rows that are being deleted, of which the copy has none",
    }
)
"""The tables of either engine that are not copied, and why."""

MESSAGE_IDS: Final = "message_ids"
"""The sequence of PostgreSQL that numbers messages. In SQLite the table does, which never gives an id twice."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of PostgreSQL, and what of SQLite becomes its rows: `source` in the file `store`.

    `columns` has the expression for each column that is not the one of the same name. `joined` and `where` follow FROM; `order`
    names the columns that put the rows in an order that does not change. `unused` are columns of SQLite without counterpart.
    """

    name: str
    store: str
    source: str
    columns: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    joined: str = ""
    where: str = "true"
    order: str = "rowid"
    unused: frozenset[str] = frozenset()

    def select(self, columns: tuple[str, ...]) -> str:
        """Return the statement that reads the rows as those of PostgreSQL, with these columns."""
        what = ", ".join(self.columns.get(column, f"{self.source}.{column}") for column in columns)
        order = ", ".join(f"{self.source}.{column}" for column in self.order.split(", "))
        return f"SELECT {what} FROM {self.source} {self.joined} WHERE {self.where} ORDER BY {order}"  # noqa: S608 - ours

    def count(self) -> str:
        """Return the statement that counts these rows."""
        return f"SELECT count(*) FROM {self.source} {self.joined} WHERE {self.where}"  # noqa: S608 - ours


def _json_text(text: str | None) -> str | None:
    return None if text is None else json.dumps(text)


def _key_hash(tenant: str, room: str, name: str, key: str | None) -> int | None:
    queue = QueueKey(RoomKey(TenantId(tenant), room), name)
    return hash_of_key(queue, None if key is None else key.encode())


FUNCTIONS: Final[Mapping[str, Callable[..., str | int | None]]] = MappingProxyType(
    {"json_text": _json_text, "key_hash": _key_hash}
)
"""What the expressions of the tables call."""

# What a queue had when it was made is under its first id, its messages are under the present one.
_FIRST = "ifnull(queues.first_id, queues.id)"
_OF_A_QUEUE = f"queue_id IN (SELECT {_FIRST} FROM queues)"  # noqa: S608 - ours
_LIVING = "SELECT messages.id FROM messages JOIN queues ON queues.id = messages.queue_id"
_KEPT_IDS = f"{_LIVING} UNION ALL SELECT id FROM dead_letters WHERE {_OF_A_QUEUE}"  # noqa: S608 - ours
_KEY_HASH = "key_hash(queues.tenant, queues.room, queues.name, key)"
# One that is held back waits for the message before it, and then for this time.
_DUE = "CASE ready WHEN 2 THEN delayed_until ELSE due END"

TABLES: Final = (
    Table("projects", "identity", "project"),
    Table("deleted_projects", "identity", "deleted_project", order="id"),
    Table("api_keys", "identity", "api_key", {"number": "api_key.rowid"}),
    Table("key_uses", "identity", "key_use", where="key_id IN (SELECT id FROM api_key)", order="key_id"),
    Table("rooms", "identity", "room"),
    Table("deleted_rooms", "identity", "deleted_room", order="project_id, name"),
    Table(
        "tenant_quotas",
        "identity",
        "tenant_quota",
        where="project_id IN (SELECT id FROM project)",
        order="project_id, name",
    ),
    Table("documents", "documents", "documents"),
    Table("document_updates", "documents", "updates"),
    Table("usage", "usage", "usage", order="tenant, hour, room, identity, model, price"),
    Table("triggers", "triggers", "triggers", order="id"),
    Table("trigger_log", "triggers", "trigger_log", where="trigger_id IN (SELECT id FROM triggers)"),
    Table("configuration", "configuration", "configuration"),
    Table(
        "configuration_log",
        "configuration",
        "configuration_log",
        where="item_id IN (SELECT id FROM configuration)",
    ),
    Table("queues", "queues", "queues", {"id": _FIRST, "lane": "queues.id"}, unused=frozenset({"depth"})),
    Table(
        "messages",
        "queues",
        "messages",
        {
            "lane": "messages.queue_id",
            "ready": f"({_DUE}) IS NULL",
            "due": _DUE,
            "held_back": "ready = 2",
            "key_hash": _KEY_HASH,
            "leased_by": "json_text(worker)",
        },
        joined="JOIN queues ON queues.id = messages.queue_id",
    ),
    Table("contents", "queues", "contents", where=f"message_id IN ({_KEPT_IDS})"),
    Table(
        "dead_letters",
        "queues",
        "dead_letters",
        {"queue": "dead_letters.queue_id", "key_hash": _KEY_HASH, "leased_by": "json_text(worker)"},
        joined=f"JOIN queues ON {_FIRST} = dead_letters.queue_id",
    ),
    Table(
        "outcomes",
        "queues",
        "outcomes",
        # SQLite does not keep the reason of one that was dead before it was cancelled.
        {"queue": "outcomes.queue_id", "leased_by": "json_text(worker)", "reason": "NULL"},
        where=_OF_A_QUEUE,
    ),
    Table(
        "sent_ids",
        "queues",
        "sent_ids",
        {"queue": "sent_ids.queue_id"},
        where=_OF_A_QUEUE,
        order="queue_id, sender_id",
    ),
    Table(
        "starts",
        "queues",
        "starts",
        {"queue": "starts.queue_id", "key": "CAST(starts.key AS BLOB)"},
        where=_OF_A_QUEUE,
        order="queue_id, key",
    ),
)
