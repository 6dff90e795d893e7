"""Large bodies and results of messages, kept as objects beside the queue store (a "claim check").

A store commits many small rows in one transaction; a body of megabytes among them holds up every sender. So a body of more than
`inline_bytes` becomes an object (`stores/bodies`), and its row refers to it. `QueueService` calls this module where a message
with such a body is sent, leased and settled; a message of usual size costs one comparison.

The invariant: a row never refers to an object that is not on the disk. The object is written before the row is committed, and
deleted after the row is gone. What lies between is an orphan: of a process that was killed, of a send whose outcome nobody
knows, of a row that ended without this process seeing its body (cancelled, purged, expired, a result that is forgotten). The
reclaimer deletes orphans: objects to which no row refers, and which either this process has seen referred to, or which are
older than `safe_age`, far longer than a send takes. Nobody else can tell them from a body whose row is just being committed.

Tasks: one reclaimer from `start` to `stop`, which looks at everything every `sweep_seconds` and at a room when it is told to,
and those that delete objects of settled messages. Stored bytes count for the quota of the tenant.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import MappingProxyType

from meshhost.clock import Clock, SystemClock
from meshhost.errors import InvalidRequestError, LimitExceededError, NotFoundError, RoomError, TooLargeError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.waiters import wait_at_most
from meshhost.quotas.counts import UNCOUNTED, Mark, TenantCounts
from meshhost.quotas.quota import Resource
from meshhost.stores.bodies.objects import BodyObjects, reference_to
from meshhost.stores.bodies.reference import BodyReference
from meshhost.stores.disk.upload import Upload
from meshhost.stores.queues import Delivery, Lease, NewMessage, QueueStore
from meshhost.tasks import TaskOwner, uninterrupted

__all__ = ["INLINE_BYTES", "NO_UPLOADS", "BodyUpload", "LargeBodies", "Uploads"]

logger = logging.getLogger(__name__)

INLINE_BYTES = 256 * 1024
"""Up to this size a body is in its row."""

_SAFE_AGE = 3600.0
_SWEEP_SECONDS = 600.0
# A purge of many messages is one look.
_LOOK_SECONDS = 1.0
# Names that are remembered; of more, the objects are found by their age.
_MOST_KNOWN = 100_000
# A refusal comes before anything is committed; of other errors nobody knows.
_REFUSALS = (InvalidRequestError, LimitExceededError, NotFoundError)


class BodyUpload:
    """A body or result that is being received: its bytes are counted as stored from the first one on.

    Made by `LargeBodies.new_upload`; close it in any case.
    """

    def __init__(self, file: Upload, tenant: TenantId, counts: TenantCounts, max_bytes: int) -> None:
        self.file = file
        self._tenant = tenant
        self._counts = counts
        self._max_bytes = max_bytes
        self._size = 0
        self._taken = 0
        self._is_closed = False

    async def add(self, data: bytes) -> None:
        """Append bytes; one call after the other. Raises TooLargeError, QuotaExceededError, StorageFullError, OSError."""
        self._size += len(data)
        self.check_size(self._size)
        await self._counts.take(self._tenant, Resource.STORED_BYTES, len(data))
        if self._is_closed:  # while we waited
            self._counts.give_back(self._tenant, Resource.STORED_BYTES, len(data))
            raise OSError("the upload was closed")
        self._taken += len(data)
        await self.file.add(data)

    def check_size(self, size: int) -> None:
        """Raise TooLargeError when `size` bytes are too many for a body."""
        if size > self._max_bytes:
            raise TooLargeError(f"message of {size} bytes, a queue takes at most {self._max_bytes}")

    def keep(self, since: Mark) -> None:
        """It is an object now, by a write that began at this mark."""
        self._counts.keep(self._tenant, Resource.STORED_BYTES, self._taken, since=since)
        self._taken = 0

    def close(self) -> None:
        """Free what it took, unless it was kept. Idempotent."""
        self._is_closed = True
        self.file.close()
        taken, self._taken = self._taken, 0
        self._counts.give_back(self._tenant, Resource.STORED_BYTES, taken)


Uploads = Mapping[int, BodyUpload]
"""The bodies of messages that came as uploads, by the place of the message."""

NO_UPLOADS: Uploads = MappingProxyType({})


class LargeBodies:
    """The large bodies of the messages in `store`.

    `max_bytes` bounds one body. Operations raise RoomError when the object store fails, StorageFullError, QuotaExceededError.
    """

    def __init__(
        self,
        store: QueueStore,
        objects: BodyObjects | None = None,
        *,
        inline_bytes: int = INLINE_BYTES,
        max_bytes: int = 8 * 1024 * 1024,
        counts: TenantCounts = UNCOUNTED,
        clock: Clock | None = None,
        safe_age: float = _SAFE_AGE,
        sweep_seconds: float = _SWEEP_SECONDS,
        look_seconds: float = _LOOK_SECONDS,
        most_known: int = _MOST_KNOWN,
    ) -> None:
        self._store = store
        self._most_known = most_known
        self._objects = objects or BodyObjects()
        self.inline_bytes = inline_bytes
        self.max_bytes = max_bytes
        self._counts = counts
        self._clock = clock or SystemClock()
        self._safe_age = safe_age
        self._sweep_seconds = sweep_seconds
        self._look_seconds = look_seconds
        self._tasks = TaskOwner("large bodies")
        # Objects that a row referred to when this process looked: without a row, they are orphans at any age.
        self._known: set[str] = set()
        # Rooms in which this process has seen objects.
        self._rooms: set[RoomKey] = set()
        # What was handed out and not settled since, by the message's id.
        self._leased: dict[int, tuple[RoomKey, BodyReference]] = {}
        self._to_look: dict[RoomKey, None] = {}
        self._wanted = asyncio.Event()
        # Reading a body whole, to check it, takes memory: one at a time.
        self._checking = asyncio.Lock()

    @property
    def objects(self) -> BodyObjects:
        """The objects, for archives, deletions and counts."""
        return self._objects

    def start(self) -> None:
        """Begin to reclaim orphans."""
        self._tasks.spawn(self._reclaim_always(), name="reclaimer")

    async def stop(self, *, timeout: float = 10.0) -> None:
        """Stop reclaiming; what is left is an orphan for the next process."""
        await self._tasks.stop(timeout=timeout)

    def are_small(self, messages: Sequence[NewMessage]) -> bool:
        """Whether all bodies stay in their rows. Bodies are ASCII: they have as many bytes as characters."""
        most = self.inline_bytes
        return all(len(message.body) <= most for message in messages)

    def new_upload(self, tenant: TenantId) -> BodyUpload:
        """Return what will be a body or result of a message of this tenant."""
        return BodyUpload(self._objects.new_upload(), tenant, self._counts, self.max_bytes)

    @asynccontextmanager
    async def sending(
        self, room: RoomKey, messages: Sequence[NewMessage], uploads: Uploads = NO_UPLOADS
    ) -> AsyncIterator[tuple[Sequence[NewMessage], Sequence[BodyReference]]]:
        """Write the large bodies, and yield the messages as they are to be stored within the block, and the references.

        When the block is refused, the objects are deleted; when it was cancelled or failed, it may have stored the messages,
        and the reclaimer finds out. Raises TooLargeError, and InvalidRequestError for an upload that is not JSON.
        """
        written: list[BodyReference] = []
        stored, is_tried = list(messages), False
        try:
            for number, message in enumerate(messages):
                if number in uploads or len(message.body) > self.inline_bytes:
                    what = "message" if len(messages) == 1 else f"messages[{number}].message"
                    reference = await self._written(room, uploads.get(number) or message.body, what)
                    written.append(reference)
                    stored[number] = replace(message, body=reference.to_text())
            is_tried = True
            yield stored, written
        except BaseException as error:
            if not is_tried or isinstance(error, _REFUSALS):
                await uninterrupted(self._delete_quietly(room, written))
            raise
        finally:
            for upload in uploads.values():
                upload.close()
        self._know(written)

    async def keep_result(self, room: RoomKey, result: BodyUpload | str) -> BodyReference:
        """Write a large result and return what the row is to refer to. Without a row it is an orphan. Raises as `sending`."""
        return await self._written(room, result, "result")

    async def delete(self, room: RoomKey, reference: BodyReference) -> None:
        """Delete an object to which no row refers, and none will."""
        await self._delete_quietly(room, [reference])

    async def drop(self, room: RoomKey, references: Sequence[BodyReference]) -> None:
        """Delete those of these objects to which no row refers, now that this is known."""
        self._know(references)
        names = {reference.name for reference in references}
        referred = await self._store.referred(names)
        await self._delete_quietly(room, [reference for reference in references if reference.name not in referred])

    async def read(self, room: RoomKey, reference: BodyReference, offset: int, length: int) -> bytes:
        """Return up to `length` bytes of a body from `offset` on. Raises NotFoundError when its object is gone."""
        return await self._objects.read(room, reference, offset, length)

    def stream(self, room: RoomKey, reference: BodyReference) -> AsyncIterator[bytes]:
        """Yield the bytes of a body in chunks."""
        return self._objects.stream(room, reference)

    def handed_over(self, delivery: Delivery) -> None:
        """A message with a large body was leased."""
        if len(self._leased) >= self._most_known:
            self._leased.clear()  # their objects are found by their age
        reference = BodyReference.parse(delivery.body)
        self._know([reference])
        self._rooms.add(delivery.lease.queue.room)
        self._leased[delivery.lease.message_id] = (delivery.lease.queue.room, reference)

    def settled(self, lease: Lease) -> None:
        """A message was acked: its body, if it has a large one, is deleted in the background."""
        found = self._leased.pop(lease.message_id, None)
        if found is not None:
            room, reference = found
            self._tasks.spawn(self._delete_quietly(room, [reference]), name="delete")

    def look_at(self, room: RoomKey) -> None:
        """Rows of this room are gone, and some may have had large bodies: look soon."""
        if room in self._rooms:
            self._to_look[room] = None
            self._wanted.set()

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """Delete all objects of a tenant, or of one of its rooms."""
        await self._objects.delete_all(tenant, room)

    async def reclaim(self, room: RoomKey | None = None) -> int:
        """Delete the orphans, of one room or of all; return how many."""
        count = 0
        area = (None, None) if room is None else (room.tenant, room.name)
        async for page in self._objects.all(*area):
            self._rooms.update(found.room for found in page)
            old = self._clock.time() - self._safe_age
            suspects = [found for found in page if found.name in self._known or found.written_at < old]
            if suspects:
                referred = await self._store.referred([found.name for found in suspects])
                orphans = [found for found in suspects if found.name not in referred]
                for orphan in orphans:
                    await self._delete(orphan.room, orphan.name, orphan.size)
                count += len(orphans)
        if count:
            logger.info("large bodies without a message deleted", extra={"objects": count})
        return count

    async def _reclaim_always(self) -> None:
        while True:
            await self._reclaim_quietly(None)
            deadline = self._clock.monotonic() + self._sweep_seconds
            while (left := deadline - self._clock.monotonic()) > 0:
                await wait_at_most(self._wanted, left, self._clock)
                if self._to_look:
                    await self._clock.sleep(self._look_seconds)
                # What is wanted while these rooms are looked at is for the next look.
                self._wanted.clear()
                rooms, self._to_look = self._to_look, {}
                await self._reclaim_quietly(*rooms)

    async def _reclaim_quietly(self, *rooms: RoomKey | None) -> None:
        for room in rooms:
            try:
                await self.reclaim(room)
            except (OSError, RoomError) as error:
                logger.warning("large bodies not reclaimed", extra={"reason": str(error)})

    async def _written(self, room: RoomKey, body: BodyUpload | str, what: str) -> BodyReference:
        """Write a body and return the reference to it."""
        upload = self.new_upload(room.tenant) if isinstance(body, str) else body
        try:
            if isinstance(body, str):
                await upload.add(body.encode())
            async with self._checking:
                reference = await reference_to(upload.file, what)
            since = self._counts.mark()
            try:
                await self._objects.write(room, reference, upload.file)
            except asyncio.CancelledError:  # perhaps it is written
                self._counts.doubt(room.tenant, Resource.STORED_BYTES)
                raise
            upload.keep(since)
            self._rooms.add(room)
        finally:
            upload.close()
        return reference

    def _know(self, references: Sequence[BodyReference]) -> None:
        if len(self._known) >= self._most_known:
            self._known.clear()
        self._known.update(reference.name for reference in references)

    async def _delete_quietly(self, room: RoomKey, references: Sequence[BodyReference]) -> None:
        try:
            for each in references:
                await self._delete(room, each.name, each.size)
        except (OSError, RoomError) as error:  # the reclaimer finds it
            logger.warning("large body not deleted", extra={"reason": str(error)})

    async def _delete(self, room: RoomKey, name: str, size: int) -> None:
        since = self._counts.mark()
        await self._objects.delete(room, [name])
        self._known.discard(name)
        self._counts.free(room.tenant, Resource.STORED_BYTES, size, since=since)
