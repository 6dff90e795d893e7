"""`Voice`: says one answer while it is being written, and knows at any moment what of it was heard.

The model writes text (`write`, from its event handler), `run` speaks it sentence by sentence: up to two sentences are
synthesised ahead of the one that is played, so that there is no gap between them. When the caller speaks, `hold` stops the
voice at once. If it was only a noise, `resume` goes on from the beginning of the sentence that was cut; else the owner cancels
`run`, and `heard` is what the caller has heard.

What was heard follows from milliseconds: those handed to the carrier less those that `clear` dropped. Of a sentence that was
cut, as many words count as fit into its part of the time. Invariant: `_epoch` changes with each hold, and what was begun
under an old one plays no further frame.

Tasks: `run` and its syntheses are one task group; `hold` is called by the task that listens, between two of its steps.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from meshhost.errors import LLMError
from meshhost.guard import guarding
from meshhost.voice.audio import FRAME_MS, Framer, Sound
from meshhost.voice.carrier import Carrier
from meshhost.voice.cascade.sentences import SentenceFeed, speakable
from meshhost.voice.stages import TextToSpeech

__all__ = ["Voice"]

# Sentences that are synthesised or kept at once, the one that is played among them.
_AHEAD = 3
# For a sentence that is not synthesised to its end: about how long a character takes to say.
_MS_PER_CHAR = 60


@dataclass(slots=True)
class _Sentence:
    text: str
    frames: list[Sound] = field(default_factory=list)
    is_whole: bool = False
    is_begun: bool = False
    played_ms: float = 0.0

    @property
    def ms(self) -> float:
        """How long it is, or may be."""
        known = float(len(self.frames) * FRAME_MS)
        return known if self.is_whole else max(known, float(len(self.text) * _MS_PER_CHAR))

    def words_within(self, ms: float) -> str:
        """The words that are said in the first milliseconds."""
        words = self.text.split()
        return " ".join(words[: int(len(words) * min(1.0, ms / self.ms))]) if self.ms else ""


class Voice:
    """Says one answer over a carrier. `on_first_frame` is called when the caller begins to hear it."""

    def __init__(
        self,
        *,
        carrier: Carrier,
        text_to_speech: TextToSpeech,
        voice: str | None,
        call_id: str,
        on_first_frame: Callable[[], None] = lambda: None,
    ) -> None:
        self._carrier = carrier
        self._text_to_speech = text_to_speech
        self._voice = voice
        self._call_id = call_id
        self._on_first_frame = on_first_frame
        self._feed = SentenceFeed()
        self._sentences: list[_Sentence] = []
        self._at = 0  # the sentence that is played next, or now
        self._since = 0  # the first sentence played since the last hold
        self._partly = ""  # of the sentence that was cut: what was heard
        self._epoch = 0
        self._is_finished = False
        self._is_held = False
        self._has_begun = False
        self._changed = asyncio.Event()
        self._error: LLMError | None = None

    def __repr__(self) -> str:
        return f"<Voice sentence={self._at} of={len(self._sentences)} held={self._is_held}>"

    @property
    def heard(self) -> str:
        """The part that the caller has heard; right after `hold`, and when `run` has returned."""
        whole = [sentence.text for sentence in self._sentences[: self._at]]
        return " ".join([*whole, self._partly] if self._partly else whole)

    def write(self, text: str) -> None:
        """Add text behind what there is."""
        self._add(self._feed.feed(text))

    def break_sentence(self) -> None:
        """Say what there is, whatever comes next: a part of the answer has ended."""
        self._add(self._feed.flush())

    def take_back(self) -> None:
        """Drop what is not being said yet: the model begins its turn again."""
        self._feed.flush()
        del self._sentences[self._at + 1 :]

    def finish(self) -> None:
        """No more text comes."""
        self._add(self._feed.flush())
        self._is_finished = True
        self._changed.set()

    async def hold(self) -> None:
        """Stop the voice, at once; `heard` is right after it."""
        self._epoch += 1
        was_held, self._is_held = self._is_held, True
        dropped = await self._carrier.clear()
        if not was_held:
            self._find_cut(dropped)

    def resume(self) -> None:
        """Go on, from the beginning of the sentence that was cut."""
        self._is_held = False
        self._partly = ""
        self._since = self._at
        self._changed.set()

    async def run(self) -> None:
        """Speak until all is said and heard. Raises LLMError when the text-to-speech engine fails."""
        async with asyncio.TaskGroup() as group:
            while not self._is_over():
                if self._is_held or self._at >= len(self._sentences):
                    await self._wait()
                    continue
                self._synthesise_ahead(group)
                await self._play(self._sentences[self._at])
                if self._is_over():
                    await self._carrier.played()  # or held again meanwhile
        if self._error is not None:
            raise self._error

    def _is_over(self) -> bool:
        is_said = self._is_finished and not self._is_held and self._at >= len(self._sentences)
        return is_said or self._error is not None

    def _add(self, sentences: list[str]) -> None:
        self._sentences += (_Sentence(sentence) for sentence in sentences if speakable(sentence))
        self._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _play(self, sentence: _Sentence) -> None:
        epoch, number = self._epoch, 0
        sentence.played_ms = 0.0
        while number < len(sentence.frames) or not sentence.is_whole:
            if number >= len(sentence.frames):
                await self._wait()
            else:
                if not self._has_begun:
                    self._has_begun = True
                    self._on_first_frame()
                # Counted before it is played: `clear` counts a frame as dropped that waits in `play`.
                sentence.played_ms += FRAME_MS
                await self._carrier.play(sentence.frames[number])
                number += 1
            if epoch != self._epoch or self._error is not None:
                return
        self._at += 1

    def _find_cut(self, dropped: float) -> None:
        """Move back to the first sentence that was not heard to its end."""
        played = self._sentences[self._since : self._at + 1]
        heard = sum(sentence.played_ms for sentence in played) - dropped
        for number, sentence in enumerate(played, self._since):
            if number < self._at and heard >= sentence.played_ms - FRAME_MS:
                heard -= sentence.played_ms
                continue
            self._at = number
            self._partly = sentence.words_within(max(0.0, heard))
            break
        for sentence in self._sentences[self._at :]:
            sentence.played_ms = 0.0

    def _synthesise_ahead(self, group: asyncio.TaskGroup) -> None:
        # What was played long ago is not said again.
        for sentence in self._sentences[max(0, self._at - _AHEAD - 1) : max(0, self._at - _AHEAD)]:
            sentence.frames.clear()
        for sentence in self._sentences[self._at : self._at + _AHEAD]:
            if not sentence.is_begun:
                sentence.is_begun = True
                group.create_task(self._synthesise(sentence), name=f"synthesis of call {self._call_id}")

    async def _synthesise(self, sentence: _Sentence) -> None:
        framer = Framer(self._carrier.rate)
        said = speakable(sentence.text)
        try:
            with guarding():
                async for sound in self._text_to_speech.speak(
                    said, rate=self._carrier.rate, voice=self._voice, call_id=self._call_id
                ):
                    sentence.frames += framer.feed(sound)
                    self._changed.set()
        except Exception as error:  # noqa: BLE001 - the engine may be a program's own; `run` raises it
            self._error = error if isinstance(error, LLMError) else LLMError(f"text to speech failed: {error}")
        if (rest := framer.flush()) is not None:
            sentence.frames.append(rest)
        sentence.is_whole = True
        self._changed.set()
