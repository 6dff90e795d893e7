"""What all stores of this package have in common: they are open or not, over one database that outlives them.

The engine opens the database first. Opening a store migrates its tables; closing it refuses what comes later. Operations that
are under way when a store is closed end by themselves, or with the database.
"""

from meshhost.errors import RoomError
from meshhost.stores.postgres.database import PostgresDatabase

__all__ = ["Lifetime"]


class Lifetime:
    """A store in `database`, with the tables of `migrations/<migrations>`; `what` is its name in errors."""

    def __init__(self, database: PostgresDatabase, *, migrations: str, what: str) -> None:
        self._database = database
        self._migrations = migrations
        self._what = what
        self._is_open = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._database.name} open={self._is_open}>"

    @property
    def database(self) -> PostgresDatabase:
        """The database, while the store is open. Raises RoomError when it is not."""
        self.check_open()
        return self._database

    def check_open(self) -> None:
        """Raise RoomError when the store is not open."""
        if not self._is_open:
            raise RoomError(f"the {self._what} is not open")

    async def open(self) -> None:
        """Bring the tables to the version of this release. Raises SettingsError when they are newer, OSError."""
        await self._database.migrate(self._migrations)
        self._is_open = True

    async def close(self) -> None:
        """Refuse operations from now on. Idempotent; the store may be opened again."""
        self._is_open = False
