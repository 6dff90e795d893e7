"""`OrderedLines`: gives the lines of a call to its transcript in the order in which they were begun.

A realtime model answers before the words of the caller are recognised, so the caller's line is often known after the agent's.
Lines wait here for those before them. One that is not known after some seconds is left out; it holds nothing up for longer.
"""

import asyncio
from dataclasses import dataclass

from meshhost.clock import Clock
from meshhost.voice.transcript import Line, Speaker, Transcript

__all__ = ["OrderedLines"]

# Seconds that a line which is known waits for one before it.
_PATIENCE = 10.0
_MAX_WAITING = 100


@dataclass(slots=True)
class _Slot:
    key: str
    speaker: Speaker
    began: float
    line: Line | None = None
    is_over: bool = False


class OrderedLines:
    """The lines of one call, each begun and ended under a key."""

    def __init__(self, transcript: Transcript, clock: Clock) -> None:
        self._transcript = transcript
        self._clock = clock
        self._slots: list[_Slot] = []
        self._writing = asyncio.Lock()

    def begin(self, key: str, speaker: Speaker) -> None:
        """Somebody begins to speak. A key that was begun already stays what it is."""
        if all(slot.key != key for slot in self._slots):
            self._slots.append(_Slot(key, speaker, self._clock.time()))
            del self._slots[:-_MAX_WAITING]

    async def end(self, key: str, text: str | None, *, is_cut: bool = False) -> None:
        """Who spoke under this key has said this; None or "" leaves no line. A key that was not begun is ignored."""
        slot = next((slot for slot in self._slots if slot.key == key and not slot.is_over), None)
        if slot is not None:
            slot.is_over = True
            if text:
                slot.line = Line(slot.speaker, text, slot.began, self._clock.time(), is_cut)
            await self._write(everything=False)

    async def give_up(self, speaker: Speaker) -> None:
        """What this side has said and is not known yet will not be known."""
        for slot in self._slots:
            slot.is_over = slot.is_over or slot.speaker is speaker
        await self._write(everything=False)

    async def finish(self) -> None:
        """The call is over: write what is known."""
        await self._write(everything=True)

    async def _write(self, *, everything: bool) -> None:
        async with self._writing:
            while self._slots:
                slot = self._slots[0]
                is_late = self._clock.time() - slot.began > _PATIENCE and any(each.is_over for each in self._slots[1:])
                if not slot.is_over and not is_late and not everything:
                    return
                self._slots.pop(0)
                if slot.line is not None:
                    await self._transcript.add(slot.line)
