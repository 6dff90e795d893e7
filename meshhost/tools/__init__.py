"""Tools: functions with a JSON schema that a model or a participant may call.

`tool.py` and `toolkit.py` say what a tool and a toolkit are, `function.py` makes them of functions and methods (`@tool`),
`schema.py` checks arguments, `remote.py` offers a toolkit in a room, `builders.py` makes those that a caller asks for.
`storage.py` and `document_tools.py` are ready toolkits, `fetch.py` downloads from the public internet for one of them.
For MeshAgent programs: `kinds.py`, `pydantic.py`, `hosting.py`, `blob.py`.

May import `meshhost.room` and what lies below it; knows no agents and no models.
"""

from typing import TYPE_CHECKING

from meshhost.elsewhere import names_elsewhere
from meshhost.protocol.messages import FileResponse, JsonResponse, LinkResponse, Response, TextResponse
from meshhost.tools.blob import Blob, BlobStorage, get_bytes_from_url
from meshhost.tools.function import CallableTool, tool, toolkit_of, tools_of
from meshhost.tools.hosting import RemoteTool, connect_remote_toolkit, start_hosted_toolkit
from meshhost.tools.kinds import FunctionTool, LocalRoomTool, MultiTool, MultiToolkit
from meshhost.tools.remote import RemoteToolkit
from meshhost.tools.storage import StorageToolkit
from meshhost.tools.tool import BaseTool, Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    # Found below when they are asked for: a program without builders does not load pydantic.
    from meshhost.tools.builders import ToolkitBuilder, ToolkitConfig, make_toolkits

__all__ = [
    "BaseTool",
    "Blob",
    "BlobStorage",
    "CallableTool",
    "FileResponse",
    "FunctionTool",
    "JsonResponse",
    "LinkResponse",
    "LocalRoomTool",
    "MultiTool",
    "MultiToolkit",
    "RemoteTool",
    "RemoteToolkit",
    "Response",
    "StorageToolkit",
    "TextResponse",
    "Tool",
    "ToolContext",
    "Toolkit",
    "ToolkitBuilder",
    "ToolkitConfig",
    "connect_remote_toolkit",
    "get_bytes_from_url",
    "make_toolkits",
    "start_hosted_toolkit",
    "tool",
    "toolkit_of",
    "tools_of",
]


__getattr__ = names_elsewhere(
    __name__,
    {
        "RemoteToolkitServer": "meshhost.hosting.single",
        "ToolkitBuilder": "meshhost.tools.builders",
        "ToolkitConfig": "meshhost.tools.builders",
        "make_toolkits": "meshhost.tools.builders",
    },
    {
        "ContentTool": "use Tool, whose `execute` returns a Response",
        "DatasetToolkit": "tools of your own over room.database",
        "ContainerToolkit": "meshhost runs no containers: give the agent a tool that calls your own service",
        "MemoriesToolkit": "tools of your own over room.database",
    },
)
