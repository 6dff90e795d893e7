"""Moves a file of a room to another path (`storage.move`), a request of SDK 0.56.

Who moves a file takes it away at one path, and lets the readers of the other see it: it takes the rights to read and to write
the one, and to write the other. Documents and folders are not moved: a document has participants that have it open by its path,
and a folder may hold thousands of files, which are not moved in one step. Clients that know moves get one event; the others
learn that a file is gone and that another one is there.
"""

from pydantic import Field

from meshhost.errors import InvalidRequestError
from meshhost.identity.grants import ApiScope
from meshhost.protocol.messages import EmptyResponse
from meshhost.quotas.counts import TenantCounts
from meshhost.quotas.quota import Resource
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Capability, Event
from meshhost.server.core.requests import Answer, Body, Operation, Request
from meshhost.stores.disk.failures import missing
from meshhost.stores.files import RoomFiles, clean_path
from meshhost.tasks import uninterrupted

__all__ = ["Moves"]

# A disk that takes longer has failed. An object store copies the file.
_MOVE_SECONDS = 300.0


class _Move(Body):
    source_path: str = Field(max_length=4096)
    destination_path: str = Field(max_length=4096)
    overwrite: bool = False


class Moves:
    """Moves files."""

    def __init__(self, files: RoomFiles, counts: TenantCounts) -> None:
        self._files = files
        self._counts = counts

    def operation(self) -> Operation[_Move]:
        """`storage.move`."""
        return Operation(_Move, self._move, _may_move, lambda body: f"{body.source_path} to {body.destination_path}")

    async def _move(self, request: Request, body: _Move) -> Answer:
        room, source = request.room.key, _path(body.source_path, "source_path")
        destination = _path(body.destination_path, "destination_path")
        if source == destination:
            raise InvalidRequestError("destination_path", "expected another path than source_path")
        entry = await self._files.stat(room, source)
        if entry is None:
            raise missing(source)
        if entry.is_folder or entry.size is None:  # only a document has no size
            what = "a folder: move its files" if entry.is_folder else "a document: documents stay where they are"
            raise InvalidRequestError("source_path", f"{source!r} is {what}")
        replaced = await self._files.stat(room, destination)
        if replaced is not None and (replaced.is_folder or replaced.size is None):
            what = "a folder" if replaced.is_folder else "a document"
            raise InvalidRequestError("destination_path", f"{destination!r} is {what}: take another path")
        since = self._counts.mark()
        await uninterrupted(
            self._files.move(room, source, destination, overwrite=body.overwrite), timeout=_MOVE_SECONDS
        )
        if replaced is not None:
            self._counts.free(room.tenant, Resource.FILES, since=since)
            self._counts.free(room.tenant, Resource.STORED_BYTES, replaced.size or 0, since=since)
        self._tell(request, source, destination)
        return EmptyResponse()

    def _tell(self, request: Request, source: str, destination: str) -> None:
        event = Event(
            "storage.file.moved",
            {"source_path": source, "destination_path": destination, "participant_id": request.participant.id},
        )
        request.room.tell([each for each in request.room.connected() if _knows(each, source, destination)], event)
        for name, path in (("storage.file.deleted", source), ("storage.file.updated", destination)):
            readers = [
                each
                for each in request.room.connected()
                if _reads(each, path) and not _knows(each, source, destination)
            ]
            request.room.tell(readers, Event(name, {"path": path, "participant_id": request.participant.id}))


def _path(path: str, member: str) -> str:
    try:
        return clean_path(path)
    except InvalidRequestError as error:
        raise InvalidRequestError(member, str(error)) from None


def _may_move(scope: ApiScope, body: _Move) -> bool:
    storage, source = scope.storage, _path(body.source_path, "source_path")
    destination = _path(body.destination_path, "destination_path")
    return (
        storage is not None
        and storage.can_read(source)
        and storage.can_write(source)
        and storage.can_write(destination)
    )


def _reads(member: Participant, path: str) -> bool:
    storage = member.scope.storage
    return storage is not None and storage.can_read(path)


def _knows(member: Participant, *paths: str) -> bool:
    """Whether a participant may read both paths, and its client knows moves."""
    peer = member.peer
    return (
        peer is not None and Capability.FILE_MOVES in peer.capabilities and all(_reads(member, each) for each in paths)
    )
