"""Reads from two URLs what `meshhost db copy` copies, and whether it can.

There is one way, from SQLite to PostgreSQL; for every other pair an error says what to use. Nothing of PostgreSQL is
imported here.
"""

from dataclasses import dataclass
from pathlib import Path

from meshhost.errors import InvalidRequestError
from meshhost.stores.sqlite.upkeep.upkeep import SqliteUpkeep

__all__ = ["Installation", "check_target", "find_source"]

_POSTGRES = ("postgres://", "postgresql://")


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the source of a copy is: its data directory, and what looks after its files."""

    data_dir: Path
    upkeep: SqliteUpkeep

    @property
    def left_out(self) -> list[str]:
        """What a copy leaves where it is, as paths and words for people."""
        others = [str(file.path) for file in self.upkeep.files if file.newest is None]
        return [
            f"files of rooms and large messages ({self.data_dir / 'storage'}, or the object store)",
            "keys of MESHHOST_CONFIG_DIR",
            *others,
        ]


def find_source(url: str, data_dir: Path) -> Installation:
    """Return the installation that a `sqlite:///` URL names: its data folder, or its file of queues in `data_dir`.

    Raises InvalidRequestError, which names FROM_URL.
    """
    if url.startswith(_POSTGRES):
        raise InvalidRequestError(
            "FROM_URL",
            "a copy from PostgreSQL is not supported: take `pg_dump` and `pg_restore` to another PostgreSQL, "
            "`meshhost tenant export` and `tenant import` to SQLite",
        )
    scheme, _, path = url.partition(":///")
    if scheme != "sqlite" or not path:
        raise InvalidRequestError("FROM_URL", "expected sqlite:///FOLDER, the data folder of the room server")
    place = Path(path).expanduser()
    if place.is_dir():
        return Installation(place, SqliteUpkeep(place))
    if not place.exists():
        raise InvalidRequestError("FROM_URL", f"there is no folder or file {place}")
    return Installation(data_dir, SqliteUpkeep(data_dir, queues=place))


def check_target(url: str) -> None:
    """Raise InvalidRequestError, which names TO_URL, unless an installation can be copied to this URL."""
    if not url.startswith(_POSTGRES):
        hint = ""
        if url.startswith("sqlite:"):
            hint = ": to another data folder take `meshhost db backup` and `meshhost db restore`"
        raise InvalidRequestError("TO_URL", f"expected postgresql://…{hint}")
