"""Notices when something holds the event loop, and says who.

A thread asks the loop every 100 ms to run a callback, and measures how long that takes: the loop's lag. When it takes longer
than the threshold the thread looks at what the loop's thread executes and in whose log context, and reports that while it
goes on, to the log at once and to whoever asks from another thread. A blocked loop itself answers no HTTP.
"""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from types import FrameType

from meshhost.logs import current_log_context

__all__ = ["Block", "LoopWatchdog"]

logger = logging.getLogger(__name__)

INTERVAL = 0.1
_MAX_STACK = 4_000
_STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Block:
    """Something held the loop. `fields` is its log context (agent, spawn_id, path, …), empty when that is not known.

    `seconds` is how long, as of now: the block may go on. `began` is on the clock of time.monotonic().
    """

    began: float
    seconds: float
    stack: str
    task: str
    fields: Mapping[str, object] = field(default_factory=dict)


class LoopWatchdog:
    """Watches the loop in which it is started.

    `on_lag` gets each measured lag in seconds, `on_block` each block when it is over, both in the loop. Times in seconds.
    `last_lag`, `block` (as first seen; None when nothing holds the loop) and `last_block` may be read from any thread.
    """

    def __init__(
        self,
        *,
        threshold: float = 1.0,
        interval: float = INTERVAL,
        on_lag: Callable[[float], None] = lambda _: None,
        on_block: Callable[[Block], None] = lambda _: None,
    ) -> None:
        self._threshold = threshold
        self._interval = interval
        self._on_lag = on_lag
        self._on_block = on_block
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._beaten = threading.Event()
        self._last_beat = 0.0
        # When the loop was asked what it has not answered yet.
        self._asked: float | None = None
        self.last_lag = 0.0
        self.block: Block | None = None
        self.last_block: Block | None = None

    def __repr__(self) -> str:
        return f"<LoopWatchdog threshold={self._threshold:g} running={self._thread is not None}>"

    def start(self) -> None:
        """Begin to watch the running loop. Again is no news."""
        if self._thread is not None:
            return
        loop = asyncio.get_running_loop()
        self._stopping.clear()
        self._last_beat = time.monotonic()
        self._thread = threading.Thread(
            target=self._watch, args=(loop, threading.get_ident()), name="meshhost loop watchdog", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End within moments."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping.set()
            self._beaten.set()
            thread.join(_STOP_SECONDS)
            self._asked = self.block = None

    def loop_ok(self) -> bool:
        """Whether the loop is not held for longer than the threshold; from any thread. True when not watching."""
        return self.held_seconds() <= self._threshold

    def held_seconds(self) -> float:
        """For how long the loop has not answered now; 0 when it has. From any thread. Goes on growing when the loop is gone."""
        asked = self._asked
        return 0.0 if asked is None else time.monotonic() - asked

    def _watch(self, loop: asyncio.AbstractEventLoop, loop_thread: int) -> None:
        while not self._stopping.wait(self._interval):
            self._beaten.clear()
            if self._stopping.is_set():
                return  # the wake-up that `stop` sent may just have been cleared
            self._asked = asked = time.monotonic()
            try:
                loop.call_soon_threadsafe(self._beat, asked)
            except RuntimeError:  # the loop is closed
                return
            if not self._beaten.wait(self._threshold):
                self._wait_out(loop, loop_thread, asked)

    def _beat(self, asked: float) -> None:
        self._last_beat = time.monotonic()
        self._asked = None
        self.last_lag = self._last_beat - asked
        self._beaten.set()
        self._on_lag(self.last_lag)

    def _wait_out(self, loop: asyncio.AbstractEventLoop, loop_thread: int, asked: float) -> None:
        block = _seen(loop, loop_thread, asked)
        if self._beaten.is_set():
            # It went on while we looked: what we saw may be somebody innocent.
            return
        self.block = block
        self._report("event loop is blocked", block)
        self._beaten.wait()
        self.block = None
        if self._stopping.is_set():
            return
        over = Block(block.began, self._last_beat - asked, block.stack, block.task, block.fields)
        self.last_block = over
        self._report("event loop turns again", over)
        try:
            loop.call_soon_threadsafe(self._on_block, over)
        except RuntimeError:
            logger.debug("the loop was closed after a block")

    def _report(self, sentence: str, block: Block) -> None:
        fields = {**block.fields, "seconds": round(block.seconds, 3), "task": block.task, "stack": block.stack}
        logger.error(sentence, extra=fields)


def _seen(loop: asyncio.AbstractEventLoop, loop_thread: int, asked: float) -> Block:
    frame = sys._current_frames().get(loop_thread)  # noqa: SLF001 - documented for debugging, as here
    task = asyncio.current_task(loop)
    return Block(
        began=asked,
        seconds=time.monotonic() - asked,
        stack="" if frame is None else "".join(traceback.format_stack(frame))[-_MAX_STACK:],
        task="" if task is None else task.get_name(),
        fields={} if frame is None else _log_fields(frame),
    )


def _log_fields(frame: FrameType) -> Mapping[str, object]:
    # Another thread's context can be had only through the handle that asyncio runs in it.
    seen: FrameType | None = frame
    while seen is not None:
        if seen.f_code is _RUN_HANDLE:
            context = getattr(seen.f_locals.get("self"), "_context", None)
            # A copy: a context that is entered cannot be entered again.
            return context.copy().run(current_log_context) if isinstance(context, Context) else {}
        seen = seen.f_back
    return {}


_RUN_HANDLE = asyncio.Handle._run.__code__  # noqa: SLF001 - see `_log_fields`
