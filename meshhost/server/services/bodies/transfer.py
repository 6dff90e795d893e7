"""Large bodies and results in pieces, for clients that know the extension `large_bodies` (room-protocol §9).

A header of the wire is small, because reading it cannot be interrupted. So a large body travels as payload: `queues.upload`
answers with a handle, `queues.upload_write` adds the payload of each message, and the request that sends the message (or acks
with the result) names the handle. Payloads are budgeted as those of every message, and written to the disk as they come. A
receiver gets what is known of a large body with its lease, and fetches the bytes with `queues.body`, a piece at a time.

An upload belongs to its participant's connection, and ends with it: a client whose connection was lost uploads again. One that
its client gave up is dropped when the participant begins another one some minutes later.
"""

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from meshhost.errors import LimitExceededError, NotFoundError
from meshhost.identity.grants import ApiScope
from meshhost.protocol.messages import EmptyResponse, FileResponse, JsonResponse
from meshhost.queues.bodies import BodyUpload
from meshhost.queues.service import QueueService
from meshhost.quotas.counts import UNCOUNTED, TenantCounts
from meshhost.quotas.quota import Resource
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Peer
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.server.core.slots import Slot
from meshhost.server.services import queue_bodies as bodies
from meshhost.server.services.queue_access import check_reads, key_of, may_receive, may_use, name_of
from meshhost.stores.bodies.reference import BodyReference, is_reference

__all__ = ["BodyTransfer"]

MAX_UPLOADS = 64
# Seconds without a write after which an upload may be dropped.
IDLE_SECONDS = 300.0
# What one request may fetch: it is in memory until it is sent.
MAX_PIECE = 4 * 1024 * 1024


class _Upload(bodies.Named):
    size: int = Field(0, ge=0)


class _Piece(bodies.OfMessage):
    part: Literal["body", "result"] = "body"
    offset: int = Field(0, ge=0)
    length: int = Field(MAX_PIECE, ge=1, le=MAX_PIECE)


class _Handle(Body):
    handle: str


@dataclass(slots=True, eq=False)
class _Uploading:
    participant: Participant
    body: BodyUpload
    written_at: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class BodyTransfer(RoomService):
    """The requests for large bodies; `QueuesService` takes the uploads."""

    def __init__(self, queues: QueueService, *, counts: TenantCounts = UNCOUNTED) -> None:
        self._queues = queues
        self._counts = counts
        self._uploads: Slot[dict[str, _Uploading]] = Slot(dict)

    def operations(self) -> Operations:
        """See RoomService."""
        return {
            "queues.upload": Operation(_Upload, self._open, may_use, name_of),
            "queues.upload_write": Operation(_Handle, self._write, _has_queues),
            "queues.body": Operation(_Piece, self._fetch, _may_read, name_of),
        }

    def disconnected(self, room: Room, participant: Participant, peer: Peer) -> None:
        """See RoomService: the participant's uploads are dropped."""
        uploads = self._uploads.get(room) or {}
        for handle in [handle for handle, each in uploads.items() if each.participant is participant]:
            self._closed(room, handle)

    def take(self, request: Request, handles: Mapping[int, str]) -> Mapping[int, BodyUpload]:
        """Remove and return the uploads of these handles; the caller closes them.

        Raises NotFoundError for an unknown handle, and removes none; for one that is named twice those before it are gone.
        """
        for handle in handles.values():
            self._upload(request, handle)
        room = request.room
        taken: dict[int, BodyUpload] = {}
        for number, handle in handles.items():
            upload = self._uploads.of(room).pop(handle, None)
            if upload is None:  # named twice
                for each in taken.values():
                    each.close()
                raise _no_handle()
            self._counts.give_back(room.key.tenant, Resource.UPLOADS)
            taken[number] = upload.body
        return taken

    async def _open(self, request: Request, body: _Upload) -> Answer:
        uploads, tenant = self._uploads.of(request.room), request.room.key.tenant
        upload = self._queues.bodies.new_upload(tenant)
        upload.check_size(body.size)  # before it is sent
        now = asyncio.get_running_loop().time()
        for handle, each in list(uploads.items()):
            if each.participant is request.participant and now - each.written_at > IDLE_SECONDS:
                self._closed(request.room, handle)
        if sum(each.participant is request.participant for each in uploads.values()) >= MAX_UPLOADS:
            raise LimitExceededError(f"over {MAX_UPLOADS} bodies are being uploaded: send some")
        await self._counts.take(tenant, Resource.UPLOADS)
        handle = str(uuid.uuid4())
        uploads[handle] = _Uploading(request.participant, upload, now)
        return JsonResponse(json={"handle": handle})

    async def _write(self, request: Request, body: _Handle) -> Answer:
        upload = self._upload(request, body.handle)
        async with upload.lock:  # one write after the other, in the order of the requests
            upload.written_at = asyncio.get_running_loop().time()
            try:
                await upload.body.add(request.message.payload)
            except BaseException:
                self._closed(request.room, body.handle)
                raise
        return EmptyResponse()

    def _upload(self, request: Request, handle: str) -> _Uploading:
        upload = self._uploads.of(request.room).get(handle)
        if upload is None or upload.participant is not request.participant:
            raise _no_handle()
        return upload

    def _closed(self, room: Room, handle: str) -> None:
        upload = self._uploads.of(room).pop(handle, None)
        if upload is not None:
            upload.body.close()
            self._counts.give_back(room.key.tenant, Resource.UPLOADS)

    async def _fetch(self, request: Request, body: _Piece) -> Answer:
        queue, peer = key_of(request, body), request.peer
        await check_reads(request, body, self._queues)
        record = await self._queues.get(queue, body.id)
        text = None if record is None else record.result if body.part == "result" else record.body
        if text is None:
            raise NotFoundError(f"message {body.id} of queue {queue.name!r} has no {body.part} (any more)")
        if not is_reference(text):
            data = text.encode(errors="surrogatepass")
            piece = data[body.offset : body.offset + body.length]
            return _piece(piece), {"size": len(data)}
        reference = BodyReference.parse(text)
        size = max(min(body.length, reference.size - body.offset), 0)
        await peer.reserve(size)  # before it is read: a client may ask for many pieces and take none of them
        try:
            piece = await self._queues.bodies.read(queue.room, reference, body.offset, size)
        except BaseException:
            peer.give_back(size)
            raise
        extra = {"size": reference.size, "sha256": reference.sha256}
        await request.reply(_piece(piece), extra, reserved=size)
        return None


def _piece(data: bytes) -> FileResponse:
    return FileResponse(data=data, name="body.json", mime_type="application/json")


def _no_handle() -> NotFoundError:
    return NotFoundError("no such upload: it was sent, failed, or its connection was lost")


def _has_queues(scope: ApiScope, _: Body) -> bool:
    return scope.queues is not None


def _may_read(scope: ApiScope, body: _Piece) -> bool:
    """Contents belong to the receivers, as in `queues.get`."""
    return may_receive(scope, body) if body.part == "body" else may_use(scope, body)
