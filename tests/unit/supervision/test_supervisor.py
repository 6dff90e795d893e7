"""Agents crash, are started again, drained, aborted and quarantined; their neighbours notice nothing."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from meshhost.errors import ConnectionLostError, InvalidRequestError, LifecycleError, SettingsError
from meshhost.logs import current_log_context
from meshhost.supervision.agent import AgentSpec, SupervisedAgent
from meshhost.supervision.drain import DrainReport, drain_together
from meshhost.supervision.error_report import ErrorReport
from meshhost.supervision.isolation import Aborted, Child, ChildContext, Crashed, Exit, Exited, Run, TaskChild
from meshhost.supervision.policy import RestartPolicy
from meshhost.supervision.state import TERMINAL, State
from meshhost.supervision.supervisor import Supervisor
from meshhost.testing.clock import FakeClock

Add = Callable[..., SupervisedAgent]


class Label(NamedTuple):
    """Whose agent it is, in these tests."""

    tenant: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} at /{self.name}"

    def log_fields(self) -> dict[str, object]:
        return {"tenant": self.tenant}


class Puppet:
    """An agent whose lives end when and how the test says; it leaves when asked unless it is `stubborn`."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.stubborn = stubborn
        self.starts = 0
        self._end: asyncio.Future[None] | None = None

    async def run(self, context: ChildContext) -> None:
        self.starts += 1
        self._end = asyncio.get_running_loop().create_future()
        context.started()
        if self.stubborn:
            await self._end
        else:
            async with asyncio.TaskGroup() as tasks:
                asked = tasks.create_task(context.draining.wait())
                asked.add_done_callback(lambda _: self.end())
                await self._end
                asked.cancel()

    def end(self) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(None)

    def crash(self, error: Exception) -> None:
        assert self._end is not None
        self._end.set_exception(error)


class Immovable:
    """Runs, and leaves only when `gone` is set, whatever is asked of it."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.asked_to_abort = 0

    async def start(self) -> None:
        pass

    async def wait(self) -> Exit:
        await self.gone.wait()
        return Aborted() if self.asked_to_abort else Exited()

    async def drain(self) -> None:
        await self.gone.wait()

    def abort(self) -> None:
        self.asked_to_abort += 1

    def activity(self) -> str | None:
        return None


@pytest.fixture
def add(supervisor: Supervisor) -> Add:
    def add_one(run: Run, name: str = "mail", **fields: Any) -> SupervisedAgent:
        return supervisor.add(AgentSpec(name, Label("acme", name), functools.partial(TaskChild, run, name), **fields))

    return add_one


async def _error_of(awaitable: Awaitable[object]) -> Exception | None:
    try:
        await awaitable
    except LifecycleError as error:
        return error
    return None


async def drained(spawn: SupervisedAgent, grace: float) -> DrainReport:
    return await drain_together((spawn,), spawn._environment.clock, grace=grace)


def spec_of(child: Child, name: str = "mail", **fields: Any) -> AgentSpec:
    return AgentSpec(name, Label("acme", name), lambda: child, **fields)


async def test_an_agent_runs_and_is_found_by_id_and_key(supervisor: Supervisor, add: Add, clock: FakeClock) -> None:
    one, two = add(Puppet().run), add(Puppet().run)

    assert await one.wait_state(State.RUNNING) is State.RUNNING
    assert (supervisor.find(one.id), supervisor.with_key(Label("acme", "mail"))) == (one, (one, two))
    assert one.started_at == clock.time()
    assert (one.name, one.key) == ("mail", Label("acme", "mail"))
    assert "running" in repr(one)
    assert "live=2" in repr(supervisor)

    await supervisor.stop(one, 1)

    assert (supervisor.live, supervisor.finished, supervisor.find(one.id)) == ((two,), (one,), one)
    assert supervisor.with_key(Label("acme", "mail")) == (two,)
    assert supervisor.find("nobody") is None


async def test_an_agent_that_failed_for_good_is_kept_until_another_has_its_key_or_an_hour_is_over(
    supervisor: Supervisor, add: Add, clock: FakeClock
) -> None:
    async def failed(name: str) -> SupervisedAgent:
        async def fails(_: ChildContext) -> None:
            raise ValueError("no such model")

        spawn = add(fails, name, policy=RestartPolicy(kind="temporary"))
        await spawn.wait_state(State.FAILED)
        return spawn

    mail, post = await failed("mail"), await failed("post")
    assert supervisor.failed == (mail, post)
    again = add(Puppet().run, "mail")
    assert supervisor.failed == (post,)
    await supervisor.stop(again, 1)
    assert supervisor.failed == (post,)

    for number in range(100):
        await failed(f"other {number}")
    assert post not in supervisor.failed
    assert len(supervisor.failed) == 100
    await clock.advance(1800)
    last = await failed("last")
    for _ in range(100):
        await supervisor.stop(add(Puppet().run, "busy"), 1)
    assert supervisor.find(last.id) is last  # however many have ended in order since
    await clock.advance(1801)
    assert supervisor.failed == (last,)


async def test_a_crashed_agent_is_started_again_later_and_later(add: Add, clock: FakeClock) -> None:
    puppet = Puppet()
    spawn = add(puppet.run)

    for restarts, wait in enumerate([0.5, 1.0, 2.0], start=1):
        await spawn.wait_state(State.RUNNING)
        puppet.crash(ValueError("no such model"))
        await spawn.wait_state(State.BACKING_OFF)
        await clock.advance(wait - 0.25)
        assert spawn.state is State.BACKING_OFF
        await clock.advance(0.25)
        await spawn.wait_state(State.RUNNING)
        assert spawn.restarts == restarts

    assert puppet.starts == 4
    assert spawn.last_error is not None
    assert (spawn.last_error.type, spawn.last_error.text) == ("ValueError", "no such model")
    assert "Traceback" in spawn.last_error.traceback


async def test_a_run_of_the_whole_window_makes_the_next_wait_short_again(add: Add, clock: FakeClock) -> None:
    puppet = Puppet()
    spawn = add(puppet.run)
    for calm in (0, 60):
        await spawn.wait_state(State.RUNNING)
        await clock.advance(calm)
        puppet.end()
        await spawn.wait_state(State.BACKING_OFF)
        await clock.advance(0.5)

    await spawn.wait_state(State.RUNNING)
    assert spawn.last_error is None


async def test_a_crash_loop_ends_in_failed_with_the_last_error(add: Add, clock: FakeClock) -> None:
    async def broken(context: ChildContext) -> None:
        raise ValueError("no such model")

    spawn = add(broken, policy=RestartPolicy(max_restarts=2))
    async with asyncio.TaskGroup() as tasks:
        disappointed = tasks.create_task(_error_of(spawn.wait_state(State.RUNNING)))
        for wait in (0.5, 1.0):
            await spawn.wait_state(State.BACKING_OFF)
            await clock.advance(wait)

    assert str(disappointed.result()) == "mail is failed for good"

    assert (spawn.state, spawn.restarts) == (State.FAILED, 2)
    assert spawn.reason == "2 restarts within 60 s did not help"
    assert spawn.last_error is not None
    with pytest.raises(LifecycleError, match="for good"):
        await spawn.wait_state(State.RUNNING)
    assert await spawn.wait_state(*TERMINAL) is State.FAILED


async def test_a_transient_agent_may_end_in_order(supervisor: Supervisor, add: Add) -> None:
    puppet = Puppet()
    spawn = add(puppet.run, policy=RestartPolicy(kind="transient"))
    await spawn.wait_state(State.RUNNING)

    puppet.end()

    await spawn.wait_state(State.STOPPED)
    assert spawn.reason == "exit of a transient agent"
    assert supervisor.live == ()


async def test_a_crash_does_not_touch_the_neighbours(supervisor: Supervisor, add: Add) -> None:
    puppet, neighbour = Puppet(), add(Puppet().run, "neighbour")
    spawn = add(puppet.run, policy=RestartPolicy(kind="temporary"))
    await asyncio.gather(spawn.wait_state(State.RUNNING), neighbour.wait_state(State.RUNNING))

    puppet.crash(ValueError("no such model"))

    await spawn.wait_state(State.FAILED)
    assert (neighbour.state, supervisor.live) == (State.RUNNING, (neighbour,))


async def test_a_start_that_hangs_is_a_crash_that_says_so(add: Add, clock: FakeClock) -> None:
    async def hangs(context: ChildContext) -> None:
        await asyncio.Event().wait()

    spawn = add(hangs, start_timeout=20.0, policy=RestartPolicy(kind="temporary"))
    await clock.advance(19)
    assert spawn.state is State.STARTING

    await asyncio.gather(clock.advance(1), spawn.wait_state(State.FAILED))

    assert spawn.last_error is not None
    assert spawn.last_error.text == "the agent did not report running within 20 s"


async def test_a_start_that_hangs_and_will_not_leave_is_not_run_twice(supervisor: Supervisor, clock: FakeClock) -> None:
    class Hangs(Immovable):
        async def start(self) -> None:
            await self.gone.wait()

    child = Hangs()
    spawn = supervisor.add(spec_of(child))
    await clock.advance(30)

    await asyncio.gather(clock.advance(5), spawn.wait_state(State.FAILED))

    assert (spawn.restarts, spawn.reason) == (0, "did not start, and would not leave either")
    assert child.asked_to_abort == 1


async def test_a_start_that_hangs_while_drained_is_named_and_not_given_up(
    supervisor: Supervisor, clock: FakeClock
) -> None:
    class Hangs(Immovable):
        async def start(self) -> None:
            await self.gone.wait()

    child = Hangs()
    spawn = supervisor.add(spec_of(child, start_timeout=1))
    await clock.advance(0)

    report, _ = await asyncio.gather(supervisor.drain_all(10), clock.advance(15))

    assert (report.stuck, spawn.state) == (("mail",), State.DRAINING)
    child.gone.set()
    await spawn.wait_state(State.STOPPED)


@pytest.mark.parametrize("step", [-86_400.0, 86_400.0])
async def test_a_wall_clock_that_is_set_delays_and_hurries_no_restart(
    supervisor: Supervisor, add: Add, clock: FakeClock, step: float
) -> None:
    async def broken(_: ChildContext) -> None:
        raise ValueError

    spawn = add(broken, policy=RestartPolicy(first_delay=10.0, max_delay=10.0, max_restarts=3))
    await clock.advance(1)
    assert spawn.state is State.BACKING_OFF
    clock.step(step)
    await clock.advance(8)
    assert (spawn.state, spawn.restarts) == (State.BACKING_OFF, 0)
    await clock.advance(2)
    assert spawn.restarts == 1


@pytest.mark.parametrize("fault", [ValueError("no settings"), SystemExit(1)])
async def test_a_factory_that_fails_is_a_crash(supervisor: Supervisor, fault: BaseException) -> None:
    def factory() -> Child:
        raise fault

    spawn = supervisor.add(AgentSpec("mail", Label("acme", "mail"), factory, policy=RestartPolicy(kind="temporary")))

    await spawn.wait_state(State.FAILED)
    assert spawn.last_error is not None
    assert spawn.last_error.text in ("no settings", "the agent called exit()")


async def test_an_agent_that_finishes_within_its_grace_is_not_aborted(supervisor: Supervisor, add: Add) -> None:
    spawn = add(Puppet().run)
    await spawn.wait_state(State.RUNNING)

    report = await drained(spawn, 10)

    assert report == DrainReport(finished=("mail",), aborted=(), stuck=())
    assert spawn.state is State.STOPPED
    assert await supervisor.stop(spawn, 10) == DrainReport((), (), ())


async def test_all_drain_at_once_and_who_is_late_is_aborted_and_named(
    supervisor: Supervisor, add: Add, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    spawns = [add(Puppet().run, "quick"), add(Puppet(stubborn=True).run, "late")]
    child = Immovable()
    spawns.append(supervisor.add(spec_of(child, "stuck")))
    for spawn in spawns:
        await spawn.wait_state(State.RUNNING)

    async def time_passes() -> None:
        await clock.advance(9)
        assert [spawn.state for spawn in spawns] == [State.STOPPED, State.DRAINING, State.DRAINING]
        await clock.advance(1)
        await spawns[1].wait_state(State.STOPPED)
        await clock.advance(5)

    report, _ = await asyncio.gather(supervisor.drain_all(10), time_passes())

    assert report == DrainReport(finished=("quick",), aborted=("late",), stuck=("stuck",))
    assert "agents did not end after they were aborted" in caplog.messages
    assert supervisor.live == (spawns[2],)
    with pytest.raises(LifecycleError, match="takes no more"):
        add(Puppet().run)
    child.gone.set()
    await spawns[2].wait_state(State.STOPPED)


async def test_a_second_signal_skips_the_wait(supervisor: Supervisor, add: Add) -> None:
    spawns = [add(Puppet(stubborn=True).run), add(Puppet(stubborn=True).run)]
    for spawn in spawns:
        await spawn.wait_state(State.RUNNING)
    async with asyncio.TaskGroup() as tasks:
        draining = tasks.create_task(supervisor.drain_all(3600))
        await spawns[0].wait_state(State.DRAINING)

        supervisor.abort_all()

    assert draining.result() == DrainReport(finished=(), aborted=("mail", "mail"), stuck=())
    spawns[0].abort()


async def test_a_drain_that_is_cancelled_can_be_waited_for_again(supervisor: Supervisor) -> None:
    child = Immovable()
    spawn = supervisor.add(spec_of(child))
    await spawn.wait_state(State.RUNNING)
    async with asyncio.TaskGroup() as tasks:
        impatient = tasks.create_task(drained(spawn, 10))
        await spawn.wait_state(State.DRAINING)
        impatient.cancel()
    assert (spawn.state, child.asked_to_abort) == (State.DRAINING, 0)

    child.gone.set()

    assert (await drained(spawn, 10)).finished == ("mail",)


async def test_an_agent_can_be_stopped_before_its_first_start(supervisor: Supervisor, add: Add) -> None:
    puppet = Puppet()
    spawn = add(puppet.run)

    assert (await supervisor.stop(spawn, 10)).finished == ("mail",)
    assert puppet.starts == 0


async def test_an_agent_can_be_stopped_while_it_starts(add: Add, clock: FakeClock) -> None:
    async def starts_slowly(context: ChildContext) -> None:
        await context.draining.wait()

    spawn = add(starts_slowly)
    await clock.advance(1)
    assert spawn.state is State.STARTING

    assert (await drained(spawn, 10)).finished == ("mail",)


async def test_an_agent_can_be_stopped_between_two_lives(supervisor: Supervisor, add: Add) -> None:
    puppet = Puppet()
    spawn = add(puppet.run)
    await spawn.wait_state(State.RUNNING)
    puppet.end()
    await spawn.wait_state(State.BACKING_OFF)

    assert (await supervisor.stop(spawn, 10)).finished == ("mail",)
    assert (spawn.state, puppet.starts) == (State.STOPPED, 1)


async def test_a_crash_on_the_way_out_is_told_but_not_raised(add: Add) -> None:
    async def stumbles(context: ChildContext) -> None:
        context.started()
        await context.draining.wait()
        raise OSError("stumbled")

    spawn = add(stumbles)
    await spawn.wait_state(State.RUNNING)

    assert (await drained(spawn, 10)).finished == ("mail",)
    assert spawn.state is State.FAILED
    assert spawn.last_error is not None
    assert spawn.last_error.text == "stumbled"


async def test_a_quarantined_agent_is_held_until_its_release(add: Add, clock: FakeClock) -> None:
    puppet = Puppet(stubborn=True)
    spawn = add(puppet.run)
    await spawn.wait_state(State.RUNNING)

    await spawn.quarantine("tenant acme keeps crashing")
    await clock.advance(3600)

    assert (spawn.state, spawn.reason, puppet.starts) == (State.QUARANTINED, "tenant acme keeps crashing", 1)
    spawn.release()
    await spawn.wait_state(State.RUNNING)
    assert (spawn.reason, puppet.starts, spawn.restarts) == ("", 2, 0)
    with pytest.raises(LifecycleError):
        spawn.release()


async def test_a_quarantined_agent_can_be_stopped(add: Add) -> None:
    spawn = add(Puppet().run)
    await spawn.wait_state(State.RUNNING)
    await spawn.quarantine("noisy")

    await drained(spawn, 10)

    assert spawn.state is State.STOPPED


async def test_an_agent_between_two_lives_can_be_quarantined(add: Add, clock: FakeClock) -> None:
    puppet = Puppet()
    spawn = add(puppet.run)
    await spawn.wait_state(State.RUNNING)
    puppet.end()
    await spawn.wait_state(State.BACKING_OFF)

    await spawn.quarantine("noisy")
    await clock.advance(60)

    assert (spawn.state, puppet.starts) == (State.QUARANTINED, 1)


async def test_an_agent_released_while_it_still_starts_is_started_anew(add: Add, clock: FakeClock) -> None:
    starts = 0

    async def slow_at_first(context: ChildContext) -> None:
        nonlocal starts
        starts += 1
        if starts > 1:
            context.started()
        await asyncio.Event().wait()

    spawn = add(slow_at_first)
    await clock.advance(1)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(spawn.quarantine("noisy"))
        await spawn.wait_state(State.QUARANTINED)
        spawn.release()
        await spawn.wait_state(State.RUNNING)

    assert (starts, spawn.restarts, spawn.last_error) == (2, 0, None)


async def test_an_agent_that_will_not_leave_for_quarantine_has_failed(supervisor: Supervisor, clock: FakeClock) -> None:
    child = Immovable()
    spawn = supervisor.add(spec_of(child))
    await spawn.wait_state(State.RUNNING)

    await asyncio.gather(spawn.quarantine("noisy"), clock.advance(5))

    assert (spawn.state, spawn.reason) == (State.FAILED, "would not leave when it was quarantined")
    child.gone.set()
    await clock.advance(1)
    assert spawn.state is State.FAILED


async def test_supervision_of_one_that_would_not_leave_can_be_cancelled(
    supervisor: Supervisor, clock: FakeClock
) -> None:
    spawn = supervisor.add(spec_of(Immovable()))
    await spawn.wait_state(State.RUNNING)
    await asyncio.gather(spawn.quarantine("noisy"), clock.advance(5))

    assert await supervisor._tasks.stop() == []
    assert spawn.state is State.FAILED


async def test_an_abort_by_a_stranger_is_a_crash(supervisor: Supervisor) -> None:
    child = Immovable()
    spawn = supervisor.add(spec_of(child, policy=RestartPolicy(kind="temporary")))
    await spawn.wait_state(State.RUNNING)

    child.abort()
    child.gone.set()

    await spawn.wait_state(State.FAILED)
    assert spawn.last_error is not None
    assert spawn.last_error.text == "the agent was aborted, but not by its supervisor"


async def test_a_child_that_breaks_its_contract_harms_only_itself(
    supervisor: Supervisor, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Rude(Immovable):
        async def drain(self) -> None:
            raise OSError("will not drain")

        def abort(self) -> None:
            self.gone.set()
            raise OSError("will not abort")

    spawn = supervisor.add(spec_of(Rude()))
    await spawn.wait_state(State.RUNNING)

    await asyncio.gather(supervisor.drain_all(1), clock.advance(1))

    assert spawn.state is State.STOPPED
    assert {"agent could not be drained", "agent could not be aborted"} <= set(caplog.messages)


async def test_a_fault_of_supervision_is_a_failed_agent_and_not_a_silent_one(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    class Unwatchable(Immovable):
        async def wait(self) -> Exit:
            raise OSError("cannot be watched")

    spawn = supervisor.add(spec_of(Unwatchable()))

    await spawn.wait_state(State.FAILED)
    assert spawn.reason == "supervision failed"
    assert "supervision of an agent failed" in caplog.messages


async def test_a_fault_after_the_end_changes_nothing(supervisor: Supervisor, clock: FakeClock) -> None:
    class FailsLate(Immovable):
        async def wait(self) -> Exit:
            await self.gone.wait()
            raise OSError("cannot be watched")

    child = FailsLate()
    spawn = supervisor.add(spec_of(child))
    await spawn.wait_state(State.RUNNING)
    await asyncio.gather(spawn.quarantine("noisy"), clock.advance(5))

    child.gone.set()
    await clock.advance(1)

    assert (spawn.state, spawn.reason) == (State.FAILED, "would not leave when it was quarantined")


async def test_a_child_that_crashes_when_aborted_has_crashed(supervisor: Supervisor) -> None:
    class Clumsy(Immovable):
        async def wait(self) -> Exit:
            await self.gone.wait()
            return Crashed(OSError("stumbled"))

        def abort(self) -> None:
            self.gone.set()

    spawn = supervisor.add(spec_of(Clumsy()))
    await spawn.wait_state(State.RUNNING)

    spawn.abort()

    await spawn.wait_state(State.FAILED)


async def test_an_agent_whose_supervision_is_cancelled_is_aborted_and_not_crashed(
    supervisor: Supervisor, add: Add
) -> None:
    async def brief(context: ChildContext) -> None:
        """Returns at once."""

    running, backing_off = add(Puppet(stubborn=True).run), add(brief)
    await running.wait_state(State.RUNNING)
    await backing_off.wait_state(State.BACKING_OFF)

    assert await supervisor._tasks.stop() == []

    assert [spawn.state for spawn in (running, backing_off)] == [State.STOPPED] * 2
    assert running.last_error is None


async def test_observers_see_each_change_and_a_failing_one_harms_nobody(
    supervisor: Supervisor, add: Add, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(spawn: SupervisedAgent, old: State, new: State) -> None:
        raise ValueError("metrics are down")

    seen: list[tuple[State, State]] = []
    supervisor.on_change += [failing, lambda spawn, old, new: seen.append((old, new))]
    spawn = add(Puppet().run)
    await spawn.wait_state(State.RUNNING)

    await drained(spawn, 1)

    assert seen == [
        (State.STARTING, State.RUNNING),
        (State.RUNNING, State.DRAINING),
        (State.DRAINING, State.STOPPED),
    ]
    assert caplog.messages.count("observer of agents failed") == 3


async def test_what_an_agent_logs_carries_whose_it_is(supervisor: Supervisor, add: Add) -> None:
    inside: dict[str, object] = {}

    async def agent(context: ChildContext) -> None:
        inside.update(current_log_context())
        assert len(current_log_context()) == len(inside)

    spawn = add(agent, policy=RestartPolicy(kind="temporary"))
    await spawn.wait_state(State.STOPPED)

    assert inside == {"tenant": "acme", "agent": "mail", "spawn_id": spawn.id}
    assert current_log_context() == {}


async def test_a_restart_is_logged_with_the_wait_and_the_error(add: Add, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(context: ChildContext) -> None:
        raise ValueError("no such model")

    spawn = add(broken)
    await spawn.wait_state(State.BACKING_OFF)

    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.message == "agent ended and will be started again"
    assert (record.__dict__["tenant"], record.__dict__["retry_in"]) == ("acme", 0.5)
    assert record.exc_info is not None
    assert record.__dict__["error"] == "ValueError: no such model"


async def test_the_traceback_of_an_error_is_logged_once_and_its_line_each_time(
    add: Add, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(context: ChildContext) -> None:
        raise ValueError("no such model")

    spawn = add(broken, policy=RestartPolicy(max_restarts=2))
    for wait in (0.5, 1.0):
        await spawn.wait_state(State.BACKING_OFF)
        await clock.advance(wait)
    await spawn.wait_state(State.FAILED)

    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.__dict__["error"] for record in records] == ["ValueError: no such model"] * 3
    assert [record.exc_info is not None for record in records] == [True, False, False]


@pytest.mark.parametrize("error", [SettingsError("no queue"), InvalidRequestError("queue", "is missing")])
async def test_an_error_that_says_what_is_wrong_is_logged_in_one_line(
    add: Add, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def broken(context: ChildContext) -> None:
        raise error

    spawn = add(broken, policy=RestartPolicy(kind="temporary"))
    await spawn.wait_state(State.FAILED)

    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (record.exc_info, record.__dict__["error"]) == (None, f"{type(error).__name__}: {error}")


async def test_only_the_last_hundred_ended_agents_are_remembered(supervisor: Supervisor, add: Add) -> None:
    async def brief(context: ChildContext) -> None:
        """Returns at once."""

    spawns = [add(brief, policy=RestartPolicy(kind="temporary")) for _ in range(105)]
    for spawn in spawns:
        await spawn.wait_state(State.STOPPED)

    assert supervisor.finished == tuple(spawns[-100:])
    assert supervisor.find(spawns[0].id) is None
    assert supervisor._by_key == {}


async def test_who_gives_up_waiting_for_a_state_leaves_nothing_behind(add: Add) -> None:
    spawn = add(Puppet().run)
    async with asyncio.TaskGroup() as tasks:
        cancelled, other, disappointed = (
            tasks.create_task(spawn.wait_state(*states))
            for states in ([State.RUNNING], [State.RUNNING, State.FAILED], [State.STOPPED])
        )
        cancelled_late = tasks.create_task(spawn.wait_state(State.FAILED))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert await other is State.RUNNING
        cancelled_late.cancel()
        await drained(spawn, 1)

    assert disappointed.result() is State.STOPPED
    assert spawn._waiters == ()


def test_a_failure_is_bounded_and_survives_an_error_that_cannot_be_shown() -> None:
    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise ValueError("no")

    def deep(level: int) -> None:
        if level == 0:
            raise ValueError("x" * 5000)
        deep(level - 1)

    assert ErrorReport.of(UnprintableError()).text == "(the error cannot be shown as text)"
    with pytest.raises(ValueError, match="x") as caught:
        deep(50)
    failure = ErrorReport.of(caught.value)
    assert (len(failure.text), len(failure.traceback)) == (1_000, 2_048)


async def test_an_agent_that_cannot_reach_its_room_is_not_given_up(
    supervisor: Supervisor, add: Add, clock: FakeClock
) -> None:
    async def unreachable(_: ChildContext) -> None:
        raise ConnectionLostError("cannot reach the room server")

    spawn = add(unreachable, policy=RestartPolicy(max_restarts=2, window_seconds=1000, max_delay=10))
    for _ in range(20):
        await clock.advance(10)
    assert spawn.state is State.BACKING_OFF
    assert spawn.restarts >= 15
    await supervisor.stop(spawn)
    once = add(unreachable, policy=RestartPolicy(kind="temporary"))
    await once.wait_state(State.FAILED)
