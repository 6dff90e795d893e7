"""WebSocket frames of the common kind, without a library: a whole packet in one binary frame (RFC 6455, section 5.2).

A message of the room protocol is two small packets or more, so the cost of a frame counts. `binary_frame` builds one; the
frames of a client are masked. `FrameSplitter` cuts what arrives at a client into whole frames and recognises those that are a
packet; for all others it only finds out where they end, and a library that knows all rules reads them. Pure: no I/O.
"""

import os
import struct
from collections.abc import Iterator

try:
    from websockets.speedups import apply_mask
except ImportError:  # no compiled module on this platform
    from websockets.utils import apply_mask

__all__ = ["FrameSplitter", "binary_frame", "new_mask"]

# FIN and the opcode of a binary frame: a packet in one frame.
_BINARY = 0x82
_MASKED = 0x80
_SHORT, _LONG = 126, 127
_SHORT_LENGTH, _LONG_LENGTH = struct.Struct(">H"), struct.Struct(">Q")
_POOL_BYTES = 4096


class _Masks:
    """Masks from the operating system's generator, which is asked for many at once."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Use none of what is left."""
        self._pool = b""
        self._at = 0

    def __call__(self) -> bytes:
        at = self._at
        if at >= len(self._pool):
            self._pool, at = os.urandom(_POOL_BYTES), 0
        self._at = at + 4
        return self._pool[at : at + 4]


new_mask = _Masks()
"""Return 4 bytes that nobody can predict, for the next frame."""
# A process that is forked must not repeat the masks of its parent.
os.register_at_fork(after_in_child=new_mask.forget)


def binary_frame(packet: bytes, mask: bytes = b"") -> bytes:
    """Return the packet as one binary frame; with a mask of 4 bytes, as that of a client."""
    size, masked = len(packet), _MASKED if mask else 0
    if size < _SHORT:
        head = bytes((_BINARY, masked | size))
    elif size < 1 << 16:
        head = bytes((_BINARY, masked | _SHORT)) + _SHORT_LENGTH.pack(size)
    else:
        head = bytes((_BINARY, masked | _LONG)) + _LONG_LENGTH.pack(size)
    return head + mask + apply_mask(packet, mask) if mask else head + packet


class FrameSplitter:
    """Cuts the bytes that a server sends into frames; keeps the beginning of a frame whose end has not come.

    A frame over `max_frame_bytes`, and one that is masked, which a server may not send, end it: `is_over`. The `rest` is then
    for the library, which refuses it.
    """

    __slots__ = ("_max_frame_bytes", "_needed", "_partial", "is_over")

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._partial: bytearray | None = None
        # Bytes of `_partial` without which it is no use to look.
        self._needed = 0
        self.is_over = False

    def until(self, end: bytes, data: bytes) -> tuple[bytes, bool, bytes]:
        """Split bytes that precede the first frame at the first `end`: up to and with it, whether it was there, what follows.

        `end` may come in pieces.
        """
        before = self._partial or b""
        found = (joined := bytes(before) + data).find(end)
        if found < 0:
            self._partial = bytearray(joined[-len(end) + 1 :])
            return data, False, b""
        self._partial = None
        cut = found + len(end) - len(before)
        return data[:cut], True, data[cut:]

    def split(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """The frames that are complete by this data: a packet and True, or a frame of another kind and False."""
        if self._partial is not None:
            self._partial += data
            if len(self._partial) < self._needed:
                return
            data, self._partial, self._needed = bytes(self._partial), None, 0
        at, size = 0, len(data)
        while size - at >= 2:
            first, length, body = data[at], data[at + 1], at + 2
            if length >= _SHORT and not length & _MASKED:
                packing = _SHORT_LENGTH if length == _SHORT else _LONG_LENGTH
                if size - body < packing.size:
                    break
                (length,) = packing.unpack_from(data, body)
                body += packing.size
            elif length & _MASKED:
                length = self._max_frame_bytes + 1
            if length > self._max_frame_bytes:
                self.is_over = True
                break
            if (end := body + length) > size:
                self._needed = end - at
                break
            yield (data[body:end], True) if first == _BINARY else (data[at:end], False)
            at = end
        if at < size:
            self._partial = bytearray(data[at:])

    def rest(self) -> bytes:
        """What has arrived and was not split."""
        rest, self._partial = bytes(self._partial or b""), None
        return rest

    @staticmethod
    def whole(frame: bytes, is_packet: bool) -> bytes:
        """The frame as it came, of what `split` returned."""
        return binary_frame(frame) if is_packet else frame
