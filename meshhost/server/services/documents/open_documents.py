"""The documents of a room that are open: in memory from the first participant that opens one to the last that closes it.

An `OpenDocument` merges the updates of all its participants and writes each to the store before it reports it as taken, so a
server that dies loses nothing that it has acknowledged. The store keeps a snapshot and a log of updates; a log that has grown
long is replaced by a snapshot. A document is dropped from memory when no participant has it open and no request uses it.
"""

import base64
import binascii
import logging
from asyncio import Lock
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshhost.documents.crdt import SharedDocument
from meshhost.errors import InvalidRequestError, NotFoundError, RoomError
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Event, Peer
from meshhost.stores.documents import DocumentKey, DocumentStore

__all__ = ["OpenDocument", "RoomDocuments", "decode_update", "encode_update"]

logger = logging.getLogger(__name__)

# A log that is longer than this is replaced by a snapshot.
MAX_LOGGED = 200
MAX_LOGGED_BYTES = 256 * 1024


def encode_update(update: bytes) -> bytes:
    """An update as the payload of a message."""
    return base64.standard_b64encode(update)


def decode_update(payload: bytes) -> bytes:
    """The update that a payload carries. Raises InvalidRequestError."""
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error:
        raise InvalidRequestError("update", "expected base64") from None


class OpenDocument:
    """A document in memory, and the participants that have it open.

    `holds` counts the requests that use it. `connected` has each participant under the paths by which it opened the document,
    because it knows the document by those.
    """

    def __init__(self, store: DocumentStore, key: DocumentKey, *, max_bytes: int) -> None:
        self.key = key
        self.holds = 0
        self.connected: dict[tuple[Participant, str], Peer] = {}
        self._store = store
        self._max_bytes = max_bytes
        self._shared: SharedDocument | None = None
        self._loading = Lock()
        self._logged = 0
        self._logged_bytes = 0

    def __repr__(self) -> str:
        return f"<OpenDocument {self.key.path!r} connected={len(self.connected)}>"

    async def shared(self) -> SharedDocument:
        """The document's content. Raises NotFoundError, OSError."""
        async with self._loading:
            if self._shared is None:
                self._shared = await self._load()
            return self._shared

    async def take(self, update: bytes) -> bool:
        """Merge an update and store it; returns False for one that was known already.

        Raises InvalidRequestError, LimitExceededError, NotFoundError or OSError; nothing is changed then.
        """
        shared = await self.shared()
        if not shared.apply_update(update):
            return False
        try:
            await self._store.append(self.key, update)
        except BaseException:
            # The update is in memory but may not be in the store. The store is right: load from it again.
            self.forget()
            raise
        self._logged += 1
        self._logged_bytes += len(update)
        if self._logged > MAX_LOGGED or self._logged_bytes > MAX_LOGGED_BYTES:
            await self._compact(shared)
        return True

    def forget(self) -> None:
        """Load the content from the store again when it is needed next."""
        self._shared = None

    def tell(self, update: bytes, *, but: Participant) -> None:
        """Send an update to all participants except the one who made it."""
        payload = encode_update(update)
        for (participant, path), peer in self.connected.items():
            if participant is not but:
                peer.tell(Event("sync.update", {"path": path, "participant_id": but.id}, payload))

    def leave(self, participant: Participant, path: str | None = None) -> None:
        """The participant closes the document: all of it (None), or the path by which it opened it."""
        for entry in [each for each in self.connected if each[0] is participant and path in (None, each[1])]:
            del self.connected[entry]

    async def _load(self) -> SharedDocument:
        stored = await self._store.load(self.key)
        if stored is None:
            raise NotFoundError(f"no document {self.key.path!r} in this room")
        shared = SharedDocument(max_bytes=self._max_bytes)
        shared.reset(stored.snapshot)
        for update in stored.updates:
            shared.apply_update(update)
        self._logged = len(stored.updates)
        self._logged_bytes = sum(map(len, stored.updates))
        return shared

    async def _compact(self, shared: SharedDocument) -> None:
        # No await between reading the state and queueing its write: the state contains every update that is in the log by then.
        self._logged = self._logged_bytes = 0
        try:
            await self._store.compact(self.key, shared.state())
        except (OSError, RoomError) as error:
            logger.warning("document not compacted", extra={"document": self.key.path, "reason": str(error)})


class RoomDocuments:
    """The open documents of one room, by path."""

    def __init__(self) -> None:
        self._open: dict[str, OpenDocument] = {}

    def __len__(self) -> int:
        return len(self._open)

    @asynccontextmanager
    async def hold(self, store: DocumentStore, key: DocumentKey, *, max_bytes: int) -> AsyncIterator[OpenDocument]:
        """The document, which stays in memory at least during the block."""
        document = self._open.get(key.path)
        if document is None:
            document = self._open[key.path] = OpenDocument(store, key, max_bytes=max_bytes)
        document.holds += 1
        try:
            yield document
        finally:
            document.holds -= 1
            self._drop_unused()

    def forget(self, path: str) -> None:
        """The stored document was replaced: do not use what is in memory of it."""
        if path in self._open:
            self._open[path].forget()

    def connected_to(self, participant: Participant) -> int:
        """How many documents a participant has open."""
        return sum(each is participant for document in self._open.values() for each, _ in document.connected)

    def leave(self, participant: Participant) -> None:
        """Close all documents of a participant whose connection ended."""
        for document in self._open.values():
            document.leave(participant)
        self._drop_unused()

    def _drop_unused(self) -> None:
        unused = [path for path, each in self._open.items() if not each.connected and not each.holds]
        for path in unused:
            del self._open[path]
