"""Starts the program of an MCP server through the library, and ends all that it leaves behind.

The library starts a program in a process group of its own and ends it with its input, but it does not say which process it is,
and what a program has started outlives one that crashes or just ends. So the program is started by a shell that first writes
its own process id, which the program then has, to standard error; when the connection is over, what is left of the group is
killed.

Standard error also says why a program ended. Only the last bytes are kept, so a server that logs much costs no memory and no
disk, and never waits for a full pipe: the loop reads it as the program writes.
"""

import asyncio
import errno
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from io import TextIOWrapper
from typing import Any

from mcp import StdioServerParameters
from mcp.client.stdio import get_default_environment, stdio_client

from meshhost.mcp.servers import StdioServer

__all__ = ["StderrTail", "started"]

MOST_BYTES = 2000
_SHELL = "/bin/sh"
_SCRIPT = 'echo "$$" >&2; exec "$@"'


class StderrTail:
    """The process id of a program that `started` started, and the end of what it wrote since.

    `ended` is called when the program has ended.
    """

    def __init__(self, ended: Callable[[], None] = lambda: None) -> None:
        self.pid: int | None = None
        self._ended = ended
        self._watched: int | None = None
        self._tail = b""

    def __str__(self) -> str:
        """The last line that says something, at most 300 characters."""
        lines = [line.strip() for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1][-300:] if lines else ""

    @contextmanager
    def pipe(self) -> Iterator[TextIOWrapper]:
        """A file to pass to a program as its standard error; read until the block ends."""
        loop = asyncio.get_running_loop()
        source, sink = os.pipe()
        os.set_blocking(source, False)
        self.pid, self._tail = None, b""
        file = os.fdopen(sink, "w")
        loop.add_reader(source, self._read, source)
        try:
            yield file
        finally:
            loop.remove_reader(source)
            self._read(source)
            self._unwatch()
            os.close(source)
            file.close()

    def _read(self, source: int) -> None:
        with suppress(BlockingIOError):
            self._tail += os.read(source, 65536)
        if self.pid is None:
            first, newline, rest = self._tail.partition(b"\n")
            if newline:
                self.pid, self._tail = int(first), rest
                self._watch(self.pid)
        self._tail = self._tail[-MOST_BYTES:]

    def _watch(self, pid: int) -> None:
        """Call `ended` when the program ends. Its output need not end then: what it started may hold that open."""
        with suppress(AttributeError, OSError):  # not Linux; or it has ended, which its output says
            self._watched = os.pidfd_open(pid)
            asyncio.get_running_loop().add_reader(self._watched, self._take_end)

    def _take_end(self) -> None:
        self._unwatch()
        self._ended()

    def _unwatch(self) -> None:
        watched, self._watched = self._watched, None
        if watched is not None:
            asyncio.get_running_loop().remove_reader(watched)
            os.close(watched)


@asynccontextmanager
async def started(server: StdioServer, stderr: StderrTail) -> AsyncIterator[Any]:
    """The streams of a program that runs until the block ends. Raises OSError when it cannot be started."""
    environment = {**get_default_environment(), **server.env}
    command = shutil.which(server.command, path=environment.get("PATH"))
    if command is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), server.command)
    arguments = ["-c", _SCRIPT, _SHELL, command, *server.args]
    parameters = StdioServerParameters(command=_SHELL, args=arguments, env=dict(server.env), cwd=server.cwd)
    with stderr.pipe() as errors:
        try:
            async with stdio_client(parameters, errlog=errors) as streams:
                yield streams
        finally:
            if stderr.pid is not None:
                # While one process of the group is left, no other group can have its number.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(stderr.pid, signal.SIGKILL)
