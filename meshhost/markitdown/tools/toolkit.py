"""`MarkItDownToolkit`: tools that turn a PDF or an Office document into Markdown, which a model can read.

Names and arguments are those of `meshagent.markitdown.tools`. The document comes from the room's storage, with the rights of
the agent that runs the tool, from a public web address (never from our own network: `tools/fetch.py`), or from the person that
the tool is called for, whose browser is asked for a file.
"""

import mimetypes
import posixpath
from typing import Any

from meshhost.errors import InvalidRequestError, ToolError
from meshhost.markitdown.converting import CONVERT_SECONDS, EXTENSIONS, MAX_DOCUMENT_BYTES, convert, turn
from meshhost.protocol.messages import EmptyResponse, FileResponse, JsonResponse, Response, TextResponse
from meshhost.tools.fetch import fetch
from meshhost.tools.remote import RemoteToolkit
from meshhost.tools.tool import Tool, ToolContext

__all__ = ["AskUserMarkItDownTool", "FileMarkItDownTool", "MarkItDownToolkit", "UrlMarkItDownTool"]

FETCH_SECONDS = 60.0


def _schema(**properties: str) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": {name: {"type": "string", "description": text} for name, text in properties.items()},
    }


class FileMarkItDownTool(Tool):
    """Reads a document of the room's storage."""

    def __init__(self) -> None:
        super().__init__(
            name="markitdown_from_file",
            title="Read a document",
            description="Returns the text of a PDF or Office document in the room, as Markdown",
            input_schema=_schema(path="where the document is in the room, for example reports/july.pdf"),
        )

    async def execute(self, *, context: ToolContext, path: str) -> Response:
        """Return its Markdown; nothing for a file that is no document, as MeshAgent does. Raises what `convert` raises."""
        extension = posixpath.splitext(path)[1].lower()
        if extension not in EXTENSIONS:
            return EmptyResponse()
        async with turn(_owner(context)):
            file = await context.room.storage.download(path=path)
            return TextResponse(text=await convert(file.data, extension))


class UrlMarkItDownTool(Tool):
    """Reads a document on the public internet: at most 64 MiB and 60 s."""

    def __init__(self) -> None:
        super().__init__(
            name="markitdown_from_url",
            title="Read a document on the web",
            description="Returns the text of a PDF or Office document at a public web address, as Markdown",
            input_schema=_schema(url="the http or https address"),
        )

    async def execute(self, *, context: ToolContext, url: str) -> Response:
        """Return its Markdown. Raises InvalidRequestError for what is no document, and what `fetch` and `convert` raise."""
        async with turn(_owner(context), timeout=FETCH_SECONDS + CONVERT_SECONDS):
            file = await fetch(url, limit=MAX_DOCUMENT_BYTES, timeout=FETCH_SECONDS)
            document = FileResponse(data=file.data, name=url.partition("?")[0], mime_type=file.mime_type)
            return TextResponse(text=await _markdown_of(document, "url"))


class AskUserMarkItDownTool(Tool):
    """Asks the person that it is called for to choose a document, and reads it."""

    def __init__(self) -> None:
        super().__init__(
            name="markitdown_from_user",
            title="Ask for a document",
            description="Asks the user for a PDF or Office document and returns its text, as Markdown",
            input_schema=_schema(title="the title of the question", description="what the user is asked to choose"),
        )

    async def execute(self, *, context: ToolContext, title: str, description: str) -> Response:
        """Return `{"filename", "mime_type", "content"}`. Raises RoomError when the user cannot be asked or gave no document."""
        person = context.on_behalf_of or context.caller
        answer = await context.room.agents.invoke_tool(
            toolkit="ui",
            tool="ask_user_for_file",
            participant_id=person.id,
            arguments={"title": title, "description": description},
        )
        if not isinstance(answer, FileResponse):
            raise ToolError("the user chose no file")
        async with turn(_owner(context)):
            content = await _markdown_of(answer, "file")
        return JsonResponse(json={"filename": answer.name, "mime_type": answer.mime_type, "content": content})


class MarkItDownToolkit(RemoteToolkit):
    """The three tools, for an agent's own use or offered in a room. `room` is taken from newer programs, and not needed."""

    def __init__(self, name: str = "meshhost.markitdown", *, room: Any = None) -> None:
        super().__init__(
            name=name,
            title="markitdown",
            description="Turns documents into Markdown",
            tools=[FileMarkItDownTool(), UrlMarkItDownTool(), AskUserMarkItDownTool()],
        )


def _owner(context: ToolContext) -> str:
    """The tenant of the room, as far as this program knows it."""
    return "" if context.room.call is None else context.room.call.tenant


async def _markdown_of(file: FileResponse, field: str) -> str:
    extension = posixpath.splitext(file.name)[1].lower()
    if extension not in EXTENSIONS:
        extension = mimetypes.guess_extension(file.mime_type) or ""
    if extension not in EXTENSIONS:
        kinds = ", ".join(sorted(EXTENSIONS))
        raise InvalidRequestError(field, f"is no document of a kind that can be read ({kinds}) but {file.mime_type}")
    return await convert(file.data, extension)
