"""Named SQL statements, read from a `.sql` file of this package.

A file is a series of blocks, each begun by a line `-- name: some_name`. Values are written `%(name)s`, as psycopg reads them;
a comment that follows the name explains the statement and is left out, since psycopg would look for values in it too.
"""

import re
from importlib import resources
from typing import LiteralString, cast

__all__ = ["read_statements"]


def read_statements(file_name: str) -> dict[str, LiteralString]:
    """Return the statements of a file of this package, such as `queues.sql`, by name."""
    text = (resources.files("meshhost.stores.postgres") / file_name).read_text(encoding="utf-8")
    parts = re.split(
        r"^-- name: (\w+)\n", re.sub(r"^\s*-- (?!name: ).*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE
    )
    # LiteralString is psycopg's guard against statements made of values; these are files of ours.
    return {name: cast(LiteralString, sql.strip()) for name, sql in zip(parts[1::2], parts[2::2], strict=True)}
