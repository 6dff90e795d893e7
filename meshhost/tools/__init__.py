"""Tools: things a model or a participant may call, with checked arguments."""

from meshhost.protocol.messages import FileResponse, JsonResponse, LinkResponse, Response, TextResponse
from meshhost.tools.remote import RemoteToolkit
from meshhost.tools.storage import StorageToolkit
from meshhost.tools.tool import BaseTool, Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

__all__ = [
    "BaseTool",
    "FileResponse",
    "JsonResponse",
    "LinkResponse",
    "RemoteToolkit",
    "Response",
    "StorageToolkit",
    "TextResponse",
    "Tool",
    "ToolContext",
    "Toolkit",
]
