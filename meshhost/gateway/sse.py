"""Server-sent events, in the part of the format that model APIs use."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["DONE", "DataLines", "encode_event"]

DONE = b"data: [DONE]\n\n"


class DataLines:
    """Cuts a byte stream into the values of its `data:` lines, as they are completed.

    A line longer than `max_line` bytes is dropped and counted in `dropped`, so memory stays bounded.
    """

    def __init__(self, *, max_line: int = 1024 * 1024) -> None:
        self._max_line = max_line
        self._line = bytearray()
        self._skipping = False
        self.dropped = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The values completed by `data`."""
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
    """One event; its `type`, when there is one, is also the SSE event name."""
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event, separators=(',', ':'))}\n\n".encode()
