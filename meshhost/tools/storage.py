"""`StorageToolkit`: tools with which a model reads and writes the files of a room.

Names and arguments are those of MeshAgent's `meshagent.tools.storage`. The room server checks the token's storage grants at
each call; these tools add limits that protect the model (256 KiB of text) and the room (64 MiB per download). With `mounts` a
model sees folders of rooms, some of them read-only, under paths of its own, and nothing else.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshhost.elsewhere import names_elsewhere
from meshhost.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
)
from meshhost.protocol.messages import EmptyResponse, JsonResponse, LinkResponse, TextResponse
from meshhost.tools.fetch import fetch
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = [
    "DeleteFileTool",
    "GetFileDownloadUrl",
    "ListFilesTool",
    "ReadFileTool",
    "SaveFileFromUrlTool",
    "StorageToolRoomMount",
    "StorageToolkit",
    "WriteFileTool",
]

MAX_READ_BYTES = 256 * 1024
MAX_FETCH_BYTES = 64 * 1024 * 1024
FETCH_TIMEOUT = 60.0


def _schema(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


# The demo's small local model chooses tools and fills flags by the words of these descriptions: see gateway/local/stages.py.
_PATH = _text("where the file is in the room, for example reports/july.md")
_OVERWRITE = {"type": "boolean", "description": "true to replace a file that is there already"}


class ReadFileTool(Tool):
    """Returns the text of a UTF-8 file of at most 256 KiB."""

    def __init__(self) -> None:
        super().__init__(
            name="read_file",
            title="Read a file",
            description="Returns the content of a text file in the room",
            input_schema=_schema(path=_PATH),
        )

    async def execute(self, *, context: ToolContext, path: str) -> TextResponse:
        """Raises LimitExceededError for a larger file and InvalidRequestError for one that is not UTF-8."""
        file = await context.room.storage.download(path=path)
        if len(file.data) > MAX_READ_BYTES:
            raise LimitExceededError(
                f"the file has {len(file.data)} bytes; at most {MAX_READ_BYTES} can be read. "
                "Use get_file_download_url to pass on the whole file"
            )
        try:
            return TextResponse(text=file.data.decode())
        except UnicodeDecodeError:
            raise InvalidRequestError("path", f"is not a UTF-8 text file but {file.mime_type}") from None


class WriteFileTool(Tool):
    """Writes a text as a file."""

    def __init__(self) -> None:
        super().__init__(
            name="write_file",
            title="Write a file",
            description="Saves a text as a file in the room",
            input_schema=_schema(path=_PATH, text=_text("the whole content of the file"), overwrite=_OVERWRITE),
        )

    async def execute(self, *, context: ToolContext, path: str, text: str, overwrite: bool) -> str:
        """Return a sentence that names the path. Raises AlreadyExistsError when the file exists and `overwrite` is false."""
        await _save(context, path, text.encode(), overwrite)
        return f"the file was saved at {path}"


class GetFileDownloadUrl(Tool):
    """Returns a URL that the file can be downloaded from."""

    def __init__(self) -> None:
        super().__init__(
            name="get_file_download_url",
            title="Get a download link",
            description="Returns an address from which a file of the room can be downloaded",
            input_schema=_schema(path=_PATH),
        )

    async def execute(self, *, context: ToolContext, path: str) -> LinkResponse:
        """Return a link with the file's name. It expires as the room server decides."""
        return LinkResponse(name=path.rsplit("/", 1)[-1], url=await context.room.storage.download_url(path=path))


class ListFilesTool(Tool):
    """Lists a folder."""

    def __init__(self) -> None:
        super().__init__(
            name="list_files_in_room",
            title="List files",
            description="Lists the files and folders in one folder of the room",
            input_schema=_schema(path=_text("the folder; an empty text is the top folder")),
        )

    async def execute(self, *, context: ToolContext, path: str) -> JsonResponse:
        """Return `{"files": [{"name", "is_folder"}]}`."""
        entries = await context.room.storage.list(path=path)
        return JsonResponse(json={"files": [{"name": entry.name, "is_folder": entry.is_folder} for entry in entries]})


class SaveFileFromUrlTool(Tool):
    """Fetches a file from the public internet into the room: at most 64 MiB and 60 s."""

    def __init__(self) -> None:
        super().__init__(
            name="save_file_from_url",
            title="Save a file from the web",
            description="Downloads a file from a public web address and saves it in the room",
            input_schema=_schema(url=_text("the http or https address"), path=_PATH, overwrite=_OVERWRITE),
        )

    async def execute(self, *, context: ToolContext, url: str, path: str, overwrite: bool) -> str:
        """Raises AlreadyExistsError before anything is downloaded, and what `fetch` raises."""
        await _require_free(context, path, overwrite)
        file = await fetch(url, limit=MAX_FETCH_BYTES, timeout=FETCH_TIMEOUT)
        await _save(context, path, file.data, overwrite)
        return f"the file was saved at {path}"


class DeleteFileTool(Tool):
    """Deletes a file."""

    def __init__(self) -> None:
        super().__init__(
            name="delete_file",
            title="Delete a file",
            description="Deletes a file from the room for good",
            input_schema=_schema(path=_PATH),
        )

    async def execute(self, *, context: ToolContext, path: str) -> EmptyResponse:
        """Return an empty response."""
        await context.room.storage.delete(path=path)
        return EmptyResponse()


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageToolRoomMount:
    """The folder `subpath` of a room (None: all of it) under the path `path` that a model uses."""

    room: "RoomClient"
    path: str = "/"
    subpath: str | None = None
    read_only: bool = False

    def inside(self, path: str) -> str | None:
        """The path in the room that a model's path stands for; None when it is not under this mount."""
        own, wanted = _normal(self.path), _normal(path)
        if own and wanted != own and not wanted.startswith(f"{own}/"):
            return None
        rest = wanted.removeprefix(own).lstrip("/")
        return "/".join(part for part in (_normal(self.subpath or ""), rest) if part)


class StorageToolkit(Toolkit):
    """All tools of this module; with `read_only` only those that change nothing.

    With `mounts` the tools reach these folders, and nothing else; without, the room of the call.
    """

    def __init__(self, read_only: bool = False, *, mounts: Sequence[StorageToolRoomMount] | None = None) -> None:
        tools: list[Tool] = [ListFilesTool(), ReadFileTool(), GetFileDownloadUrl()]
        writing: list[Tool] = [] if read_only else [WriteFileTool(), SaveFileFromUrlTool(), DeleteFileTool()]
        if mounts is not None:
            tools = [_MountedTool(tool, mounts, writes=False) for tool in tools]
            writing = [_MountedTool(tool, mounts, writes=True) for tool in writing]
        super().__init__(
            name="storage",
            title="Storage",
            description="The files of the room",
            tools=[*tools, *writing],
            rules=[],
        )


class _MountedTool(Tool):
    """A tool of this module whose paths are those of mounts; the longest path that fits counts."""

    def __init__(self, inner: Tool, mounts: Sequence[StorageToolRoomMount], *, writes: bool) -> None:
        super().__init__(
            name=inner.name, title=inner.title, description=inner.description, input_schema=inner.input_schema
        )
        self._inner = inner
        self._mounts = sorted(mounts, key=lambda mount: len(_normal(mount.path)), reverse=True)
        self._writes = writes

    async def execute(self, *, context: ToolContext, path: str, **arguments: Any) -> Any:
        """Raises NotFoundError for a path outside of all mounts, AccessDeniedError for a change of a read-only one."""
        for mount in self._mounts:
            if (inside := mount.inside(path)) is None:
                continue
            if self._writes and mount.read_only:
                raise AccessDeniedError(self.name, f"{path} (mounted read-only)")
            there = ToolContext(room=mount.room, caller=context.caller, on_behalf_of=context.on_behalf_of)
            return await self._inner.execute(context=there, path=inside, **arguments)
        raise NotFoundError(f"{path!r} is under no mount; there are: {', '.join(each.path for each in self._mounts)}")


def _normal(path: str) -> str:
    # From the root, so that no `..` leaves it.
    return posixpath.normpath(f"/{path}").strip("/")


async def _require_free(context: ToolContext, path: str, overwrite: bool) -> None:
    if not overwrite and await context.room.storage.exists(path=path):
        raise AlreadyExistsError(f"{path} exists already; set overwrite to replace it")


async def _save(context: ToolContext, path: str, data: bytes, overwrite: bool) -> None:
    await _require_free(context, path, overwrite)
    await context.room.storage.upload(path=path, data=data, overwrite=overwrite)


__getattr__ = names_elsewhere(
    __name__,
    # These are pydantic models, which a program without builders does not load.
    dict.fromkeys(("StorageToolkitBuilder", "StorageToolkitConfig"), "meshhost.tools.builders"),
    {"StorageToolLocalMount": "use StorageToolRoomMount: models get files of rooms, not of the machine they run on"},
)
