"""`CountedCarrier`: a carrier on which time is counted in frames, so that tests of interruptions need no clock.

In each turn of 20 ms the test gives one frame of the caller (`say`), and the caller's ear takes one frame of what was played.
The next turn begins when the frame has been listened to, however long that takes.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from meshhost.voice.audio import FRAME_MS, Framer, Sound, silence
from meshhost.voice.carrier import VoiceState
from meshhost.voice.transcript import Line

# Turns of the event loop in which everything reacts to a frame.
_TURNS = 40


class CountedCarrier:
    """`heard` are the frames that reached the ear, with None for silence; `lead` frames may be played ahead."""

    def __init__(self, rate: int = 16_000, lead: int = 10) -> None:
        self.rate = rate
        self.heard: list[Sound | None] = []
        self.states: list[VoiceState] = []
        self.lines: list[Line] = []
        self.closed: list[str | None] = []
        self._lead = lead
        self._played: deque[Sound] = deque()
        self._incoming: asyncio.Queue[Sound | None] = asyncio.Queue()
        self._moved = asyncio.Event()
        self._epoch = 0
        self._taken = asyncio.Event()  # whoever listens has done with all frames, and waits for the next
        self._is_over = False

    async def frames(self) -> AsyncIterator[Sound]:
        try:
            while True:
                if self._incoming.empty():
                    self._taken.set()
                if (frame := await self._incoming.get()) is None:
                    return
                yield frame
        finally:
            self._is_over = True
            self._taken.set()

    async def play(self, frame: Sound) -> None:
        self._played.append(frame)
        epoch = self._epoch
        while len(self._played) > self._lead and epoch == self._epoch:
            await self._turn()

    @property
    def unheard_ms(self) -> float:
        return len(self._played) * FRAME_MS

    async def clear(self) -> float:
        dropped = self.unheard_ms
        self._played.clear()
        self._epoch += 1
        self._moved.set()
        return dropped

    async def played(self) -> None:
        while self._played:
            await self._turn()

    async def show(self, state: VoiceState) -> None:
        self.states.append(state)

    async def caption(self, line: Line) -> None:
        self.lines.append(line)

    async def close(self, reason: str | None = None) -> None:
        self.closed.append(reason)
        self.hang_up()

    # The test's side.

    def hang_up(self) -> None:
        self._incoming.put_nowait(None)

    async def say(self, sound: Sound) -> None:
        """Let the caller say this, while time goes on by its length."""
        for frame in Framer(self.rate).feed(sound):
            self._taken.clear()
            self._incoming.put_nowait(frame)
            if not self._is_over:
                async with asyncio.timeout(10):
                    await self._taken.wait()
            await self._settle()
            self.heard.append(self._played.popleft() if self._played else None)
            self._moved.set()
        await self._settle()

    async def wait(self, ms: float) -> None:
        """Let the caller be silent for this long."""
        await self.say(silence(ms, self.rate))

    @property
    def heard_frames(self) -> int:
        """How many frames of a voice reached the ear."""
        return sum(frame is not None for frame in self.heard)

    async def _turn(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    async def _settle(self) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
