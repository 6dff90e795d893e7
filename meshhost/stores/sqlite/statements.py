"""Named SQL statements, read from a `.sql` file of this package.

SQL is kept in files of its own, where it can be read, searched and explained as SQL. A file is a series of blocks, each begun
by a line `-- name: some_name`; comments inside a block stay part of its statement.
"""

import re
import sqlite3
from importlib import resources

__all__ = ["Statements"]


class Statements:
    """The statements of one file, such as `queues.sql`, by name."""

    def __init__(self, file_name: str) -> None:
        text = (resources.files("meshhost.stores.sqlite") / file_name).read_text(encoding="utf-8")
        parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
        self._texts = dict(zip(parts[1::2], parts[2::2], strict=True))

    def __getitem__(self, name: str) -> str:
        return self._texts[name]

    def execute(self, db: sqlite3.Connection, name: str, /, **values: object) -> sqlite3.Cursor:
        """Execute the statement of this name with named parameters. Raises sqlite3.Error."""
        return db.execute(self._texts[name], values)
