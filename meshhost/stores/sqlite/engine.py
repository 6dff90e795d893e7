"""The engine of a single room server: SQLite files in its data directory.

Chosen by `meshhost.app.engines` when MESHHOST_DATABASE_URL names nothing else. Each store has a file of its own, so that a slow
one holds up no other, and each file has its own thread and connection. One process uses them at a time.
"""

from pathlib import Path

from meshhost.stores.engine import Engine
from meshhost.stores.queues import QueueLimits
from meshhost.stores.shared.fair import TenantWeights
from meshhost.stores.shared.local_notifier import LocalNotifier
from meshhost.stores.sqlite.configuration.store import SqliteConfigurationStore
from meshhost.stores.sqlite.documents import SqliteDocumentStore
from meshhost.stores.sqlite.identity import SqliteIdentityStore
from meshhost.stores.sqlite.queues import SqliteQueueStore
from meshhost.stores.sqlite.triggers.store import SqliteTriggerStore
from meshhost.stores.sqlite.usage import SqliteUsageStore

__all__ = ["sqlite_engine"]


def sqlite_engine(data_dir: Path, *, queues: Path | None = None, limits: QueueLimits) -> Engine:
    """Return the stores in `data_dir`, not opened; `queues` is the queue store's file (default: `queues.db` there)."""
    weights = TenantWeights()
    return Engine(
        name="sqlite",
        queues=SqliteQueueStore(queues or data_dir / "queues.db", limits=limits, weights=weights),
        documents=SqliteDocumentStore(data_dir / "documents.db", weights=weights),
        identity=SqliteIdentityStore(data_dir / "identity.db"),
        usage=SqliteUsageStore(data_dir / "usage.db"),
        triggers=SqliteTriggerStore(data_dir / "triggers.db"),
        configuration=SqliteConfigurationStore(data_dir / "configuration.db"),
        notifier=LocalNotifier(),
        weights=weights,
    )
