"""Documents among the files of a room: both live in one path space (room-protocol §10).

The storage service of a room lists, finds and deletes documents like files, although they are kept in another store. This
class puts the document store beside the object store: a path that is a file there stays one; otherwise a document of that
path is shown. The content of a document is not served as a file: clients open it as a document.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO

from obstore.store import ObjectStore

from meshhost.errors import InvalidRequestError
from meshhost.identity.tenant import RoomKey
from meshhost.stores.disk.upload import Upload
from meshhost.stores.documents import DocumentEntry, DocumentKey, DocumentStore
from meshhost.stores.files import Entry, RoomFiles
from meshhost.stores.listing.entries import Found, merged

__all__ = ["FilesAndDocuments"]


class FilesAndDocuments(RoomFiles):
    """Room files that also show documents, and delete them. Reading a document as a file raises InvalidRequestError."""

    def __init__(self, store: ObjectStore, documents: DocumentStore) -> None:
        super().__init__(store)
        self._documents = documents

    async def stat(self, room: RoomKey, path: str) -> Entry | None:
        """See RoomFiles."""
        entry = await super().stat(room, path)
        if entry is not None:
            return entry
        document = await self._documents.find(DocumentKey(room, path))
        return None if document is None else _entry(document)

    async def list(self, room: RoomKey, path: str) -> Sequence[Entry]:
        """See RoomFiles."""
        files = await super().list(room, path)
        documents = await self._documents.list(room, path)
        if not documents:
            return files
        found = {entry.path: entry for entry in files}
        start = len(path) + 1 if path else 0
        for document in documents:
            name, separator, _ = document.path[start:].partition("/")
            own = document.path[:start] + name
            found.setdefault(own, Entry(path=own, is_folder=True) if separator else _entry(document))
        return sorted(found.values(), key=lambda entry: entry.path)

    async def _keys_after(self, room: RoomKey, path: str, after: str, prefix: str, count: int) -> Sequence[Found]:
        files = await super()._keys_after(room, path, after, prefix, count)
        return merged([files, await self._documents_after(room, path, after, prefix, count)], count)

    async def _documents_after(self, room: RoomKey, path: str, after: str, prefix: str, count: int) -> Sequence[Found]:
        """Return the next `count` keys of documents, and of folders that hold some; fewer are the last ones."""
        start = f"{path}/" if path else ""
        found: dict[str, Found] = {}
        first, is_last = start + max(prefix, _behind(after)), False
        while not is_last and len(found) < count:
            documents = await self._documents.list_from(room, first, count + 1)
            is_last = len(documents) <= count
            for document in documents:
                name, slash, _ = document.path[len(start) :].partition("/")
                if not document.path.startswith(start + prefix):
                    is_last = True
                    break
                entry = Entry(path=start + name, is_folder=True) if slash else _entry(document)
                found.setdefault(name + slash, Found(name + slash, entry))
                first = start + _behind(name + slash)
        return [found[key] for key in sorted(found)[:count]]

    async def write(self, room: RoomKey, path: str, file: Upload | IO[bytes], *, overwrite: bool) -> None:
        """See RoomFiles. A document is not written over: it has grants, a history and readers of its own.

        Nor is anything written below one, which would make it look like a folder.
        """
        await self._check_free(room, path)
        await super().write(room, path, file, overwrite=overwrite)

    async def move(self, room: RoomKey, source: str, destination: str, *, overwrite: bool) -> None:
        """See RoomFiles. No document is moved, nor is a file moved to the path of one, or below."""
        await self._check_free(room, destination)
        await super().move(room, source, destination, overwrite=overwrite)

    async def delete(self, room: RoomKey, path: str) -> None:
        """See RoomFiles. Participants that have the document open cannot save edits any more."""
        if await super().stat(room, path) is None and await self._is_document(room, path):
            await self._documents.delete(DocumentKey(room, path))
        else:
            await super().delete(room, path)

    async def _check_free(self, room: RoomKey, path: str) -> None:
        """Raise InvalidRequestError for a path at which, or above which, a document is."""
        segments = path.split("/")
        for length in range(len(segments), 0, -1):
            part = "/".join(segments[:length])
            if await self._is_document(room, part):
                raise InvalidRequestError("path", f"{part!r} is a document: edit it as one, or take another path")

    async def _folder_at(self, room: RoomKey, path: str) -> Entry | None:
        entry = await super()._folder_at(room, path)
        if entry is None and await self._documents_after(room, path, "", "", 1):
            return Entry(path=path, is_folder=True)
        return entry

    async def _file(self, room: RoomKey, path: str) -> Entry:
        entry = await super()._file(room, path)
        # Only a document has no size.
        if entry.size is None:
            raise InvalidRequestError("path", f"{path!r} is a document: open it as one")
        return entry

    async def _is_document(self, room: RoomKey, path: str) -> bool:
        return await self._documents.find(DocumentKey(room, path)) is not None


def _behind(key: str) -> str:
    """Return what all paths behind a key and all that it holds come after, or are; nothing is between the two.

    Names have no control characters, so none comes between one and the same with the first character behind it.
    """
    if not key:
        return ""
    return f"{key[:-1]}{chr(ord('/') + 1)}" if key.endswith("/") else f"{key} "


def _entry(document: DocumentEntry) -> Entry:
    return Entry(path=document.path, is_folder=False, updated_at=datetime.fromtimestamp(document.updated_at, UTC))
