"""Agents leave together, each within its own time; the log tells who is still there, and why."""

import asyncio
import logging
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshhost.supervision import isolation
from meshhost.supervision.agent import CLEANUP_SECONDS, AgentSpec, SupervisedAgent
from meshhost.supervision.drain import DrainReport, drain_together
from meshhost.supervision.isolation import ChildContext, TaskChild
from meshhost.supervision.state import State
from meshhost.supervision.supervisor import Supervisor
from meshhost.testing.clock import FakeClock


class Busy:
    """Leaves so many seconds after it was asked to (None: only when it is cancelled), and notes when it left."""

    def __init__(self, clock: FakeClock, seconds: float | None, activity: Any = None) -> None:
        self.activity = activity
        self.left_at: float | None = None
        self._clock = clock
        self._seconds = seconds

    async def run(self, context: ChildContext) -> None:
        context.current = self
        context.started()
        try:
            await context.draining.wait()
            if self._seconds is None:
                await asyncio.Event().wait()
            else:
                await self._clock.sleep(self._seconds)
        finally:
            self.left_at = self._clock.monotonic()


class Deaf(Busy):
    """Does not even leave when it is cancelled, until `gone` is set."""

    gone = False

    async def run(self, context: ChildContext) -> None:
        context.current = self
        context.started()
        while not self.gone:
            try:
                await self._clock.sleep(1.0)
            except asyncio.CancelledError:
                continue


class Label(NamedTuple):
    """Whose agent it is, in these tests."""

    tenant: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} at /{self.name}"

    def log_fields(self) -> dict[str, object]:
        return {"tenant": self.tenant}


def add_to(
    supervisor: Supervisor, agent: Busy, name: str = "mail", *, seconds: float = 10.0, **fields: Any
) -> SupervisedAgent:
    """`seconds` is how long it may take to leave."""
    return supervisor.add(
        AgentSpec(name, Label("acme", name), lambda: TaskChild(agent.run, name), drain_seconds=seconds, **fields)
    )


async def run(spawns: list[SupervisedAgent]) -> None:
    for spawn in spawns:
        await spawn.wait_state(State.RUNNING)


def records(caplog: pytest.LogCaptureFixture, sentence: str) -> list[Any]:
    return [record for record in caplog.records if record.getMessage() == sentence]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 12), st.none() | st.integers(0, 12)), min_size=1, max_size=6))
def test_each_leaves_in_its_own_time_and_the_drain_ends_with_the_last(agents: list[tuple[int, int | None]]) -> None:
    """Nobody is kept waiting by another's long time, nor cut short by another's short one."""

    async def law() -> None:
        clock = FakeClock()
        supervisor = Supervisor(clock=clock)
        busy = [Busy(clock, takes) for _, takes in agents]
        spawns = [add_to(supervisor, one, seconds=may + 0.5) for one, (may, _) in zip(busy, agents, strict=True)]
        await run(spawns)
        began = clock.monotonic()
        async with asyncio.TaskGroup() as tasks:
            draining = tasks.create_task(supervisor.drain_all())
            draining.add_done_callback(lambda _: ended.append(clock.monotonic() - began))
            ended: list[float] = []
            for _ in range(40):
                for _ in range(5):  # what is due now has turns of the loop enough to take effect
                    await clock.advance(0)
                await clock.advance(0.5)
        expected = [may + 0.5 if takes is None else min(takes, may + 0.5) for may, takes in agents]
        assert [one.left_at - began for one in busy if one.left_at is not None] == expected
        assert [spawn.aborted for spawn in spawns] == [takes is None or takes > may for may, takes in agents]
        assert max(expected) <= ended[0] <= max(expected) + 0.5
        assert not draining.result().stuck

    asyncio.run(law())


async def test_a_drain_that_comes_later_lengthens_no_time_that_runs(supervisor: Supervisor, clock: FakeClock) -> None:
    late, other = Busy(clock, None), Busy(clock, None)
    spawns = [add_to(supervisor, late, seconds=10), add_to(supervisor, other, seconds=10)]
    await run(spawns)
    assert spawns[0].seconds_left is None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.stop(spawns[0]))
        await clock.advance(8)
        assert (spawns[0].seconds_left, spawns[1].seconds_left) == (2, None)
        tasks.create_task(supervisor.drain_all())
        await clock.advance(2)
        assert (spawns[0].state, spawns[1].state, spawns[1].seconds_left) == (State.STOPPED, State.DRAINING, 8)
        assert spawns[0].seconds_left is None
        # The second signal, in effect: no time at all from now on.
        tasks.create_task(supervisor.drain_all(0))
        await clock.advance(0)
        assert spawns[1].state is State.STOPPED


async def test_who_will_not_leave_is_waited_for_until_the_last_deadline(
    supervisor: Supervisor, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    deaf = Deaf(clock, None, "nothing good")
    spawns = [add_to(supervisor, deaf, "deaf", seconds=3), add_to(supervisor, Busy(clock, 30), "slow", seconds=60)]
    await run(spawns)
    began = clock.monotonic()
    async with asyncio.TaskGroup() as tasks:
        draining = tasks.create_task(supervisor.drain_all())
        await clock.advance(29)
        assert not draining.done()
        await clock.advance(1)
        # Its abort was long ago: it is not waited for any more when all others have left.
        assert draining.result() == DrainReport(finished=("slow",), aborted=(), stuck=("deaf",))
    assert clock.monotonic() - began == 30
    [late] = records(caplog, "agents are aborted at their deadline")
    assert (late.agents, late.others) == (["deaf at /deaf: 0 s left, nothing good"], 0)
    [stuck] = records(caplog, "agents did not end after they were aborted")
    assert stuck.agents == ["deaf at /deaf: aborted, nothing good"]
    deaf.gone = True
    await clock.advance(1)


async def test_an_aborted_agent_has_a_little_time_to_clean_up(supervisor: Supervisor, clock: FakeClock) -> None:
    deaf = Deaf(clock, None)
    spawn = add_to(supervisor, deaf, seconds=1)
    await run([spawn])
    async with asyncio.TaskGroup() as tasks:
        draining = tasks.create_task(supervisor.stop(spawn))
        await clock.advance(1 + CLEANUP_SECONDS - 0.5)
        assert (spawn.aborted, draining.done()) == (True, False)
        await clock.advance(0.5)
        assert draining.result().stuck == ("mail",)
    deaf.gone = True
    await clock.advance(1)


async def test_the_log_tells_every_few_seconds_who_is_still_there_and_why(
    supervisor: Supervisor, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    quick = Busy(clock, 7, "a task for 3 s")
    spawns = [
        add_to(supervisor, quick, "quick", seconds=20),
        add_to(supervisor, Busy(clock, None), "late", seconds=12),
        *(add_to(supervisor, Busy(clock, 8), f"many{number}", seconds=30) for number in range(10)),
    ]
    await run(spawns)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.drain_all())
        for _ in range(24):
            await clock.advance(0.5)
    [begin] = records(caplog, "agents are asked to leave")
    assert (begin.agents, begin.seconds) == (12, 30)
    first, second = records(caplog, "agents still draining")
    assert first.agents[:3] == [
        "late at /late: 7 s left",
        "quick at /quick: 15 s left, a task for 3 s",
        "many0 at /many0: 25 s left",
    ]
    assert (len(first.agents), first.others) == (10, 2)
    assert (second.agents, second.others) == (["late at /late: 2 s left"], 0)
    [late] = records(caplog, "agents are aborted at their deadline")
    assert late.agents == ["late at /late: 0 s left"]
    [end] = records(caplog, "agents drained")
    assert (end.finished, end.aborted, end.stuck) == (11, ("late",), ())


async def test_nothing_is_told_of_an_empty_host_nor_of_a_single_agent(
    supervisor: Supervisor, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    spawn = add_to(supervisor, Busy(clock, 6))
    await run([spawn])
    caplog.set_level(logging.INFO, "meshhost.supervision.drain")
    caplog.clear()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.stop(spawn))
        await clock.advance(6)
    await supervisor.drain_all()
    assert [record for record in caplog.records if record.name == "meshhost.supervision.drain"] == []
    assert await drain_together((spawn,), clock, log_progress=True) == DrainReport((), (), ())


async def test_an_agent_tells_what_it_does(supervisor: Supervisor, clock: FakeClock) -> None:
    agent = Busy(clock, 1, "a message of queue 'jobs' for 12 s")
    spawn = add_to(supervisor, agent)
    assert spawn.activity is None
    await run([spawn])
    assert spawn.activity == agent.activity
    agent.activity = None
    assert spawn.activity is None
    agent.activity = "x" * 1000
    assert spawn.activity == "x" * isolation.MAX_ACTIVITY
    agent.activity = lambda: "not a text"
    assert spawn.activity is None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.stop(spawn))
        await clock.advance(1)
    assert spawn.activity is None


async def test_an_agent_whose_activity_fails_is_no_trouble(supervisor: Supervisor, clock: FakeClock) -> None:
    class Broken(Busy):
        def __getattribute__(self, name: str) -> Any:
            if name == "activity":
                raise OSError("no idea")
            return super().__getattribute__(name)

    spawn = add_to(supervisor, Broken(clock, 0))
    await run([spawn])
    assert spawn.activity is None


async def test_one_that_still_starts_when_it_is_to_leave_is_named_with_its_start(
    supervisor: Supervisor, clock: FakeClock
) -> None:
    async def never(_: ChildContext) -> None:
        await asyncio.Event().wait()

    spawn = supervisor.add(AgentSpec("mail", Label("acme", "mail"), lambda: TaskChild(never, "mail"), drain_seconds=2))
    await clock.advance(1)
    assert (spawn.state, spawn.activity) == (State.STARTING, None)
    async with asyncio.TaskGroup() as tasks:
        draining = tasks.create_task(supervisor.drain_all())
        await clock.advance(1)
        assert (spawn.state, spawn.activity) == (State.DRAINING, "its start")
        await clock.advance(1)
        assert draining.result().aborted == ("mail",)


async def test_a_child_that_never_began_does_nothing() -> None:
    async def never(_: ChildContext) -> None:
        raise AssertionError

    assert TaskChild(never, "mail").activity() is None
