"""Examples of the wire that every codec must agree on: the Python one here, and the one of Studio in the browser.

`test_frames.py` and `test_messages.py` check the Python codec with them, and `tests/unit/studio/test_browser_side.py` writes
them down for the tests of the browser's codec, which Node runs.
"""

import struct
from typing import Any

from meshhost.protocol.messages import (
    EmptyResponse,
    ErrorResponse,
    FileResponse,
    JsonResponse,
    LinkResponse,
    RawOutputs,
    Response,
    TextResponse,
)


def header(message_id: int, count: int, type: bytes = b"t", number: int = 0) -> bytes:
    return struct.pack(">QII", message_id, number, count) + type


def data(message_id: int, number: int, payload: bytes = b"") -> bytes:
    return struct.pack(">QI", message_id, number) + payload


def framed(header: bytes, payload: bytes = b"") -> bytes:
    return struct.pack(">Q", len(header)) + header + payload


RESPONSES: list[Response] = [
    JsonResponse(json={"a": [1, None]}),
    JsonResponse(json=None),
    JsonResponse(json=[], usage={"tokens": 3}),
    TextResponse(text="hello"),
    FileResponse(data=b"\x00\xff", name="x.bin", mime_type="application/octet-stream"),
    LinkResponse(name="x", url="https://example.org/x"),
    EmptyResponse(),
    EmptyResponse(usage={"tokens": 3.5}),
    ErrorResponse(text="no"),
    ErrorResponse(text="no", code=1001),
    RawOutputs(outputs=[{"type": "message"}]),
]

# Streams of which the last packet breaks the rules.
BROKEN_STREAMS = [
    [b""],
    [header(1, 0)[:15]],
    [header(1, 1), b""],
    [header(1, 1), data(1, 1)[:11]],
    [data(1, 1, b"four more")],
    [header(1, 0, b"\xff")],
    # Packets of two messages mixed.
    [header(1, 2), data(1, 1), data(2, 2)],
    [header(1, 2), data(1, 1, b"secret"), header(2, 1)],
    # Out of order, repeated or left out.
    [header(1, 2), data(1, 2)],
    [header(1, 2), data(1, 1, b"secret"), data(1, 1)],
    [header(1, 3), data(1, 1, b"secret"), data(1, 3)],
    [header(1, 1), data(1, 0)],
]

# Bytes that are no message with a JSON object as header.
UNREADABLE = [
    b"",
    b"\x00" * 7,
    b"\x00" * 8,
    struct.pack(">Q", 3) + b"{}",
    struct.pack(">Q", 2**64 - 1) + b"{}",
    framed(b"[]"),
    framed(b"null"),
    framed(b"{'a': 1}"),
    framed(b"\xff\xfe{}"),
    framed(b'{"a": "\xff"}'),
    framed(b'{"a": ' * 100_000),
]

# Headers that are no body of a reply, with the member at fault.
BAD_BODIES: list[tuple[dict[str, Any], str]] = [
    ({}, "type"),
    ({"type": "picture"}, "type"),
    ({"type": None}, "type"),
    ({"type": ["json"]}, "type"),
    ({"type": "json"}, "json"),
    ({"type": "text"}, "text"),
    ({"type": "text", "text": 5}, "text"),
    ({"type": "file", "name": "x"}, "mime_type"),
    ({"type": "link", "name": "x"}, "url"),
    ({"type": "error"}, "text"),
    ({"type": "raw", "outputs": {}}, "outputs"),
]
