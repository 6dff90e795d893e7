"""`Output`: the agent's voice in one call: plays the sound of answers, and knows at any moment how far it was heard.

The provider sends an answer faster than it is heard, so most of it waits here: the socket must be read on, because it also
brings that the caller interrupts. `run` converts, cuts into frames and plays; `stop` ends the voice at once and says how
far each item was heard. Invariant: `_epoch` changes with each stop, and what was taken under an old one plays no further frame.

`run` is a task of the call; `add`, `end` and `stop` are called by the task that reads the provider's events.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from meshhost.tasks import Won, first_of
from meshhost.voice.audio import FRAME_MS, Framer, Sound
from meshhost.voice.carrier import Carrier
from meshhost.voice.realtime.playback import Cut, Playback
from meshhost.voice.realtime.session import BYTES_PER_MS, RATE
from meshhost.voice.resampling import Resampler

__all__ = ["Output"]

logger = logging.getLogger(__name__)

# Ten minutes; a provider's answers are shorter.
_MOST_BYTES = 600_000 * BYTES_PER_MS


class Output:
    """The voice. `on_begin` is called when the first sound of an item is played, `on_heard` when items were heard whole."""

    def __init__(
        self,
        carrier: Carrier,
        *,
        on_begin: Callable[[str], Awaitable[None]],
        on_heard: Callable[[list[str]], Awaitable[None]],
    ) -> None:
        self._carrier = carrier
        self._on_begin = on_begin
        self._on_heard = on_heard
        self._queue: deque[tuple[str, bytes | None]] = deque()
        self._queued_bytes = 0
        self._playback = Playback()
        self._given_ms = 0.0  # of what `_playback` knows
        self._begun: str | None = None
        self._open: str | None = None  # the item that has more sound to come
        self._epoch = 0
        self._changed = asyncio.Event()
        self._is_silent = True
        self._renew()

    def __repr__(self) -> str:
        return f"<Output queued_ms={self._queued_bytes / BYTES_PER_MS:.0f} silent={self._is_silent}>"

    @property
    def is_silent(self) -> bool:
        """Whether all was heard."""
        return self._is_silent

    def add(self, item_id: str, pcm: bytes) -> None:
        """Play this behind what there is. Sound beyond ten minutes is dropped."""
        if self._queued_bytes + len(pcm) > _MOST_BYTES:
            logger.warning("the voice of a realtime model is too far ahead: sound was dropped")
            return
        self._queue.append((item_id, pcm))
        self._queued_bytes += len(pcm)
        self._playback.add(item_id, len(pcm) / BYTES_PER_MS)
        self._is_silent, self._open = False, item_id
        self._changed.set()

    def end(self, item_id: str | None = None) -> None:
        """The item, or any that there is, has no more sound."""
        if self._open is not None and item_id in (None, self._open):
            self._queue.append((self._open, None))
            self._open = None
            self._changed.set()

    async def stop(self) -> tuple[list[str], list[Cut]]:
        """Stop the voice. Returns the items that were heard whole, and those that were not."""
        self._epoch += 1
        self._queue.clear()
        self._queued_bytes = 0
        dropped = await self._carrier.clear()
        whole, cuts = self._playback.cut(self._given_ms - dropped)
        self._given_ms, self._is_silent, self._open, self._begun = 0.0, True, None, None
        self._changed.set()
        return whole, cuts

    async def run(self) -> None:
        """Play, until cancelled."""
        epoch = self._epoch
        while True:
            if epoch != self._epoch:
                epoch = self._epoch
                self._renew()
            if self._queue:
                item_id, pcm = self._queue.popleft()
                self._queued_bytes -= 0 if pcm is None else len(pcm)
                await self._play(item_id, pcm, epoch)
                continue
            self._changed.clear()
            if self._is_silent or self._open is not None:
                await self._changed.wait()
            elif isinstance(await first_of(self._carrier.played(), self._changed.wait()), Won):
                await self._all_heard(epoch)

    async def _play(self, item_id: str, pcm: bytes | None, epoch: int) -> None:
        if item_id != self._begun and pcm:
            self._begun = item_id
            await self._on_begin(item_id)
        if pcm is None:
            frames = list(self._framer.feed(self._resampler.feed(Sound(b"", RATE), is_last=True)))
            rest = self._framer.flush()
            frames += [] if rest is None else [rest]
            self._renew()
        else:
            frames = list(self._framer.feed(self._resampler.feed(Sound(pcm, RATE))))
        for frame in frames:
            if epoch != self._epoch:
                return
            # Counted before it is played: `clear` counts a frame as dropped that waits in `play`.
            self._given_ms += FRAME_MS
            await self._carrier.play(frame)

    async def _all_heard(self, epoch: int) -> None:
        if epoch == self._epoch and not self._queue:
            items = self._playback.heard_all()
            self._given_ms, self._is_silent, self._begun = 0.0, True, None
            await self._on_heard(items)

    def _renew(self) -> None:
        self._resampler = Resampler(RATE, self._carrier.rate)
        self._framer = Framer(self._carrier.rate)
