"""Server-sent events: the part of the format that model APIs use, one JSON value per `data:` line.

`DataLines` reads a stream that arrives in pieces of any size, for the meter and for the local model; `encode_event` writes
one.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["DONE", "DataLines", "encode_event"]

DONE = b"data: [DONE]\n\n"


class DataLines:
    """Splits a byte stream into the values of its `data:` lines, each as soon as it is complete.

    A line longer than `max_line` bytes is dropped and counted in `dropped`, so that memory stays bounded.
    """

    def __init__(self, *, max_line: int = 1024 * 1024) -> None:
        self._max_line = max_line
        self._line = bytearray()
        self._skipping = False
        self.dropped = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next piece; return the values that it completes."""
        *complete, rest = data.split(b"\n")
        for piece in complete:
            self._add(piece)
            line, skipped = bytes(self._line), self._skipping
            self._line.clear()
            self._skipping = False
            if not skipped and line.startswith(b"data:"):
                yield line[5:].strip()
        self._add(rest)

    def _add(self, piece: bytes) -> None:
        if self._skipping:
            return
        if len(self._line) + len(piece) > self._max_line:
            self._line.clear()
            self._skipping = True
            self.dropped += 1
        else:
            self._line += piece


def encode_event(event: Mapping[str, Any]) -> bytes:
    """Return one event as bytes; its `type`, if any, is also the SSE event name."""
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event, separators=(',', ':'))}\n\n".encode()
