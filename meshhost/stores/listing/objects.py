"""The keys in a folder of an object store, from any key on.

Stores list all keys below a prefix in their order, and can begin behind one (`ordered` says which do): a folder appears as the
keys that it holds. When a folder holds many, the listing begins again behind all of them, so a page never reads a large folder
through. Of a store that gives no order, `meshhost.stores.files` reads the whole folder for each page.
"""

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import obstore
from obstore.store import AzureStore, GCSStore, MemoryStore, ObjectStore, S3Store

from meshhost.stores.listing.entries import LAST, Entry, Found

if TYPE_CHECKING:
    from obstore import ObjectMeta

__all__ = ["keys_after", "ordered"]

_PAGE = 250
# Keys of one folder that are passed over one by one before it is left by another request.
_PASSED = 1000


def ordered(store: ObjectStore) -> bool:
    """Return whether the store lists its keys in order, from any on. The directory buckets of S3 Express do not."""
    if isinstance(store, S3Store):
        return not str(store.config.get("bucket", "")).endswith("--x-s3")
    return isinstance(store, GCSStore | AzureStore | MemoryStore)


async def keys_after(store: ObjectStore, folder: str, cut: int, after: str, prefix: str, count: int) -> Sequence[Found]:
    """Return the first `count` keys in a folder behind `after` that begin with the prefix.

    `cut` is how many characters of the store's keys are not the path in the room. Raises FileNotFoundError and the library's
    errors.
    """
    walk = _Walk(store, f"{folder}/", cut, after, prefix, count)
    offset: str | None = walk.offset
    while offset is not None:
        offset = await walk.read(offset)
    return walk.found


class _Walk:
    def __init__(self, store: ObjectStore, start: str, cut: int, after: str, prefix: str, count: int) -> None:
        self._store, self._start, self._cut = store, start, cut
        self._last, self._prefix, self._count = after, prefix, count
        self.offset = start + (_before(prefix) if prefix > after else _behind(after))
        self.found: list[Found] = []

    async def read(self, offset: str) -> str | None:
        """Read keys behind an offset; return the offset to go on behind, or None when there is no more to read."""
        passed = 0
        async for page in obstore.list(self._store, self._start[:-1], offset=offset, chunk_size=_PAGE):
            for meta in page:
                name, slash, _ = meta["path"][len(self._start) :].partition("/")
                key = f"{name}{slash}"
                if key > self._last and key.startswith(self._prefix):
                    self.found.append(self._found(key, meta))
                    self._last, passed = key, 0
                    if len(self.found) == self._count:
                        return None
                elif key > self._prefix and not key.startswith(self._prefix):
                    return None
                else:
                    passed += 1
                    behind = self._start + _behind(key)
                    # Names that begin with the last character come behind what is behind all others: they are read through.
                    if slash and passed >= _PASSED and behind > offset:
                        return behind
        return None

    def _found(self, key: str, meta: "ObjectMeta") -> Found:
        path = meta["path"][self._cut :]
        if not key.endswith("/"):
            return Found(key, Entry(path, is_folder=False, size=meta["size"], updated_at=meta["last_modified"]))
        return Found(key, Entry(self._start[self._cut :] + key[:-1], is_folder=True))


def _behind(key: str) -> str:
    return f"{key}{LAST}" if key.endswith("/") else key


def _before(prefix: str) -> str:
    """Return what all names that begin with the prefix come behind, and as few others as can be."""
    character = ord(prefix[-1]) - 1
    while character >= ord(" "):
        if chr(character) not in "/\\" and unicodedata.category(chr(character)) not in {"Cc", "Cs"}:
            return f"{prefix[:-1]}{chr(character)}{LAST}"
        character -= 1
    return "" if prefix[:-1] in {".", ".."} else prefix[:-1]
