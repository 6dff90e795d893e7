"""Programs of Node that tests of MCP run, with their versions in the Makefile."""

import functools
from pathlib import Path

from doubles.made import made

__all__ = ["NodePrograms", "node_programs"]


class NodePrograms:
    """Where the programs are."""

    def __init__(self, folder: Path) -> None:
        self.node = folder / "node_modules/.bin/node"
        self._packages = folder / "node_modules/@modelcontextprotocol"

    def command(self, package: str) -> list[str]:
        """The command that runs a package of @modelcontextprotocol."""
        return [str(self.node), str(self._packages / package / "dist/index.js")]


@functools.cache
def node_programs() -> NodePrograms:
    """The programs, installed by `make mcp-packages` if they are not there yet; see `made`."""
    return NodePrograms(made("mcp-packages", needs="npm"))
