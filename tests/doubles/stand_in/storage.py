"""Files of the stand-in, kept in memory. A file appears when its handle is closed."""

import uuid
from collections.abc import Mapping
from typing import Any

from doubles.stand_in.member import Member
from meshhost.errors import RoomError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import EmptyResponse, FileResponse, Header, JsonResponse, Response

__all__ = ["Storage", "path_of"]


class Storage:
    """All files of a room, by path."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self.files: dict[str, bytes] = {}
        self._members = members
        self._handles: dict[str, tuple[Member, str, bytearray]] = {}

    def handlers(self) -> dict[str, Any]:
        """What handles each request."""
        return {
            "storage.exists": self._exists,
            "storage.stat": self._stat,
            "storage.list": self._list_files,
            "storage.open": self._open_file,
            "storage.write": self._write,
            "storage.close": self._close_file,
            "storage.download": self._download,
            "storage.delete": self._delete,
        }

    def left(self, member: Member) -> None:
        """Drop the files that it has not closed."""
        for handle in [handle for handle, (writer, _, _) in self._handles.items() if writer is member]:
            del self._handles[handle]

    def _is_folder(self, path: str) -> bool:
        return path == "" or any(file.startswith(f"{path}/") for file in self.files)

    async def _exists(self, _: Member, message: MessageReceived) -> Response:
        path = path_of(message)
        return JsonResponse(json={"exists": path in self.files or self._is_folder(path)})

    async def _stat(self, _: Member, message: MessageReceived) -> Response:
        path = path_of(message)
        if path not in self.files and not self._is_folder(path):
            return JsonResponse(json={"exists": False})
        name = path.rpartition("/")[2]
        return JsonResponse(json={"exists": True, "name": name, "is_folder": path not in self.files})

    async def _list_files(self, _: Member, message: MessageReceived) -> Response:
        path = path_of(message)
        below = [file.removeprefix(f"{path}/" if path else "") for file in self.files if path in _folders(file)]
        names = {name.partition("/")[0]: "/" in name for name in below}
        files = [{"name": name, "is_folder": is_folder} for name, is_folder in names.items()]
        return JsonResponse(json={"files": files})

    async def _open_file(self, member: Member, message: MessageReceived) -> Response:
        path = path_of(message)
        if path in self.files and not message.header.get("overwrite", False):
            raise RoomError("the file exists")
        handle = str(uuid.uuid4())
        self._handles[handle] = (member, path, bytearray())
        return JsonResponse(json={"handle": handle})

    async def _write(self, _: Member, message: MessageReceived) -> Response:
        self._handles[message.header["handle"]][2].extend(message.payload)
        return EmptyResponse()

    async def _close_file(self, member: Member, message: MessageReceived) -> Response:
        _, path, data = self._handles.pop(message.header["handle"])
        self.files[path] = bytes(data)
        await self._tell_all("storage.file.updated", {"path": path, "participant_id": member.id})
        return EmptyResponse()

    async def _download(self, _: Member, message: MessageReceived) -> Response:
        path = self._file(message)
        return FileResponse(data=self.files[path], name=path.rpartition("/")[2], mime_type="application/octet-stream")

    async def _delete(self, member: Member, message: MessageReceived) -> Response:
        path = self._file(message)
        del self.files[path]
        await self._tell_all("storage.file.deleted", {"path": path, "participant_id": member.id})
        return EmptyResponse()

    def _file(self, message: MessageReceived) -> str:
        path = path_of(message)
        if path not in self.files:
            raise RoomError("file not found")
        return path

    async def _tell_all(self, type: str, header: Header) -> None:
        for member in list(self._members.values()):
            await member.tell(type, header)


def path_of(message: MessageReceived) -> str:
    """The path that a request is about."""
    return str(message.header["path"]).strip("/")


def _folders(file: str) -> list[str]:
    parts = file.split("/")[:-1]
    return ["", *("/".join(parts[: count + 1]) for count in range(len(parts)))]
