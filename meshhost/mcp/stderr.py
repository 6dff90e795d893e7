"""Keeps the end of what a program writes to its standard error, to say why it ended.

A server of MCP logs there, and nobody reads it while it works. Only the last bytes are kept, so a server that logs much costs
no memory and no disk, and never waits for a full pipe: the loop reads the pipe as the program writes.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

__all__ = ["StderrTail"]

MOST_BYTES = 2000


class StderrTail:
    """The end of what came last."""

    def __init__(self) -> None:
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
        self._tail = b""
        file = os.fdopen(sink, "w")
        loop.add_reader(source, self._read, source)
        try:
            yield file
        finally:
            loop.remove_reader(source)
            self._read(source)
            os.close(source)
            file.close()

    def _read(self, source: int) -> None:
        with suppress(BlockingIOError):
            if found := os.read(source, 65536):
                self._tail = (self._tail + found)[-MOST_BYTES:]
