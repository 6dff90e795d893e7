"""Packets: the wire unit of the room protocol (room-protocol §2). One packet is one binary WebSocket message.

A message is cut into a header packet (id, number of data packets, type) and numbered data packets, and joined again by the
receiver; `RoomConnection` does both. The packets of two messages are never mixed in one direction, so one assembler with one
unfinished message is enough. Every size is bounded before memory is taken: a message over the limit is dropped as it
arrives and can still be answered, since its end is known.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from meshhost.errors import RemoteProtocolError, TooLargeError

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
# A message begins with the length of its header; that of one data packet is looked at when it is read.
_HEADER_LENGTH = struct.Struct(">Q")
# Smaller slices are copied together into pieces of about _PIECE_BYTES: an object for each takes more memory than its bytes.
# One buffer for all would be copied again and again as it grows.
_SMALL_SLICE = 8 * 1024
_PIECE_BYTES = 1024 * 1024
_MAX_ID = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """The sizes that a receiver accepts. `message_bytes` counts the joined slices, `type_bytes` the message type as UTF-8.

    `packets` bounds how many data packets may carry one message, against senders that cut it into very small ones.
    `header_bytes` bounds the JSON header alone (None: as large as the message): reading JSON cannot be interrupted.
    """

    message_bytes: int = 64 * 1024 * 1024
    type_bytes: int = 256
    packets: int = 256 * 1024
    header_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One whole message: its id (chosen by its sender), its type and its bytes."""

    id: int
    type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class OversizedMessage:
    """A message that was not kept: over a limit, or dropped. The stream is intact, and it can be answered.

    `size` is in bytes. `header_size` is that of its header where that was over the limit.
    """

    id: int
    type: str
    size: int
    header_size: int = 0


class Packets:
    """The packets of one message, cut when iterated; `size` is their payload in bytes.

    `tail` follows the data of the message. It is not copied, so that the receivers of one event share its bytes.
    """

    __slots__ = ("_message", "_slice_bytes", "_tail", "size")

    def __init__(self, message: Message, slice_bytes: int, tail: bytes = b"") -> None:
        self._message = message
        self._slice_bytes = slice_bytes
        self._tail = tail
        self.size = len(message.data) + len(tail)

    def __iter__(self) -> Iterator[bytes]:
        message_id, step = self._message.id & _MAX_ID, self._slice_bytes
        count = -(-self.size // step)
        yield _HEADER.pack(message_id, 0, count) + self._message.type.encode()
        if count == 1:
            yield b"".join((_DATA.pack(message_id, 1), self._message.data, self._tail))
            return
        data, tail = memoryview(self._message.data), memoryview(self._tail)
        for number in range(count):
            start, end = number * step, (number + 1) * step
            in_tail, end_in_tail = max(start - len(data), 0), max(end - len(data), 0)
            yield b"".join((_DATA.pack(message_id, number + 1), data[start:end], tail[in_tail:end_in_tail]))


def packets(message: Message, *, slice_bytes: int = CLIENT_SLICE, tail: bytes = b"") -> Packets:
    """Cut a message, with `tail` after its data, into a header packet and data packets of at most `slice_bytes` payload."""
    return Packets(message, slice_bytes, tail)


class PacketAssembler:
    """Joins the packets of one direction of a connection into messages."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._is_dropped = False
        self._pieces: list[bytes | bytearray | memoryview] = []
        self._clear()

    @property
    def is_receiving(self) -> bool:
        """Whether a message has begun and is not complete."""
        return bool(self._awaiting)

    @property
    def is_dropping(self) -> bool:
        """Whether the rest of the unfinished message is dropped."""
        return self._is_dropped

    def drop(self) -> None:
        """Keep nothing of the unfinished message: the rest of it is dropped as it comes."""
        self._is_dropped = True
        self._pieces = []

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
            self.drop()
        elif not self._is_dropped:
            self._keep(packet, number)
        self._next += 1
        return self._complete() if number == self._awaiting else None

    def _keep(self, packet: bytes, number: int) -> None:
        if self._awaiting == 1:
            self._pieces.append(packet[_DATA.size :])
            return
        if number == 1 and self._limits.header_bytes is not None and len(packet) >= _DATA.size + _HEADER_LENGTH.size:
            (length,) = _HEADER_LENGTH.unpack_from(packet, _DATA.size)
            if length > self._limits.header_bytes:
                self._header_size = length
                self.drop()
                return
        data = memoryview(packet)[_DATA.size :]
        if len(data) >= _SMALL_SLICE:
            self._pieces.append(data)
            return
        last = self._pieces[-1] if self._pieces else None
        if not isinstance(last, bytearray) or len(last) >= _PIECE_BYTES:
            last = bytearray()
            self._pieces.append(last)
        last += data

    def _complete(self) -> Message | OversizedMessage:
        message: Message | OversizedMessage
        if self._is_dropped:
            message = OversizedMessage(self._id, self._type, self._size, self._header_size)
        else:
            message = Message(id=self._id, type=self._type, data=b"".join(self._pieces))
        self._clear()
        return message

    def _clear(self) -> None:
        self._id, self._type, self._awaiting, self._next, self._size = 0, "", 0, 1, 0
        self._is_dropped, self._header_size = False, 0
        self._pieces = []


def check_size(size: int, limits: Limits) -> None:
    """Raise TooLargeError when a message of `size` bytes would be refused by a receiver with these limits."""
    if size > limits.message_bytes:
        raise TooLargeError(f"message of {size} bytes, at most {limits.message_bytes}")
