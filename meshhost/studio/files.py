"""The files of the Studio page, read from inside the package and kept in memory, ready to be sent.

There are few of them and a page asks for all, so they are read once, at the first request for any, and compressed then; a
server that nobody looks at spends nothing. Their addresses contain a version made of all their contents: a browser may keep
such a file for ever, and a page never mixes files of two releases. The page itself, `index.html`, names its files below
`/studio/static/-/`, which is replaced by the version. Nothing here depends on HTTP, so that tests can ask for every file.
"""

import functools
import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable

__all__ = ["ANY_VERSION", "StudioFile", "StudioFiles", "read_files"]

ANY_VERSION = "-"
"""Stands for the version in addresses of `index.html`."""

_PAGE = "index.html"
_STATIC = "/studio/static/"
_TYPES = {
    "html": "text/html",
    "js": "text/javascript",
    "mjs": "text/javascript",
    "css": "text/css",
    "svg": "image/svg+xml",
    "json": "application/json",
    "map": "application/json",
    "txt": "text/plain",
    "md": "text/plain",
    "png": "image/png",
    "webp": "image/webp",
    "woff2": "font/woff2",
}
_COMPRESSED = frozenset({"png", "webp", "woff2"})
_UNKNOWN = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class StudioFile:
    """One file: its type, its content, the same compressed (None when that saves nothing), and a tag that changes with it."""

    content_type: str
    content: bytes = field(repr=False)
    compressed: bytes | None = field(repr=False)
    tag: str


@dataclass(frozen=True, slots=True)
class StudioFiles:
    """All files by their path below `static/`, the page, and the version in their addresses."""

    version: str
    page: StudioFile
    files: Mapping[str, StudioFile] = field(repr=False)

    def find(self, version: str, path: str) -> StudioFile | None:
        """The file at an address, or None; one of another version is not here."""
        return self.files.get(path) if version in (self.version, ANY_VERSION) else None


@functools.cache
def read_files() -> StudioFiles:
    """All files, read once in a process, within milliseconds. Raises FileNotFoundError where they are not installed."""
    contents = _contents(resources.files("meshhost.studio") / "static")
    version = _digest(b"".join(f"{path}\0{_digest(data)}\0".encode() for path, data in sorted(contents.items())))
    page = contents[_PAGE].replace(f"{_STATIC}{ANY_VERSION}/".encode(), f"{_STATIC}{version}/".encode())
    return StudioFiles(version, _file(_PAGE, page), {path: _file(path, data) for path, data in contents.items()})


def _contents(folder: Traversable, prefix: str = "") -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            found |= _contents(entry, f"{prefix}{entry.name}/")
        else:
            found[prefix + entry.name] = entry.read_bytes()
    return found


def _file(path: str, content: bytes) -> StudioFile:
    kind = path.rpartition(".")[2].lower()
    # Without a time in it, so that every server makes the same bytes.
    compressed = None if kind in _COMPRESSED else gzip.compress(content, mtime=0)
    if compressed is not None and len(compressed) >= len(content):
        compressed = None
    return StudioFile(_TYPES.get(kind, _UNKNOWN), content, compressed, _digest(content))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
