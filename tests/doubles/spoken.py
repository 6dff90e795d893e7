"""Speech for tests: sentences by eSpeak NG at any rate, with noise and with silence around; and how many words are wrong.

Ten ordinary sentences and one voice, chosen once. The noise is pink, as that of rooms and streets, and the same in each run.
"""

import re
from collections.abc import Sequence

import numpy as np

from meshhost.voice.audio import Sound
from meshhost.voice.offline import EspeakVoice

SENTENCES = (
    "What is the weather like in London tomorrow morning?",
    "Can you tell me what time the next train leaves?",
    "Remind me to buy milk and bread on the way home.",
    "Could you read me the last message again?",
    "My telephone does not work since yesterday.",
    "How long does it take to learn a new language?",
    "What was the name of the first man on the moon?",
    "Turn on the light in the kitchen, please.",
    "I am looking for a small hotel near the station.",
    "Please cancel my order from last week.",
)
VOICE = EspeakVoice("en-us+m7", words_per_minute=150)


async def spoken(text: str, rate: int) -> Sound:
    """The text as sound."""
    pieces = [piece async for piece in VOICE.speak(text, rate=rate, voice=None, call_id="speech of a test")]
    return Sound(b"".join(piece.pcm for piece in pieces), rate)


def in_silence(sound: Sound, *, before_ms: int = 500, after_ms: int = 900) -> Sound:
    """The sound with nothing before and after it."""
    before, after = (bytes(2 * sound.rate * ms // 1000) for ms in (before_ms, after_ms))
    return Sound(before + sound.pcm + after, sound.rate)


def in_noise(sound: Sound, *, snr_db: float, seed: int = 1) -> Sound:
    """The sound in pink noise that is so much weaker than the speech in it."""
    samples = np.frombuffer(sound.pcm, dtype="<i2").astype(np.float64)
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(0, 1, len(samples)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(len(spectrum)))), len(samples))
    loudness = np.sqrt(np.mean(samples[samples != 0] ** 2))
    noisy = samples + noise / noise.std() * loudness / 10 ** (snr_db / 20)
    return Sound(np.clip(noisy, -32768, 32767).astype("<i2").tobytes(), sound.rate)


def noise_only(ms: int, rate: int, level: float = 0.02) -> Sound:
    """Pink noise in which nobody speaks."""
    spectrum = np.fft.rfft(np.random.default_rng(7).normal(0, 1, rate * ms // 1000))
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(len(spectrum)))))
    return Sound((noise / noise.std() * level * 32767).astype("<i2").tobytes(), rate)


def words_of(text: str) -> list[str]:
    """The words of a text, without case and punctuation."""
    return re.findall(r"[a-z']+", text.lower())


def word_errors(expected: Sequence[str], got: Sequence[str]) -> int:
    """The number of words that are missing, wrong or too many."""
    costs = list(range(len(got) + 1))
    for row, word in enumerate(expected, 1):
        diagonal, costs[0] = costs[0], row
        for column, other in enumerate(got, 1):
            diagonal, costs[column] = (
                costs[column],
                min(costs[column] + 1, costs[column - 1] + 1, diagonal + (word != other)),
            )
    return costs[-1]
