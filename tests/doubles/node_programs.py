"""Programs of Node that tests of MCP run, with their versions in the Makefile."""

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["NodePrograms", "node_programs"]

_ROOT = Path(__file__).parents[2]


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
    """The programs, installed by `make mcp-packages` if they are not there yet.

    Skips where they cannot be; in CI that is a failure.
    """
    if shutil.which("npm") is None:
        reason = "this machine has no npm"
    else:
        command = ["make", "--silent", "--no-print-directory", "mcp-packages"]
        made = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=300)
        if made.returncode == 0:
            return NodePrograms(Path(made.stdout.strip()))
        reason = f"the programs of Node could not be installed: {made.stderr[-500:]}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
