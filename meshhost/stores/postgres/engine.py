"""The engine over PostgreSQL: all stores in one database, which MESHHOST_DATABASE_URL names.

Made by `meshhost.app.engines`. The database is opened before the stores and closed after them. One room server uses it at a
time.
"""

from meshhost.stores.engine import Engine
from meshhost.stores.postgres.configuration.store import PostgresConfigurationStore
from meshhost.stores.postgres.database import PostgresDatabase
from meshhost.stores.postgres.documents import PostgresDocumentStore
from meshhost.stores.postgres.exclusive import ExclusiveUse
from meshhost.stores.postgres.identity import PostgresIdentityStore
from meshhost.stores.postgres.notifier import PostgresNotifier
from meshhost.stores.postgres.queues import PostgresQueueStore
from meshhost.stores.postgres.triggers.store import PostgresTriggerStore
from meshhost.stores.postgres.usage import PostgresUsageStore
from meshhost.stores.queues import QueueLimits

__all__ = ["postgres_engine"]


def postgres_engine(url: str, *, limits: QueueLimits, is_exclusive: bool = True) -> Engine:
    """Return the stores in the database at `url`, not opened. Raises SettingsError for a URL that cannot be read.

    `is_exclusive`: while it is open, no other engine that says so opens on the database (`exclusive.py`).
    """
    database = PostgresDatabase(url)
    return Engine(
        name="postgresql",
        queues=PostgresQueueStore(database, limits=limits),
        documents=PostgresDocumentStore(database),
        identity=PostgresIdentityStore(database),
        usage=PostgresUsageStore(database),
        triggers=PostgresTriggerStore(database),
        configuration=PostgresConfigurationStore(database),
        notifier=PostgresNotifier(database),
        shared=(database, ExclusiveUse(database)) if is_exclusive else (database,),
        weights=database.weights,
    )
