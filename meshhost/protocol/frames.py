"""Packets: the wire unit of the room protocol (room-protocol §2). One packet is one binary WebSocket message.

A message is cut into a header packet (id, number of data packets, type) and numbered data packets, and joined again by the
receiver; `RoomConnection` does both. The packets of two messages are never mixed in one direction, so one assembler with one
unfinished message is enough. Every size is bounded before memory is taken: a message over the limit is dropped as it
arrives and can still be answered, since its end is known.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from meshhost.errors import LimitExceededError, RemoteProtocolError

__all__ = [
    "CLIENT_SLICE",
    "SERVER_SLICE",
    "Limits",
    "Message",
    "OversizedMessage",
    "PacketAssembler",
    "Packets",
    "check_size",
    "packets",
]

# What MeshAgent clients send; ours may send larger ones to a meshhost server.
CLIENT_SLICE = 64 * 1024
# Larger slices halve the cost of a download; a client drops the connection at 4 MiB a packet.
SERVER_SLICE = 256 * 1024

_HEADER = struct.Struct(">QII")
_DATA = struct.Struct(">QI")
_MAX_ID = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """The sizes that a receiver accepts. `message_bytes` counts the joined slices, `type_bytes` the message type as UTF-8.

    `packets` bounds how many data packets may carry one message, against senders that cut it into very small ones.
    """

    message_bytes: int = 64 * 1024 * 1024
    type_bytes: int = 256
    packets: int = 256 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """One whole message: its id (chosen by its sender), its type and its bytes."""

    id: int
    type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class OversizedMessage:
    """A message over the limit, which was not kept. The stream is intact, and it can be answered. `size` is in bytes."""

    id: int
    type: str
    size: int


class Packets:
    """The packets of one message, cut when iterated; `size` is their payload in bytes."""

    __slots__ = ("_message", "_slice_bytes")

    def __init__(self, message: Message, slice_bytes: int) -> None:
        self._message = message
        self._slice_bytes = slice_bytes

    @property
    def size(self) -> int:
        """The bytes of the message, without packet headers."""
        return len(self._message.data)

    def __iter__(self) -> Iterator[bytes]:
        message_id, data = self._message.id & _MAX_ID, memoryview(self._message.data)
        count = -(-len(data) // self._slice_bytes)
        yield _HEADER.pack(message_id, 0, count) + self._message.type.encode()
        for number in range(count):
            start = number * self._slice_bytes
            yield _DATA.pack(message_id, number + 1) + data[start : start + self._slice_bytes]


def packets(message: Message, *, slice_bytes: int = CLIENT_SLICE) -> Packets:
    """Cut a message into its header packet and data packets of at most `slice_bytes` payload."""
    return Packets(message, slice_bytes)


class PacketAssembler:
    """Joins the packets of one direction of a connection into messages."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._clear()

    def receive(self, packet: bytes) -> Message | OversizedMessage | None:
        """Take the next packet; return the message it completes, if it does. One over the limit is dropped as it comes.

        Raises RemoteProtocolError when the packet does not follow the rules or a limit is passed. The assembler is then
        empty again, but the stream can no longer be trusted: close the connection.
        """
        try:
            return self._take_data(packet) if self._awaiting else self._take_header(packet)
        except RemoteProtocolError:
            self._clear()
            raise

    def _take_header(self, packet: bytes) -> Message | OversizedMessage | None:
        if len(packet) < _HEADER.size:
            raise RemoteProtocolError(f"header packet of {len(packet)} bytes, expected at least {_HEADER.size}")
        message_id, number, count = _HEADER.unpack_from(packet)
        if number != 0:
            raise RemoteProtocolError(f"data packet {number} of a message that has not begun")
        self._type = self._read_type(packet[_HEADER.size :])
        if count > self._limits.packets:
            raise RemoteProtocolError(f"message of {count} packets, at most {self._limits.packets}", close_code=1009)
        self._id, self._awaiting, self._next = message_id, count, 1
        return self._complete() if count == 0 else None

    def _read_type(self, raw: bytes) -> str:
        if len(raw) > self._limits.type_bytes:
            raise RemoteProtocolError(f"message type of {len(raw)} bytes, at most {self._limits.type_bytes}")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("the message type is not UTF-8") from None

    def _take_data(self, packet: bytes) -> Message | OversizedMessage | None:
        if len(packet) < _DATA.size:
            raise RemoteProtocolError(f"data packet of {len(packet)} bytes, expected at least {_DATA.size}")
        message_id, number = _DATA.unpack_from(packet)
        if message_id != self._id or number != self._next:
            raise RemoteProtocolError(
                f"packet {number} of message {message_id}, expected packet {self._next} of message {self._id}"
            )
        self._size += len(packet) - _DATA.size
        if self._size > self._limits.message_bytes:
            self._slices.clear()
        else:
            self._slices.append(memoryview(packet)[_DATA.size :])
        self._next += 1
        return self._complete() if number == self._awaiting else None

    def _complete(self) -> Message | OversizedMessage:
        message: Message | OversizedMessage
        if self._size > self._limits.message_bytes:
            message = OversizedMessage(self._id, self._type, self._size)
        else:
            message = Message(id=self._id, type=self._type, data=b"".join(self._slices))
        self._clear()
        return message

    def _clear(self) -> None:
        self._id, self._type, self._awaiting, self._next, self._size = 0, "", 0, 1, 0
        self._slices: list[memoryview] = []


def check_size(size: int, limits: Limits) -> None:
    """Raise LimitExceededError when a message of `size` bytes would be refused by a receiver with these limits."""
    if size > limits.message_bytes:
        raise LimitExceededError(f"message of {size} bytes, at most {limits.message_bytes}")
