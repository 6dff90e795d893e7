"""Sound at another rate, by soxr, which comes with the extra `voice`.

`resample` converts a whole length of sound, `Resampler` a stream of it without clicks where the pieces meet; that one holds a
few milliseconds back. Equal rates pass through untouched and need no library.
"""

from importlib.util import find_spec
from typing import Any

from meshhost.errors import SettingsError
from meshhost.voice.audio import Sound

__all__ = ["Resampler", "check_libraries", "resample"]

# Enough for speech; the better qualities hold back more of a stream.
_QUALITY = "HQ"


def check_libraries(*modules: str) -> None:
    """Raise SettingsError that says what to install, unless these modules are there."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise SettingsError(f"voice needs more libraries ({', '.join(missing)}): pip install 'meshhost[voice]'")


class Resampler:
    """Converts a stream of sound from `source` to `target` samples per second. Raises SettingsError without soxr."""

    def __init__(self, source: int, target: int) -> None:
        self._target = target
        self._stream: Any = None  # a soxr.ResampleStream
        if source != target:
            check_libraries("numpy", "soxr")
            import soxr

            self._stream = soxr.ResampleStream(source, target, 1, dtype="int16", quality=_QUALITY)

    def feed(self, sound: Sound, *, is_last: bool = False) -> Sound:
        """Add sound; return what is ready. `is_last` returns all that was held back."""
        if self._stream is None:
            return sound
        import numpy as np

        samples = np.frombuffer(sound.pcm, dtype="<i2").astype(np.int16)
        return Sound(self._stream.resample_chunk(samples, last=is_last).astype("<i2").tobytes(), self._target)


def resample(sound: Sound, rate: int) -> Sound:
    """Return the sound at this rate. Raises SettingsError without soxr."""
    if sound.rate == rate:
        return sound
    return Resampler(sound.rate, rate).feed(sound, is_last=True)
