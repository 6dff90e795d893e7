"""The engine of several room servers: one PostgreSQL database, named by MESHHOST_DATABASE_URL."""

from meshhost.stores.engine import Engine
from meshhost.stores.postgres.database import PostgresDatabase
from meshhost.stores.postgres.documents import PostgresDocumentStore
from meshhost.stores.postgres.identity import PostgresIdentityStore
from meshhost.stores.postgres.notifier import PostgresNotifier
from meshhost.stores.postgres.queues import PostgresQueueStore
from meshhost.stores.postgres.usage import PostgresUsageStore
from meshhost.stores.queues import QueueLimits

__all__ = ["postgres_engine"]


def postgres_engine(url: str, *, limits: QueueLimits) -> Engine:
    """Return the stores in the database at `url`, not opened. Raises SettingsError for a URL that cannot be read."""
    database = PostgresDatabase(url)
    return Engine(
        name="postgresql",
        queues=PostgresQueueStore(database, limits=limits),
        documents=PostgresDocumentStore(database),
        identity=PostgresIdentityStore(database),
        usage=PostgresUsageStore(database),
        notifier=PostgresNotifier(database),
        shared=(database,),
    )
