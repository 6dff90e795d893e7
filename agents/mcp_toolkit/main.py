"""An MCP server as a toolkit of a room: every agent there can use its tools, and so can an IDE.

Shows: `MCPServerToolkit`, which starts the server, starts it again when it crashes and follows its changes, and `MCPAgent`,
which offers its tools in the room. No model is needed. The server is notes.py beside this file; MCP_SERVER names another one,
by its address or by the command that starts it.

Run it:         pip install 'meshhost[mcp]'
                meshhost setup                                                (once, for an API key)
                meshhost service run agents/mcp_toolkit/main.py --room my-room
Use a tool:     meshhost agents invoke-tool --room my-room --toolkit notes --tool add_note --arguments '{"text": "buy milk"}'
From an IDE:    meshhost mcp url --room my-room        prints what goes into its configuration

You see the agent join the room; the second command prints "kept note 1".
"""

import asyncio
import os
import shlex
import sys
from pathlib import Path

from meshhost.api.services import ServiceHost
from meshhost.mcp import HttpServer, MCPAgent, MCPServerToolkit, StdioServer
from meshhost.otel import otel_config

otel_config(service_name="mcp-toolkit")

host = ServiceHost()

NOTES = str(Path(__file__).with_name("notes.py"))


def server():
    """The server that MCP_SERVER names, else the one beside this file."""
    named = os.environ.get("MCP_SERVER", "")
    if named.startswith(("http://", "https://")):
        return HttpServer(named)
    command, *arguments = shlex.split(named) or [sys.executable, NOTES]
    return StdioServer(command, arguments)


@host.path("/mcp-toolkit", identity="mcp-toolkit")
class Notes(MCPAgent):
    def __init__(self):
        toolkit = MCPServerToolkit(name="notes", title="Notes", description="Keeps notes", server=server(), timeout=30)
        super().__init__(name="mcp-toolkit", toolkit=toolkit)


if __name__ == "__main__":
    asyncio.run(host.run())
