"""Reads the rows of a data directory's stores while nobody can change them: the source of `meshhost db copy`.

The files of a room server are locked as a server locks them, so none runs, and each file is read in one transaction. The file
of the identities may be open in other processes: of that the transaction shows one moment. Nothing is written.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from meshhost.errors import SettingsError
from meshhost.stores.sqlite.upkeep.files import DatabaseFile, inspect, reading

__all__ = ["SqliteSource", "opened_source"]


class SqliteSource:
    """The stores of a data directory, by name, as they are while `opened_source` is not left."""

    def __init__(self, connections: Mapping[str, sqlite3.Connection]) -> None:
        self._connections = connections

    def rows(self, store: str, statement: str) -> Iterator[Sequence[Any]]:
        """Iterate over what a statement returns. Raises OSError."""
        try:
            yield from self._connections[store].execute(statement)
        except sqlite3.Error as error:
            raise OSError(f"the {store} store cannot be read: {error}") from error

    def number(self, store: str, statement: str) -> int:
        """Return the one number that a statement returns."""
        [(number,)] = self.rows(store, statement)
        return int(number)

    def last_ids(self, store: str) -> dict[str, int]:
        """Return the highest id that was given, for each table that gives none twice."""
        return {str(table): int(number) for table, number in self.rows(store, "SELECT name, seq FROM sqlite_sequence")}


@contextmanager
def opened_source(
    files: Sequence[DatabaseFile], functions: Mapping[str, Callable[..., str | int | None]]
) -> Iterator[SqliteSource]:
    """Lock the files of the stores, check them, and have them read; statements may call `functions`.

    Raises SettingsError when a server uses them or when they are not of this release's version, OSError when one is damaged.
    """
    stores = [file for file in files if file.newest is not None]
    if not any(file.path.exists() for file in stores):
        raise SettingsError(f"no databases in {stores[0].path.parent}: there is nothing to copy")
    with ExitStack() as stack:
        for file in stores:
            if not file.is_shared:
                opened = file.opened_as()
                stack.callback(opened.close)
                opened.lock()
        for file in stores:
            report = inspect(file)
            if report.problem is not None:
                raise OSError(report.problem)
            if report.state != "current":
                raise SettingsError(
                    f"the {file.what} {file.path} is not of this release: run `meshhost db migrate` first"
                )
        connections = {}
        for file in stores:
            connection = connections[file.store] = stack.enter_context(reading(file))
            for name, function in functions.items():
                connection.create_function(name, -1, function, deterministic=True)
            connection.execute("BEGIN")
        yield SqliteSource(connections)
