"""What one can learn about an engine's databases without a server, and how their schemas are brought up to date.

`meshhost db` is the user. Each engine that keeps something has an implementation (`sqlite/upkeep`, `postgres/upkeep`), which
`meshhost.app.engines` finds by the URL. Looking changes nothing and needs no lock, so a server may run meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["DatabaseReport", "Migration", "StoreReport", "Upkeep"]


@dataclass(frozen=True, slots=True)
class StoreReport:
    """One store: the version of its schema (None: not made yet), and what is wrong with it, if anything.

    `newest` is the version of this release, None for a file that the stores do not know. `bytes` is its size on disk.
    """

    name: str
    version: int | None
    newest: int | None
    bytes: int = 0
    problem: str | None = None

    @property
    def state(self) -> str:
        """Which release's the schema is, in one word: missing, current, older, newer or other."""
        if self.version is None:
            return "missing"
        if self.newest is None:
            return "other"
        if self.version == self.newest:
            return "current"
        return "older" if self.version < self.newest else "newer"


@dataclass(frozen=True, slots=True)
class DatabaseReport:
    """All stores of an engine. `is_in_use`: whether a server holds them; None when that cannot be known (behind a pooler)."""

    engine: str
    place: str
    is_in_use: bool | None
    stores: Sequence[StoreReport]
    server: str | None = None

    @property
    def problem(self) -> str | None:
        """The first thing that is wrong, or None."""
        for store in self.stores:
            if store.problem is not None:
                return f"{store.name}: {store.problem}"
        newer = [store for store in self.stores if store.state == "newer"]
        if newer:
            return (
                f"{newer[0].name}: version {newer[0].version} of the schema is newer than {newer[0].newest}: "
                "install a newer meshhost"
            )
        if all(store.version is None for store in self.stores):
            return f"no databases at {self.place}: `meshhost room serve` or `meshhost db migrate` makes them"
        return None


@dataclass(frozen=True, slots=True)
class Migration:
    """The schema of a store went from one version (0: it was not there) to another."""

    store: str
    before: int
    after: int


class Upkeep(Protocol):
    """Looks after the databases of one engine."""

    async def look(self) -> DatabaseReport:
        """Report on the databases. Raises SettingsError and OSError when they cannot be reached."""
        ...

    async def migrate(self) -> list[Migration]:
        """Bring all schemas up to date, as a server does when it starts; return what changed.

        Safe when several do it at once. Raises SettingsError when a server uses them, or when they are newer; OSError.
        """
        ...
