"""Sound as a value: `Sound`, any length of PCM16, and `Framer`, which cuts a stream of it into frames.

Everything that hears or speaks here does so in 16-bit little-endian samples of one channel, at a rate that each `Sound` carries
with it. A *frame* is a Sound of 20 ms: what a carrier gives and takes. Telephones use 8 kHz, speech recognition 16, OpenAI
Realtime 24, WebRTC and browsers 48; `meshhost.voice.resampling` converts between them.

Plain Python and no I/O: numpy and the libraries of the extra `voice` are needed only where sound is computed on.
"""

import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from meshhost.errors import InvalidRequestError
from meshhost.protocol.voice_messages import MAX_RATE, MIN_RATE, RATE_STEP

__all__ = ["FRAME_MS", "SAMPLE_BYTES", "Framer", "Sound", "check_rate", "frame_bytes", "silence"]

FRAME_MS = 20
SAMPLE_BYTES = 2


@dataclass(frozen=True, slots=True)
class Sound:
    """A length of sound: PCM16, little-endian, one channel; `rate` is in samples per second."""

    pcm: bytes
    rate: int

    def __repr__(self) -> str:
        return f"<Sound {self.ms:g} ms at {self.rate} Hz>"

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.pcm) // SAMPLE_BYTES

    @property
    def ms(self) -> float:
        """The duration in milliseconds."""
        return self.samples * 1000 / self.rate

    @property
    def level(self) -> float:
        """The loudest sample, from 0 to 1."""
        values = array("h", self.pcm)
        if sys.byteorder == "big":
            values.byteswap()
        return max(map(abs, values), default=0) / 32768


def check_rate(rate: object, field: str = "rate") -> int:
    """Return a sample rate that came from outside. Raises InvalidRequestError that names the field."""
    if isinstance(rate, bool) or not isinstance(rate, int) or not MIN_RATE <= rate <= MAX_RATE or rate % RATE_STEP:
        raise InvalidRequestError(
            field, f"expected a multiple of {RATE_STEP} from {MIN_RATE} to {MAX_RATE}, got {rate!r}"
        )
    return rate


def frame_bytes(rate: int) -> int:
    """Return the size of a frame."""
    return rate * FRAME_MS // 1000 * SAMPLE_BYTES


def silence(ms: float, rate: int) -> Sound:
    """Return this much silence."""
    return Sound(bytes(round(rate * ms / 1000) * SAMPLE_BYTES), rate)


class Framer:
    """Cuts sound that comes in pieces of any length, all of one rate, into frames of 20 ms."""

    __slots__ = ("_rate", "_rest", "_size")

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._size = frame_bytes(rate)
        self._rest = bytearray()

    def __repr__(self) -> str:
        return f"<Framer rate={self._rate} rest={len(self._rest)}>"

    def feed(self, sound: Sound) -> Iterator[Sound]:
        """Add sound; yield the frames that are complete. Raises ValueError for another rate."""
        if sound.rate != self._rate:
            raise ValueError(f"expected sound at {self._rate} Hz, got {sound.rate} Hz")
        self._rest += sound.pcm
        while len(self._rest) >= self._size:
            frame = bytes(self._rest[: self._size])
            del self._rest[: self._size]
            yield Sound(frame, self._rate)

    def flush(self) -> Sound | None:
        """Return what is left as a frame that ends in silence, or None; the framer is empty then."""
        if not self._rest:
            return None
        rest = bytes(self._rest).ljust(self._size, b"\0")
        self._rest.clear()
        return Sound(rest, self._rate)
