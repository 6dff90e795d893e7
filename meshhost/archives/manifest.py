"""The first entry of an archive: what it is, and in which version of the format.

The server writes it and checks it before anything else; the command line reads it for the name of the tenant or room.
"""

import json
import math
from dataclasses import asdict, dataclass
from typing import IO, Final, Literal

from meshhost.archives.tar import Entry, damaged, open_entry, read_entries
from meshhost.errors import InvalidRequestError

__all__ = ["MANIFEST", "VERSION", "Manifest", "parse_manifest", "read_manifest"]

MANIFEST: Final = "manifest.json"
VERSION: Final = 1
"""Of the format. A reader refuses a greater one; a change that old readers understand keeps it."""

_FORMAT: Final = "meshhost archive"
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive holds: everything of a tenant or of a room, its name there, and when it was begun."""

    kind: Literal["tenant", "room"]
    name: str
    created_at: float

    def to_json(self) -> bytes:
        """Return the entry's content."""
        content = {"format": _FORMAT, "version": VERSION, **asdict(self), "left_out": ["API keys"]}
        return json.dumps(content, indent=2).encode() + b"\n"


def read_manifest(file: IO[bytes]) -> Manifest:
    """Return the manifest of an archive, of which nothing else is checked. Raises InvalidRequestError."""
    for entry in read_entries(file):
        return parse_manifest(file, entry)
    raise damaged("it is empty")


def parse_manifest(file: IO[bytes], entry: Entry) -> Manifest:
    """Return the manifest in this entry. Raises InvalidRequestError when it is none, or of a newer version."""
    if entry.name != MANIFEST or entry.size > _MOST_BYTES:
        raise damaged(f"it does not begin with {MANIFEST}")
    try:
        content = json.loads(open_entry(file, entry).read())
        version, kind, name, at = (content[key] for key in ("version", "kind", "name", "created_at"))
        is_ours = content["format"] == _FORMAT and isinstance(version, int)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise damaged("the manifest is not one") from None
    if is_ours and version > VERSION:
        raise InvalidRequestError(
            "archive", f"it has version {version} of the format, this meshhost knows {VERSION}: use a newer meshhost"
        )
    is_number = isinstance(at, int | float) and math.isfinite(at)
    if not (is_ours and version == VERSION and isinstance(name, str) and kind in {"tenant", "room"} and is_number):
        raise damaged("the manifest is not one")
    return Manifest(kind, name, float(at))
