"""Follows the frames of a WebSocket in the bytes that arrive, without keeping any of them.

The WebSocket library collects a message until it is complete, and only then shows it. A part that must know earlier how much is
collected (`server/wire/arriving.py`) passes all bytes through `FrameSizes` first. It reads the headers of frames (RFC 6455) and
skips what is in them. What breaks the protocol is left to the library, which ends the connection.

It counts frames that carry next to nothing: control frames, pieces of messages of less than TINY bytes, and messages that are
shorter than any packet. The last piece of a large message may be short: browsers cut messages where their buffers end. One read
of a socket can hold ten thousands of them, and the library takes some microseconds for each.

No I/O. Invariant: every byte of the connection from the first frame on is fed once and in order.
"""

import math

__all__ = ["TINY", "FrameSizes"]

TINY = 512
# With so many bytes before it the last piece of a message is not counted, however short it is.
_LARGE = 4096

# The head of a packet (room-protocol §2).
_LEAST_PACKET = 12
_MOST_HEADER = 14
_CONTROL = 0x08
_OPCODE = 0x0F
_FINAL = 0x80
_MASKED = 0x80


class FrameSizes:
    """`announced` bytes belong to the unfinished message, as far as the headers of its frames have come."""

    __slots__ = ("_head", "_is_control", "_is_final", "_left", "announced", "finished", "idle")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._is_final = self._is_control = False
        self.announced = 0
        self.finished = 0
        """Messages that came completely."""
        self.idle = 0
        """Frames that carried next to nothing."""

    @property
    def is_unfinished(self) -> bool:
        """Whether a message, or a frame of any kind, has begun and is not complete."""
        return bool(self._left or self._head or self.announced)

    def feed(self, data: bytes, *, most_idle: float = math.inf) -> None:
        """Follow the next bytes, until `idle` is more than `most_idle`: the rest of them is not looked at then."""
        end = len(data)
        at = min(self._left, end)
        if at:
            self._left -= at
            if not self._left:
                self._end_frame()
        while at < end and self.idle <= most_idle:
            had = len(self._head)
            head = self._head + data[at : at + _MOST_HEADER - had]
            header, payload = _read(head)
            if not header:
                self._head = head
                return
            at += header - had
            self._head = b""
            self._is_control, self._is_final = bool(head[0] & _CONTROL), bool(head[0] & _FINAL)
            if self._is_control:
                self.idle += 1
            else:
                is_piece = not self._is_final or not head[0] & _OPCODE
                is_rest = self._is_final and self.announced >= _LARGE
                self.idle += not is_rest and payload < (TINY if is_piece else _LEAST_PACKET)
                self.announced += payload
            came = min(payload, end - at)
            at += came
            self._left = payload - came
            if not self._left:
                self._end_frame()

    def _end_frame(self) -> None:
        if self._is_final and not self._is_control:
            self.announced = 0
            self.finished += 1


def _read(head: bytes) -> tuple[int, int]:
    """The sizes of a frame's header and payload; (0, 0) while the header is incomplete."""
    if len(head) < 2:
        return 0, 0
    size, payload = 2, head[1] & 0x7F
    if payload >= 126:
        width = 2 if payload == 126 else 8
        size += width
        payload = int.from_bytes(head[2:size])
    if head[1] & _MASKED:
        size += 4
    return (size, payload) if len(head) >= size else (0, 0)
