"""Queues in a SQLite file: `SqliteQueueStore`, the queue store of a single room server.

`store.py` has the store, whose methods are operations on the file's thread. Their parts are in `rows.py` (finding queues and
messages), `sending.py`, `leasing.py` (what is delivered, and how a delivery ends), `life.py` (what is known of a message),
`dead_letters.py` and `archive.py`; `removal.py` deletes in the background what was drained or deleted. The statements are in
the `.sql` files beside them, the tables in `../migrations/queues`.
"""

from meshhost.stores.sqlite.queues.store import SqliteQueueStore

__all__ = ["SqliteQueueStore"]
