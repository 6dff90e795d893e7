"""Documents in this process's memory: the contract of DocumentStore in its plainest form.

Used by the memory engine, for tests and rooms that need no durability. The contract suite runs on it and every other store.
Methods do not await anything, so each is atomic in its event loop; times come from the injected clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from meshhost.clock import Clock, SystemClock
from meshhost.errors import AlreadyExistsError, NotFoundError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.documents import DocumentEntry, DocumentKey, StoredDocument

__all__ = ["MemoryDocumentStore"]


@dataclass(slots=True)
class _Document:
    snapshot: bytes
    created_at: float
    updated_at: float
    updates: list[bytes] = field(default_factory=list)


class MemoryDocumentStore:
    """Keeps the contract of DocumentStore except durability."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._documents: dict[DocumentKey, _Document] = {}
        self._open = False

    async def open(self) -> None:
        """See DocumentStore."""
        self._open = True

    async def close(self) -> None:
        """See DocumentStore."""
        self._open = False

    async def create(self, key: DocumentKey, snapshot: bytes) -> None:
        """See DocumentStore."""
        if key in self._all():
            raise AlreadyExistsError(f"document {key.path!r} exists")
        now = self._clock.time()
        self._documents[key] = _Document(snapshot, now, now)

    async def load(self, key: DocumentKey) -> StoredDocument | None:
        """See DocumentStore."""
        found = self._all().get(key)
        return None if found is None else StoredDocument(found.snapshot, list(found.updates))

    async def append(self, key: DocumentKey, update: bytes) -> None:
        """See DocumentStore."""
        found = self._find(key)
        found.updates.append(update)
        found.updated_at = self._clock.time()

    async def compact(self, key: DocumentKey, snapshot: bytes) -> None:
        """See DocumentStore."""
        found = self._find(key)
        found.snapshot, found.updates, found.updated_at = snapshot, [], self._clock.time()

    async def delete(self, key: DocumentKey) -> None:
        """See DocumentStore."""
        self._find(key)
        del self._documents[key]

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See DocumentStore."""
        self._documents = {key: found for key, found in self._all().items() if not key.room.is_of(tenant, room)}

    async def find(self, key: DocumentKey) -> DocumentEntry | None:
        """See DocumentStore."""
        found = self._all().get(key)
        return None if found is None else DocumentEntry(key.path, found.created_at, found.updated_at)

    async def rooms(self, tenant: TenantId) -> Sequence[str]:
        """See DocumentStore."""
        return sorted({key.room.name for key in self._all() if key.room.tenant == tenant})

    async def count(self, tenant: TenantId) -> int:
        """See DocumentStore."""
        return sum(key.room.tenant == tenant for key in self._all())

    async def list(self, room: RoomKey, folder: str) -> Sequence[DocumentEntry]:
        """See DocumentStore."""
        prefix = f"{folder}/" if folder else ""
        entries = [
            DocumentEntry(key.path, document.created_at, document.updated_at)
            for key, document in self._all().items()
            if key.room == room and key.path.startswith(prefix)
        ]
        return sorted(entries, key=lambda entry: entry.path)

    async def list_from(self, room: RoomKey, path: str, limit: int) -> Sequence[DocumentEntry]:
        """See DocumentStore."""
        return [entry for entry in await self.list(room, "") if entry.path >= path][:limit]

    def _all(self) -> dict[DocumentKey, _Document]:
        if not self._open:
            raise RoomError("the document store is not open")
        return self._documents

    def _find(self, key: DocumentKey) -> _Document:
        if (found := self._all().get(key)) is None:
            raise NotFoundError(f"no document {key.path!r} in this room")
        return found
