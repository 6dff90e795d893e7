"""`EspeakVoice`: speaks with eSpeak NG, called in the process by ctypes.

`espeakng-loader` brings the library and its data, without a Python interface. The library has one global state for the whole
process, so that it speaks in one thread; a sentence takes twenty milliseconds there, and ctypes releases the interpreter
meanwhile. Its voice is plain, yet it needs no download, no service and no time.

What is spoken is the model's text, so nothing of it is markup: SSML and phoneme input stay off, and the length is bounded.
"""

import ctypes
import functools
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from meshhost.errors import InvalidRequestError, LLMError
from meshhost.voice.audio import Sound
from meshhost.voice.cpu import FairPool
from meshhost.voice.resampling import check_libraries, resample

__all__ = ["EspeakVoice"]

# From speak_lib.h.
_RETRIEVAL = 1
_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_POSITION_CHARACTER = 1
_RATE_PARAMETER = 1
_BUFFER_MS = 100
_VOICE_NAME = re.compile(r"[A-Za-z0-9_+-]{1,40}")
_MAX_CHARS = 2_000
_THREADS = FairPool("text to speech", threads=1)


class EspeakVoice:
    """Speaks. `voice` is the default voice, `words_per_minute` how fast. A call may name another voice, such as en-gb or en+f3.

    A name that eSpeak NG does not know, such as one of another thinker, is spoken with the default voice. Raises SettingsError
    when the library is missing, InvalidRequestError.
    """

    def __init__(self, voice: str = "en-us", *, words_per_minute: int = 165) -> None:
        check_libraries("espeakng_loader", "numpy", "soxr")
        if not _VOICE_NAME.fullmatch(voice):
            raise InvalidRequestError(
                "voice", f"expected the name of a voice of eSpeak NG, such as en-us, got {voice!r}"
            )
        if not 80 <= words_per_minute <= 450:
            raise InvalidRequestError("words_per_minute", f"expected 80 to 450, got {words_per_minute}")
        self._voice = voice
        self._words_per_minute = words_per_minute

    async def speak(self, text: str, *, rate: int, voice: str | None, call_id: str) -> AsyncIterator[Sound]:
        """Yield a sentence as sound of this rate. Raises LLMError."""
        names = [each for each in (voice, self._voice) if each is not None and _VOICE_NAME.fullmatch(each)]
        yield await _THREADS.run(call_id, _speak, text[:_MAX_CHARS], rate, names, self._words_per_minute)


def _speak(text: str, rate: int, voices: list[str], words_per_minute: int) -> Sound:
    library = _library()
    if not any(library.set_voice(name) for name in voices):
        raise LLMError(f"eSpeak NG has no voice {voices[-1]!r}")
    sound = library.speak(text, words_per_minute)
    return resample(sound, rate)


class _Espeak:
    """The library. Used by one thread only."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate = self._library.espeak_Initialize(_RETRIEVAL, _BUFFER_MS, data, _DONT_EXIT)
        if self.rate <= 0:
            raise LLMError("eSpeak NG did not start: its data could not be read")
        self._pieces: list[bytes] = []
        self._voice: str | None = None
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback: Callable[..., Any] = kind(self._take)  # kept: the library calls it later
        self._library.espeak_SetSynthCallback(self._callback)

    def set_voice(self, name: str) -> bool:
        """Speak with this voice from now on; return whether there is one of this name."""
        if name != self._voice and self._library.espeak_SetVoiceByName(name.encode()) == 0:
            self._voice = name
        return self._voice == name

    def speak(self, text: str, words_per_minute: int) -> Sound:
        """Return the text as sound."""
        self._pieces.clear()
        self._library.espeak_SetParameter(_RATE_PARAMETER, words_per_minute, 0)
        data = text.encode("utf-8", "replace").replace(b"\0", b" ") + b"\0"
        size = ctypes.c_size_t(len(data))
        if self._library.espeak_Synth(data, size, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None) != 0:
            raise LLMError("eSpeak NG did not speak")
        self._library.espeak_Synchronize()
        return Sound(b"".join(self._pieces), self.rate)

    def _take(self, samples: Any, count: int, _events: Any) -> int:
        if count > 0 and samples:
            self._pieces.append(ctypes.string_at(samples, count * ctypes.sizeof(ctypes.c_short)))
        return 0


@functools.cache
def _library() -> _Espeak:
    return _Espeak()
