"""Servers of MCP (Model Context Protocol) as toolkits of our agents. Needs the extra `mcp`: pip install 'meshhost[mcp]'.

`MCPServerToolkit` (`server_toolkit.py`) starts or dials a server, keeps the connection (`connection.py`) and offers its tools
(`tools.py`); `MCPAgent` (`agent.py`) offers them in a room. `servers.py` says where a server is, `tokens.py` keeps OAuth tokens
for each tenant apart, `oauth.py` logs in. `MCPToolkit` and `MCPTool` make a toolkit of a session that a program opened itself,
as MeshAgent's do. The library `mcp` is used here and nowhere else.

May import `meshhost.agents` and what lies below it.
"""

try:
    import mcp as _library  # noqa: F401 - to say at once what is missing
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("meshhost.mcp needs the extra mcp: pip install 'meshhost[mcp]'", name="mcp") from error

from meshhost.mcp.agent import MCPAgent
from meshhost.mcp.server_toolkit import MCPServerToolkit
from meshhost.mcp.servers import HttpServer, StdioServer
from meshhost.mcp.tokens import FileTokens
from meshhost.mcp.tools import MCPTool, MCPToolkit

__all__ = ["FileTokens", "HttpServer", "MCPAgent", "MCPServerToolkit", "MCPTool", "MCPToolkit", "StdioServer"]
