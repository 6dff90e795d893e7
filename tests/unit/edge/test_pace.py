"""How fast connections are accepted: by what they cost, and by what else the event loop does."""

import asyncio
from pathlib import Path

import pytest

from meshhost.edge.pace import _UNSEEN, Newcomer, Pace, waited_for_cpu

COST = 0.001


class Loop:
    """An event loop's time and its thread's CPU time, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.used = 5.0
        self.starved = 3.0
        self.others = 0.0
        self.pace = Pace(0.25, clock=lambda: self.now, cpu=lambda: self.used, starved=lambda: self.starved)

    def work(self, seconds: float) -> None:
        """Work for those who are known, and wait `others` times as long for a CPU."""
        self.now += seconds * (1 + self.others)
        self.used += seconds
        self.starved += seconds * self.others

    def wait(self, seconds: float) -> None:
        """Do nothing."""
        self.now += seconds

    def serve_newcomer(self) -> None:
        """Accept a connection, and find out who it is, in COST seconds of which some are seen."""
        self.pace.accept()
        newcomer = Newcomer(self.pace)
        with newcomer:
            self.work(COST - _UNSEEN)
        newcomer.end()
        self.work(_UNSEEN)

    def accepted(self, seconds: float, *, busy: float = 0.0) -> int:
        """How many are accepted in some time, of which the loop works a share for others."""
        count, end = 0, self.now + seconds
        while self.now < end:
            if self.pace.wait() == 0:
                self.serve_newcomer()
                count += 1
            else:
                self.wait(0.001 * (1 - busy))
            self.work(0.001 * busy)
        return count


def test_an_idle_loop_accepts_as_fast_as_it_can() -> None:
    assert Loop().accepted(1.0) == pytest.approx(1000, abs=5)


def test_a_crowd_is_spread_while_somebody_known_is_there_however_idle_the_loop_is() -> None:
    loop = Loop()
    loop.accepted(1.0, busy=0.5)
    for _ in range(100):  # of 10 ms, for which the loop works 1
        loop.pace.has_known_work = True
        loop.work(0.001)
        loop.wait(0.009)
        loop.pace.wait()
    at_once = 0
    while loop.pace.wait() == 0 and at_once < 16:
        loop.pace.accept()
        at_once += 1
    assert at_once <= 5


@pytest.mark.parametrize("busy", [0.4, 0.7, 1.0])
def test_a_loop_with_other_work_gives_newcomers_their_share(busy: float) -> None:
    loop = Loop()
    loop.accepted(1.0, busy=busy)  # until the cost of one is learned
    assert loop.accepted(4.0, busy=busy) * COST / 4.0 == pytest.approx(0.25, rel=0.15)
    assert loop.pace.cost == pytest.approx(COST, rel=0.01)


def test_somebody_known_who_is_slowed_down_and_asks_for_little_counts_too() -> None:
    loop = Loop()
    loop.accepted(1.0)
    count, end = 0, loop.now + 4.0
    while loop.now < end:
        loop.pace.has_known_work = True
        if loop.pace.wait() == 0:
            loop.serve_newcomer()
            count += 1
        else:
            loop.work(0.0005)
    assert count * COST / 4.0 == pytest.approx(0.25, rel=0.15)


@pytest.mark.parametrize("others", [1.0, 9.0])
def test_the_share_is_one_of_what_other_processes_leave(others: float) -> None:
    loop = Loop()
    loop.others = others
    loop.accepted(5.0, busy=1.0)
    assert loop.accepted(20.0, busy=1.0) * COST * (1 + others) / 20.0 == pytest.approx(0.25, rel=0.2)


def test_the_system_says_how_long_a_thread_waited_for_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waited_for_cpu() >= 0
    monkeypatch.setattr("meshhost.edge.pace._SCHEDULED", Path("/nowhere/schedstat"))
    assert waited_for_cpu() == 0.0


def test_the_share_is_not_saved_for_a_burst() -> None:
    loop = Loop()
    loop.accepted(1.0, busy=0.5)
    for _ in range(200):  # nobody comes
        loop.work(0.05)
        loop.pace.wait()
    count = 0
    while loop.pace.wait() == 0:
        loop.pace.accept()
        count += 1
    assert count <= 3
    assert 0 < loop.pace.wait() <= COST / 0.25


def test_one_measurement_says_little_however_large_it_is() -> None:
    loop = Loop()
    newcomer = Newcomer(loop.pace)
    with newcomer:
        loop.work(50.0)
    newcomer.end()
    assert loop.pace.cost < 0.001


def test_a_sender_that_takes_longer_to_check_costs_that_much_more_and_no_multiple_of_it() -> None:
    pace = Loop().pace
    for _ in range(200):
        pace.learn(0.001)
    assert pace.cost == pytest.approx(0.001 + _UNSEEN)


def test_a_newcomer_that_ends_while_it_is_measured_counts_once() -> None:
    loop = Loop()
    newcomer = Newcomer(loop.pace)
    before = loop.pace.cost
    with newcomer:
        loop.work(before - _UNSEEN)
        newcomer.end()
        loop.work(1.0)
    assert loop.pace.cost == pytest.approx(before)


async def test_what_others_do_while_a_newcomer_waits_is_not_its_cost() -> None:
    loop, go = Loop(), asyncio.Event()
    before, newcomer = loop.pace.cost, Newcomer(loop.pace)

    async def handle() -> str:
        for _ in range(2):
            loop.work((before - _UNSEEN) / 2)
            asyncio.get_running_loop().call_soon(others)
            await go.wait()
            go.clear()
        newcomer.end()
        loop.work(1.0)  # for somebody known
        await asyncio.sleep(0)
        return "answer"

    def others() -> None:
        loop.work(1.0)
        go.set()

    assert await newcomer.measured(handle()) == "answer"
    assert loop.pace.cost == pytest.approx(before)


@pytest.mark.parametrize("is_known", [False, True])
async def test_a_newcomer_that_is_measured_can_be_cancelled_and_fail(is_known: bool) -> None:
    newcomer = Newcomer(Loop().pace)

    async def handle() -> None:
        if is_known:
            newcomer.end()
        await asyncio.sleep(0)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            raise KeyError from None

    async def handling() -> None:
        await newcomer.measured(handle())

    task = asyncio.ensure_future(handling())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(KeyError):
        await task
