"""Who holds the event loop is seen from outside."""

import asyncio
import copy
import logging
import re
import threading
import time

import pytest

from meshhost.hosting.agents.current import acting_for
from meshhost.hosting.observe import watchdog as watchdog_module
from meshhost.hosting.observe.watchdog import Block, LoopWatchdog
from meshhost.identity.tenant import AgentKey, RoomKey, TenantId
from meshhost.logs import log_context

GREEDY = AgentKey(RoomKey(TenantId("acme"), "room"), "/greedy", "greedy")


class Watched:
    """A watchdog with a short threshold, and what it told."""

    def __init__(self, threshold: float = 0.1) -> None:
        self.lags: list[float] = []
        self.blocks: asyncio.Queue[Block] = asyncio.Queue()
        self.turned = asyncio.Event()
        self.watchdog = LoopWatchdog(threshold=threshold, interval=0.01)
        self.watchdog.on_lag.append(self._lagged)
        self.watchdog.on_block.append(self.blocks.put_nowait)

    def _lagged(self, seconds: float) -> None:
        self.lags.append(seconds)
        self.turned.set()


async def hold(seconds: float) -> None:
    with acting_for(GREEDY), log_context(agent="greedy", path="/greedy"):
        time.sleep(seconds)  # noqa: ASYNC251 - that is the point


async def test_a_block_is_told_with_its_agent_its_task_and_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.watchdog.start()
    async with asyncio.timeout(10):
        await watched.turned.wait()
        await asyncio.create_task(hold(0.4), name="greedy task")
        block = await watched.blocks.get()
    watched.watchdog.stop()

    assert (block.agent, block.fields["agent"], block.task) == (GREEDY, "greedy", "greedy task")
    assert "time.sleep(seconds)" in block.stack
    # No upper bound: a busy machine may hold the thread up. That it ended is what the second record says.
    assert block.seconds > 0.2
    assert watched.watchdog.last_block == block
    assert max(watched.lags) > 0.2
    records = [record for record in caplog.records if record.name == watchdog_module.__name__]
    assert [record.getMessage() for record in records] == ["event loop is blocked", "event loop runs again"]
    assert [record.path for record in records] == ["/greedy", "/greedy"]
    assert records[0].levelno == logging.ERROR


async def test_a_deep_stack_is_cut_to_the_programs_frames_and_the_innermost_ones() -> None:
    def slow(seconds: float) -> float:
        time.sleep(seconds)
        return 1.0

    async def copies_a_deep_value() -> None:
        class Slow:
            def __deepcopy__(self, memo: object) -> float:
                return slow(0.4)

        value: object = Slow()
        for _ in range(30):
            value = [value]
        copy.deepcopy(value)

    watched = Watched()
    watched.watchdog.start()
    async with asyncio.timeout(10):
        await watched.turned.wait()
        await asyncio.create_task(copies_a_deep_value())
        block = await watched.blocks.get()
    watched.watchdog.stop()

    frames = [line for line in block.stack.splitlines() if line.startswith("  File ")]
    assert len(frames) == 15
    assert "copies_a_deep_value" in block.stack
    assert frames[-1].endswith("in slow")
    assert re.search(r"^  … \d+ more$", block.stack, re.MULTILINE)


async def test_short_work_is_no_block() -> None:
    watched = Watched(threshold=2.0)
    watched.watchdog.start()
    async with asyncio.timeout(10):
        await watched.turned.wait()
        await hold(0.05)
        watched.turned.clear()
        await watched.turned.wait()
    watched.watchdog.stop()
    assert watched.watchdog.last_block is None


async def test_whether_the_loop_turns_is_known_to_other_threads() -> None:
    watched = Watched()
    assert watched.watchdog.loop_ok()
    watched.watchdog.start()
    watched.watchdog.start()
    async with asyncio.timeout(10):
        await watched.turned.wait()
    seen: list[bool] = [watched.watchdog.loop_ok()]
    looking = threading.Timer(0.25, lambda: seen.append(watched.watchdog.loop_ok()))
    looking.start()
    time.sleep(0.5)  # noqa: ASYNC251 - that is the point
    looking.join()
    held = watched.watchdog.held_seconds()
    watched.watchdog.stop()
    watched.watchdog.stop()
    assert seen == [True, False]
    assert held > 0.2
    assert watched.watchdog.held_seconds() == 0


async def test_who_holds_the_loop_is_told_while_it_goes_on() -> None:
    told, seen = threading.Event(), list[Block | None]()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "event loop is blocked":
                seen.append(watched.watchdog.block)
                told.set()

    def hold_until_told() -> bool:
        with acting_for(GREEDY):
            return told.wait(10)

    handler = Handler()
    logging.getLogger(watchdog_module.__name__).addHandler(handler)
    watched = Watched()
    watched.watchdog.start()
    try:
        async with asyncio.timeout(10):
            await watched.turned.wait()
            # The loop is held until the report comes, so it can only have been made while the block went on.
            assert hold_until_told()
            await watched.blocks.get()
    finally:
        logging.getLogger(watchdog_module.__name__).removeHandler(handler)
        watched.watchdog.stop()
    [block] = seen
    assert block is not None
    assert "told.wait(10)" in block.stack
    assert block.agent == GREEDY
    assert watched.watchdog.block is None


def watching() -> threading.Thread:
    """The thread of the watchdog that runs."""
    [thread] = [thread for thread in threading.enumerate() if thread.name == "meshhost loop watchdog"]
    return thread


def test_a_loop_that_is_gone_counts_as_held() -> None:
    watchdog = LoopWatchdog(interval=0.01, threshold=0.05)

    async def run() -> threading.Thread:
        watchdog.start()
        return watching()

    asyncio.run(run()).join(5)
    first = watchdog.held_seconds()
    assert watchdog.held_seconds() >= first > 0


def test_it_ends_with_its_loop() -> None:
    async def run() -> threading.Thread:
        LoopWatchdog(interval=0.01).start()
        return watching()

    thread = asyncio.run(run())
    thread.join(30)
    assert not thread.is_alive()


def test_a_frame_outside_of_asyncio_has_no_context() -> None:
    import sys

    assert watchdog_module._context_of(sys._getframe()) is None


async def test_a_stop_that_comes_between_two_beats_is_not_lost() -> None:
    class ClearedLate(threading.Event):
        """Cleared only after somebody has set it: the worst moment for a stop."""

        def clear(self) -> None:
            reached.set()
            self.wait(10)
            super().clear()

    reached = threading.Event()

    watched = Watched(threshold=1000)
    watched.watchdog._beaten = ClearedLate()
    watched.watchdog.start()
    thread = watching()
    assert await asyncio.to_thread(reached.wait, 10)
    watched.watchdog.stop()
    assert not thread.is_alive()
