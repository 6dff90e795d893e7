"""Frames of the link: how they are packed into the messages of a connection, and how they are read. No I/O.

One message of the connection (a binary WebSocket message) holds one or more whole frames. A frame has a head of 13 bytes (kind,
channel, size of the payload; big-endian) and a payload. Kinds from 16 on are *sequenced*: both sides count them without writing
the number, since the connection keeps their order; after a loss they are sent again from the number that the other side says.
The others concern one connection only and are never sent again.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum

from meshhost.errors import RemoteProtocolError

__all__ = [
    "HEAD_BYTES",
    "Kind",
    "is_sequenced",
    "pack",
    "pack_count",
    "pack_credit",
    "pack_reason",
    "unpack",
    "unpack_count",
    "unpack_credit",
    "unpack_reason",
]


class Kind(IntEnum):
    """The kinds of frames."""

    HELLO = 1
    WELCOME = 2
    GOODBYE = 3
    PING = 4
    PONG = 5
    ACK = 6

    OPEN = 16
    ACCEPT = 17
    REFUSE = 18
    PIECE = 19
    """A part of a message; more follows."""
    LAST = 20
    """The last part of a message, or all of it."""
    CREDIT = 21
    CLOSE = 22


_HEAD = struct.Struct(">BQI")
HEAD_BYTES = _HEAD.size
_COUNT = struct.Struct(">Q")
_CREDIT = struct.Struct(">I")
_CODE = struct.Struct(">H")
_KINDS = {int(kind): kind for kind in Kind}
_FIRST_SEQUENCED = Kind.OPEN
_MAX_REASON_BYTES = 512


def is_sequenced(kind: Kind) -> bool:
    """Whether frames of this kind are counted, acknowledged and sent again."""
    return kind >= _FIRST_SEQUENCED


def pack(kind: Kind, channel: int = 0, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return _HEAD.pack(kind, channel, len(payload)) + payload


def unpack(data: bytes) -> Iterator[tuple[Kind, int, bytes]]:
    """The frames of a message, one after the other: kind, channel, payload. Raises RemoteProtocolError at a broken one."""
    at, size = 0, len(data)
    if not size:
        raise RemoteProtocolError("a message without a frame")
    while at < size:
        if size - at < HEAD_BYTES:
            raise RemoteProtocolError("a frame without a whole head")
        number, channel, length = _HEAD.unpack_from(data, at)
        kind = _KINDS.get(number)
        if kind is None:
            raise RemoteProtocolError(f"a frame of the unknown kind {number}")
        at += HEAD_BYTES
        if size - at < length:
            raise RemoteProtocolError("a frame that goes on after its message")
        yield kind, channel, data[at : at + length]
        at += length


def pack_count(count: int) -> bytes:
    """The payload of ACK, PING and PONG: how many sequenced frames have been received."""
    return _COUNT.pack(count)


def unpack_count(payload: bytes) -> int:
    """Undo `pack_count`. Raises RemoteProtocolError."""
    return _number(_COUNT, payload)


def pack_credit(size: int) -> bytes:
    """The payload of CREDIT: how many bytes more may be sent."""
    return _CREDIT.pack(size)


def unpack_credit(payload: bytes) -> int:
    """Undo `pack_credit`. Raises RemoteProtocolError."""
    return _number(_CREDIT, payload)


def pack_reason(code: int, text: str) -> bytes:
    """The payload of REFUSE, CLOSE and GOODBYE: a code and a text for people, which is cut when it is long."""
    cut = text.encode(errors="replace")[:_MAX_REASON_BYTES].decode(errors="ignore")
    return _CODE.pack(code) + cut.encode()


def unpack_reason(payload: bytes) -> tuple[int, str]:
    """Undo `pack_reason`. Raises RemoteProtocolError."""
    if not _CODE.size <= len(payload) <= _CODE.size + _MAX_REASON_BYTES:
        raise RemoteProtocolError(f"a reason of {len(payload)} bytes: expected {_CODE.size} to {_MAX_REASON_BYTES}")
    return _number(_CODE, payload[: _CODE.size]), payload[_CODE.size :].decode(errors="replace")


def _number(packing: struct.Struct, payload: bytes) -> int:
    if len(payload) != packing.size:
        raise RemoteProtocolError(f"a payload of {len(payload)} bytes: expected {packing.size}")
    found: int = packing.unpack(payload)[0]
    return found
