"""`FrameInbox`: the caller's frames between the way they arrive and the thinker that takes them; bounded.

What arrives is put in from a callback of a connection, which must not wait. When the thinker is slower than the caller speaks,
the oldest frames are dropped: what is said now matters more than what was said seconds ago.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator

from meshhost.voice.audio import FRAME_MS, Framer, Sound

__all__ = ["FrameInbox"]

logger = logging.getLogger(__name__)

# Sound that may wait.
MAX_MS = 5_000


class FrameInbox:
    """Frames of one call. `idle_seconds` without anything put in end it, None for never."""

    def __init__(self, rate: int, *, call_id: str, idle_seconds: float | None = None, max_ms: int = MAX_MS) -> None:
        self._framer = Framer(rate)
        self._call_id = call_id
        self._idle_seconds = idle_seconds
        self._frames: deque[Sound] = deque(maxlen=max_ms // FRAME_MS)
        self._changed = asyncio.Event()
        self._is_closed = False
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<FrameInbox waiting={len(self._frames)} dropped={self.dropped}>"

    def put(self, sound: Sound) -> None:
        """Add sound of any length; the shortest is a sign of life."""
        for frame in self._framer.feed(sound):
            if len(self._frames) == self._frames.maxlen:
                if not self.dropped:
                    logger.warning("a caller is heard more slowly than it speaks", extra={"voice_call": self._call_id})
                self.dropped += 1
            self._frames.append(frame)
        self._changed.set()

    def close(self) -> None:
        """No more frames come; those that wait are still given."""
        self._is_closed = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[Sound]:
        while True:
            while self._frames:
                yield self._frames.popleft()
            if self._is_closed:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(self._idle_seconds):
                    await self._changed.wait()
            except TimeoutError:
                logger.info("a caller went silent", extra={"voice_call": self._call_id})
                return
