"""The contract of a document store: for each document a snapshot, and the log of updates since.

A synced document (`meshhost.documents`) is a CRDT: its state is the merge of all updates ever taken. Keeping every update
would grow without bound, so the server replaces the log by one snapshot now and then. `meshhost.server` is the caller; the
store knows nothing of CRDTs and keeps bytes. The invariant: an update that `append` accepted is part of the document until it
is deleted, also across a crash in the middle of `compact`.

One process at a time writes a document: the one that has its room. `compact` relies on that, since its snapshot must hold all
that was appended. Any process may read. This module is pure: values and signatures, no I/O.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from meshhost.identity.tenant import RoomKey, TenantId

__all__ = ["DocumentEntry", "DocumentKey", "DocumentStore", "StoredDocument"]


@dataclass(frozen=True, slots=True)
class DocumentKey:
    """A document of a room; the path is clean (`meshhost.stores.files.clean_path`)."""

    room: RoomKey
    path: str


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as it is stored: the snapshot, itself an update, and the updates since, oldest first."""

    snapshot: bytes
    updates: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class DocumentEntry:
    """A document without its content. Times are seconds since the epoch."""

    path: str
    created_at: float
    updated_at: float


class DocumentStore(Protocol):
    """A durable store of documents.

    Methods are safe to call concurrently and, unless they say otherwise, atomic. What a method did is on disk when it
    returns. A failing store raises OSError, and nothing of the call is done then; one that is not open raises RoomError.
    """

    async def open(self) -> None:
        """Make the store usable (schema, migrations). Raises SettingsError when it cannot be used, OSError."""
        ...

    async def close(self) -> None:
        """Finish what was accepted and release all resources. Idempotent; the store may be opened again."""
        ...

    async def create(self, key: DocumentKey, snapshot: bytes) -> None:
        """Store a new document. Raises AlreadyExistsError."""
        ...

    async def load(self, key: DocumentKey) -> StoredDocument | None:
        """Return the document, or None."""
        ...

    async def append(self, key: DocumentKey, update: bytes) -> None:
        """Add an update to the end of the document's log. Raises NotFoundError."""
        ...

    async def compact(self, key: DocumentKey, snapshot: bytes) -> None:
        """Replace the log by a snapshot that holds all that was appended. Raises NotFoundError."""
        ...

    async def delete(self, key: DocumentKey) -> None:
        """Delete the document. Raises NotFoundError."""
        ...

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """Delete all documents of a tenant, or of one of its rooms; idempotent, in steps. A crash may leave some."""
        ...

    async def find(self, key: DocumentKey) -> DocumentEntry | None:
        """Return the document's entry, or None."""
        ...

    async def rooms(self, tenant: TenantId) -> Sequence[str]:
        """Return the names of the tenant's rooms that have documents, sorted."""
        ...

    async def count(self, tenant: TenantId) -> int:
        """Return how many documents a tenant has in all its rooms."""
        ...

    async def list(self, room: RoomKey, folder: str) -> Sequence[DocumentEntry]:
        """Return all documents below the folder ("" is the room), in subfolders too, by path."""
        ...

    async def list_from(self, room: RoomKey, path: str, limit: int) -> Sequence[DocumentEntry]:
        """Return at most `limit` documents of the room whose path is this one or comes after it, by path.

        Paths are in the order of their code points.
        """
        ...
