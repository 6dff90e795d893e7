"""The messages between the room server and a worker process: a JSON header, then bytes.

A frame is the length of the header and that of the bytes (`>IQ`), then both. Rows travel as bytes, encoded once: the server
passes the rows of an answer on to the client without reading them. Both sides trust each other's frames; lengths are bounded
all the same, so that a damaged stream ends the process instead of filling memory.
"""

import asyncio
import json
import struct
from typing import Any

__all__ = ["MAX_FRAME_BYTES", "RefusedError", "pack", "read_frame"]

_LENGTHS = struct.Struct(">IQ")
_MAX_HEADER_BYTES = 16 * 1024 * 1024
MAX_FRAME_BYTES = 256 * 1024 * 1024


class RefusedError(Exception):
    """An answer that is an error: `kind` names the class of the error, `field` what is wrong in the request."""

    def __init__(self, kind: str, text: str, field: str = "") -> None:
        super().__init__(text)
        self.kind, self.text, self.field = kind, text, field


def pack(header: dict[str, Any], data: bytes = b"") -> tuple[bytes, bytes]:
    """Return a frame in two parts, so that large bytes are not copied."""
    encoded = json.dumps(header, separators=(",", ":")).encode()
    return _LENGTHS.pack(len(encoded), len(data)) + encoded, data


async def read_frame(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """Return the next frame. Raises IncompleteReadError at the end of the stream, ValueError for one that is no frame."""
    length, size = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    if length > _MAX_HEADER_BYTES or size > MAX_FRAME_BYTES:
        raise ValueError("not a frame")
    header = json.loads(await reader.readexactly(length))
    if not isinstance(header, dict):
        raise ValueError("not a frame")  # noqa: TRY004 - one error for all that is no frame
    return header, await reader.readexactly(size) if size else b""
