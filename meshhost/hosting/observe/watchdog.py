"""Notices when something blocks the event loop, and says which agent it is.

A thread asks the loop every 100 ms to run a callback and measures how long that takes: the loop's lag. When it takes longer
than the threshold, the thread looks at what the loop's thread executes and in which agent's context, and logs that while the
block goes on. `Health` reads the state from its own thread, since a blocked loop answers no HTTP.

The thread only reads; observers run in the loop (`_beat`, and `on_block` when a block is over). All attributes that both
sides use are assigned as a whole, which is atomic under the interpreter lock, so there is no lock here.
"""

import asyncio
import logging
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from meshhost.hosting.agents.current import current_agent
from meshhost.identity.tenant import AgentKey
from meshhost.logs import current_log_context

__all__ = ["Block", "LoopWatchdog"]

logger = logging.getLogger(__name__)

INTERVAL = 0.1
_MAX_STACK = 4_000
_MAX_FRAMES = 15
# Of those, the frames of the program, which say more than those of the libraries that it calls.
_OWN_FRAMES = 10
_LIBRARIES = (
    *(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    f"{Path(__file__).parents[2]}/",
    "<frozen ",
)
_STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Block:
    """Something blocked the loop. `agent` is whose code it was, None when it was none or is not known.

    `fields` is its log context, for the log only. `seconds` is how long, as of when this was made: the block may go on. `began`
    is on the clock of time.monotonic().
    """

    began: float
    seconds: float
    stack: str
    task: str
    agent: AgentKey | None = None
    fields: Mapping[str, object] = field(default_factory=dict)


class LoopWatchdog:
    """Watches the loop in which it is started.

    `on_lag` observers get each measured lag in seconds, `on_block` observers each block when it is over; both are called in
    the loop. Times in seconds. `last_lag`, `block` (as first seen; None when the loop is not blocked) and `last_block` may be
    read from any thread.
    """

    def __init__(
        self,
        *,
        threshold: float = 1.0,
        interval: float = INTERVAL,
    ) -> None:
        self._threshold = threshold
        self._interval = interval
        self.on_lag: list[Callable[[float], None]] = []
        self.on_block: list[Callable[[Block], None]] = []
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._beaten = threading.Event()
        self._last_beat = 0.0
        # When the loop was asked for the beat that it has not answered yet.
        self._asked: float | None = None
        self.last_lag = 0.0
        self.block: Block | None = None
        self.last_block: Block | None = None

    def __repr__(self) -> str:
        return f"<LoopWatchdog threshold={self._threshold:g} running={self._thread is not None}>"

    def start(self) -> None:
        """Begin to watch the running loop. Idempotent."""
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
        """Stop watching; ends the thread within 2 s."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping.set()
            self._beaten.set()
            thread.join(_STOP_SECONDS)
            self._asked = self.block = None

    def loop_ok(self) -> bool:
        """Whether the loop is not blocked for longer than the threshold. From any thread. True when not watching."""
        return self.held_seconds() <= self._threshold

    def held_seconds(self) -> float:
        """Seconds that the loop has not answered; 0 when it has. From any thread. Keeps growing when the loop is closed."""
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
        for observer in self.on_lag:
            observer(self.last_lag)

    def _wait_out(self, loop: asyncio.AbstractEventLoop, loop_thread: int, asked: float) -> None:
        block = _seen(loop, loop_thread, asked)
        if self._beaten.is_set():
            # The loop went on while we looked: what we saw may not be what blocked it.
            return
        self.block = block
        self._report("event loop is blocked", block)
        self._beaten.wait()
        self.block = None
        if self._stopping.is_set():
            return
        over = Block(block.began, self._last_beat - asked, block.stack, block.task, block.agent, block.fields)
        self.last_block = over
        self._report("event loop runs again", over)
        try:
            loop.call_soon_threadsafe(self._block_over, over)
        except RuntimeError:
            logger.debug("the loop was closed after a block")

    def _block_over(self, block: Block) -> None:
        for observer in self.on_block:
            observer(block)

    def _report(self, sentence: str, block: Block) -> None:
        fields = {**block.fields, "seconds": round(block.seconds, 3), "task": block.task, "stack": block.stack}
        logger.error(sentence, extra=fields)


def _seen(loop: asyncio.AbstractEventLoop, loop_thread: int, asked: float) -> Block:
    frame = sys._current_frames().get(loop_thread)  # noqa: SLF001 - documented for debugging, as here
    task = asyncio.current_task(loop)
    context = None if frame is None else _context_of(frame)
    return Block(
        began=asked,
        seconds=time.monotonic() - asked,
        stack="" if frame is None else _readable(frame),
        task="" if task is None else task.get_name(),
        agent=None if context is None else context.run(current_agent),
        fields={} if context is None else context.run(current_log_context),
    )


def _readable(frame: FrameType) -> str:
    """The stack as text, innermost call last: the program's own frames and the innermost others, at most 15."""
    stack = traceback.extract_stack(frame)
    own = [number for number, one in enumerate(stack) if not one.filename.startswith(_LIBRARIES)][-_OWN_FRAMES:]
    others = [number for number in range(len(stack)) if number not in own][-(_MAX_FRAMES - len(own)) :]
    shown = sorted([*own, *others])
    lines, last = [], -1
    for number in shown:
        if number > last + 1:
            lines.append(f"  … {number - last - 1} more\n")
        lines += traceback.format_list([stack[number]])
        last = number
    return "".join(lines)[-_MAX_STACK:]


def _context_of(frame: FrameType) -> Context | None:
    """A copy of the context in which asyncio runs the code of this frame; None outside of asyncio."""
    # Another thread's context can only be reached through the asyncio handle that runs in it.
    seen: FrameType | None = frame
    while seen is not None:
        if seen.f_code is _RUN_HANDLE:
            context = getattr(seen.f_locals.get("self"), "_context", None)
            # A copy: a context that is entered cannot be entered a second time.
            return context.copy() if isinstance(context, Context) else None
        seen = seen.f_back
    return None


_RUN_HANDLE = asyncio.Handle._run.__code__  # noqa: SLF001 - see `_context_of`
