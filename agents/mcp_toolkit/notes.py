"""A small MCP server, started by main.py: it keeps notes in memory. Any other server can take its place."""

from mcp.server import MCPServer

server = MCPServer("notes")
notes: list[str] = []


@server.tool()
def add_note(text: str) -> str:
    """Keep a note."""
    notes.append(text)
    return f"kept note {len(notes)}"


@server.tool()
def list_notes() -> list[str]:
    """All notes."""
    return notes


if __name__ == "__main__":
    server.run("stdio")
