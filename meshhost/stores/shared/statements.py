"""Named SQL statements, read from a `.sql` file beside the store that uses them.

SQL is kept in files of its own, where it can be read, searched and explained as SQL. A file is a series of blocks, each begun
by a line `-- name: some_name`. Lines of comment explain a statement and are left out: a driver would look for values in them.
Each engine's package reads its files with `read_statements` at import.
"""

import re
from importlib import resources

__all__ = ["read_statements"]


def read_statements(package: str, file_name: str) -> dict[str, str]:
    """Return the statements of a file in a package, such as `queues.sql` of `meshhost.stores.sqlite`, by name."""
    text = (resources.files(package) / file_name).read_text(encoding="utf-8")
    text = re.sub(r"^\s*-- (?!name: ).*\n", "", text, flags=re.MULTILINE)
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: sql.strip() for name, sql in zip(parts[1::2], parts[2::2], strict=True)}
