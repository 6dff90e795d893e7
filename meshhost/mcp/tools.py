"""Tools of an MCP server as tools of ours: their names, their schemas, and what their results become.

`MCPTool` calls its tool through a session: one of the library's (`mcp.ClientSession`, `mcp.Client`), or a `Connection` of ours,
which reconnects. A result of texts is a text, one picture or file is a file, an object is JSON; what mixes them is the whole
result as JSON. A result with `isError`, and everything that goes wrong on the way, is raised as a RoomError, whose text the
model reads. Results are bounded: a server is not ours, and what it returns goes into a conversation.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from typing import Any

import anyio
from mcp import MCPError
from mcp_types import REQUEST_TIMEOUT

from meshhost.errors import LimitExceededError, RequestTimeoutError, RoomError, ToolError
from meshhost.protocol.messages import FileResponse, JsonResponse, LinkResponse, Response, TextResponse
from meshhost.protocol.tool_names import acceptable_name, changed_name
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

__all__ = ["MAX_RESULT_BYTES", "TIMEOUT", "MCPTool", "MCPToolkit", "tools_of"]

TIMEOUT = 60.0
MAX_RESULT_BYTES = 1024 * 1024


class MCPTool(Tool):
    """One tool of an MCP server. `session` is open and stays so while the tool is used; `mcp_tool` is as the server listed it.

    A call may take `timeout` seconds, and its result have `max_result_bytes`.
    """

    def __init__(
        self,
        *,
        session: Any,
        mcp_tool: Any,
        timeout: float = TIMEOUT,
        max_result_bytes: int = MAX_RESULT_BYTES,
        name: str | None = None,
    ) -> None:
        schema = _member(mcp_tool, "input_schema", "inputSchema")
        super().__init__(
            name=name or acceptable_name(mcp_tool.name),
            title=mcp_tool.title or mcp_tool.name,
            description=mcp_tool.description,
            input_schema=schema if isinstance(schema, dict) and schema else {"type": "object"},
        )
        self.mcp_tool = mcp_tool
        self._session = session
        self._timeout = timeout
        self._max_result_bytes = max_result_bytes

    async def execute(self, *, context: ToolContext, **arguments: Any) -> Response:
        """Raises ToolError with the server's text, RequestTimeoutError, LimitExceededError for a result that is too large."""
        name = self.mcp_tool.name
        try:
            result = await self._session.call_tool(
                name, arguments, read_timeout_seconds=self._timeout, progress_callback=context.report_progress
            )
        except MCPError as error:
            if error.code == REQUEST_TIMEOUT:
                text = f"the MCP server did not answer {name!r} within {self._timeout:g} s"
                raise RequestTimeoutError(text) from None
            raise ToolError(f"the MCP server refused {name!r}: {error.message}") from None
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            raise ToolError(
                f"the connection to the MCP server ended, so {name!r} may or may not have been done"
            ) from None
        return response_of(result, name, self._max_result_bytes)


class MCPToolkit(Toolkit):
    """The tools of an open session, as MeshAgent's class of this name: `tools` are as the session lists them."""

    def __init__(self, *, name: str, session: Any, tools: Sequence[Any]) -> None:
        super().__init__(name=name, tools=tools_of(session, tools))


def tools_of(session: Any, listed: Iterable[Any], **options: Any) -> list[MCPTool]:
    """The tools of a session; `options` are those of MCPTool. No two have the same name."""
    tools: dict[str, MCPTool] = {}
    for each in listed:
        tool = MCPTool(session=session, mcp_tool=each, **options)
        if tool.name in tools:  # a server may list what it likes
            tool.name = changed_name(each.name, str(len(tools)))
        tools[tool.name] = tool
    return list(tools.values())


def response_of(result: Any, tool: str, most_bytes: int) -> Response:
    """The result of a call as a response. Raises ToolError for one with `isError`, LimitExceededError."""
    content = list(result.content or ())
    structured = _member(result, "structured_content", "structuredContent")
    size = sum(_size(block) for block in content) + (0 if structured is None else len(json.dumps(structured)))
    if size > most_bytes:
        raise LimitExceededError(
            f"the result of {tool!r} has {size} bytes, and at most {most_bytes} are taken: ask for less"
        )
    if _member(result, "is_error", "isError"):
        raise ToolError("\n".join(_texts(content)) or f"the tool {tool!r} failed and did not say why")
    if structured is not None:
        return JsonResponse(json=structured)
    if all(block.type == "text" for block in content):
        return TextResponse(text="\n".join(_texts(content)))
    single = _single(content[0]) if len(content) == 1 else None
    if single is not None:
        return single
    return JsonResponse(json=[block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in content])


def _single(block: Any) -> Response | None:
    match block.type:
        case "image" | "audio":
            mime_type = str(_member(block, "mime_type", "mimeType"))
            return FileResponse(data=_decoded(block.data), name=block.type, mime_type=mime_type)
        case "resource_link":
            return LinkResponse(name=block.name, url=str(block.uri))
        case "resource":
            resource = block.resource
            if hasattr(resource, "text"):
                return TextResponse(text=resource.text)
            mime_type = _member(resource, "mime_type", "mimeType") or "application/octet-stream"
            name = str(resource.uri).rstrip("/").rpartition("/")[2] or "file"
            return FileResponse(data=_decoded(resource.blob), name=name, mime_type=mime_type)
        case _:
            return None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise RoomError("the MCP server sent a file that is not base64") from None


def _texts(content: Iterable[Any]) -> list[str]:
    return [block.text for block in content if block.type == "text"]


def _size(block: Any) -> int:
    resource = getattr(block, "resource", block)
    value = next((found for name in ("text", "data", "blob") if (found := getattr(resource, name, None))), "")
    return len(value)


def _member(value: Any, name: str, alias: str) -> Any:
    """A member by its name in mcp 2, or in mcp 1."""
    return getattr(value, name, None) if hasattr(value, name) else getattr(value, alias, None)
