"""Tools: functions with a JSON schema that a model or a participant may call.

`tool.py` and `toolkit.py` say what a tool and a toolkit are, `function.py` makes them of functions and methods (`@tool`),
`schema.py` checks arguments, `remote.py` offers a toolkit in a room. `storage.py` and `document_tools.py` are ready toolkits,
`fetch.py` downloads from the public internet for one of them.

May import `meshhost.room` and what lies below it; knows no agents and no models.
"""

from meshhost.protocol.messages import FileResponse, JsonResponse, LinkResponse, Response, TextResponse
from meshhost.tools.function import CallableTool, tool, toolkit_of, tools_of
from meshhost.tools.remote import RemoteToolkit
from meshhost.tools.storage import StorageToolkit
from meshhost.tools.tool import BaseTool, Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

__all__ = [
    "BaseTool",
    "CallableTool",
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
    "tool",
    "toolkit_of",
    "tools_of",
]
