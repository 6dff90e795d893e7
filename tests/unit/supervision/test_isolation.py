"""An agent as a task."""

import asyncio

import pytest

from meshhost.errors import LifecycleError, MeshhostError
from meshhost.supervision.deadlines import deadline
from meshhost.supervision.isolation import Aborted, ChildContext, Crashed, Exited, TaskChild, in_tasks
from meshhost.tasks import TaskOwner
from meshhost.testing.clock import FakeClock


async def polite(context: ChildContext) -> None:
    context.started()
    await context.draining.wait()


async def deaf(context: ChildContext) -> None:
    context.started()
    await asyncio.Event().wait()


async def broken(context: ChildContext) -> None:
    raise ValueError("no such model")


async def brief(context: ChildContext) -> None:
    """Returns without a word."""


async def test_start_returns_when_the_agent_runs_and_again_at_once() -> None:
    child = TaskChild(polite, "mail")
    await child.start()
    await child.start()

    await child.drain()

    assert await child.wait() == await child.wait() == Exited()
    assert "mail" in repr(child)


async def test_a_crash_before_running_is_raised_by_start_and_told_by_wait() -> None:
    child = TaskChild(broken, "mail")

    with pytest.raises(ValueError, match="no such model"):
        await child.start()

    assert isinstance(ending := await child.wait(), Crashed)
    assert str(ending.error) == "no such model"


async def test_an_agent_that_returns_without_a_word_has_started_and_exited() -> None:
    child = TaskChild(brief, "mail")

    await child.start()

    assert await child.wait() == Exited()


async def test_exit_called_by_an_agent_ends_only_the_agent() -> None:
    async def leaver(context: ChildContext) -> None:
        raise SystemExit(3)

    child = TaskChild(leaver, "mail")

    with pytest.raises(MeshhostError, match="raised SystemExit"):
        await child.start()


async def test_an_aborted_agent_is_not_a_crashed_one() -> None:
    child = TaskChild(deaf, "mail")
    await child.start()

    child.abort()

    assert await child.wait() == Aborted()
    child.abort()


async def test_a_second_abort_does_not_cut_cleaning_up_short() -> None:
    cleaning, cleaned = asyncio.Event(), asyncio.Event()

    async def tidy(context: ChildContext) -> None:
        try:
            await deaf(context)
        finally:
            cleaning.set()
            await asyncio.sleep(0)
            cleaned.set()

    child = TaskChild(tidy, "mail")
    await child.start()
    child.abort()
    await cleaning.wait()

    child.abort()

    assert await child.wait() == Aborted()
    assert cleaned.is_set()


async def test_an_error_while_aborted_is_logged_and_no_crash(caplog: pytest.LogCaptureFixture) -> None:
    async def clumsy(context: ChildContext) -> None:
        try:
            await deaf(context)
        finally:
            raise OSError("stumbled")

    child = TaskChild(clumsy, "mail")
    await child.start()
    child.abort()

    assert await child.wait() == Aborted()
    assert [record.message for record in caplog.records] == ["agent raised while it was aborted"]


async def test_an_agent_that_returns_when_aborted_is_aborted_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    async def calm(context: ChildContext) -> None:
        try:
            await deaf(context)
        except asyncio.CancelledError:
            return

    child = TaskChild(calm, "mail")
    await child.start()
    child.abort()

    assert await child.wait() == Aborted()
    assert not caplog.records


async def test_a_cancellation_that_leaks_out_of_the_agent_is_a_crash() -> None:
    async def leaky(context: ChildContext) -> None:
        context.started()
        raise asyncio.CancelledError

    child = TaskChild(leaky, "mail")
    with pytest.raises(MeshhostError, match="was cancelled by its own code"):
        await child.start()

    assert isinstance(await child.wait(), Crashed)


async def test_a_child_aborted_before_its_start_never_runs() -> None:
    child = TaskChild(broken, "mail")
    with pytest.raises(LifecycleError, match="must be started"):
        await child.wait()

    child.abort()
    await child.start()

    assert await child.wait() == Aborted()


async def test_a_child_drained_before_its_start_hears_of_it() -> None:
    child = TaskChild(polite, "mail")
    await child.drain()

    await child.start()

    assert await child.wait() == Exited()


async def test_who_gives_up_waiting_takes_nothing_from_the_others() -> None:
    may_start = asyncio.Event()

    async def slow(context: ChildContext) -> None:
        await may_start.wait()
        await polite(context)

    child = TaskChild(slow, "mail", owner=TaskOwner("tests"))
    async with asyncio.TaskGroup() as tasks:
        starts = [tasks.create_task(child.start()) for _ in range(2)]
        await asyncio.sleep(0)
        starts[0].cancel()
        may_start.set()
        await starts[1]
        waits = [tasks.create_task(child.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        # The first is cancelled and gone, the last is cancelled in the very turn in which the agent ends.
        waits[0].cancel()
        await asyncio.sleep(0)
        await child.drain()

    assert waits[1].result() == waits[2].result() == Exited()


async def test_a_wait_cancelled_just_before_the_end_is_no_harm() -> None:
    leave = asyncio.Event()

    async def agent(context: ChildContext) -> None:
        context.started()
        await leave.wait()

    child = TaskChild(agent, "mail")
    await child.start()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(child.wait())
        await asyncio.sleep(0)
        leave.set()
        await asyncio.sleep(0)
        # The agent has returned; its end is announced in the next turn, to a waiter that is cancelled by then.
        waiting.cancel()

    assert waiting.cancelled()
    assert await child.wait() == Exited()


async def test_draining_asked_for_twice_is_one_event() -> None:
    context = ChildContext()
    early = context.draining

    context.leave()

    assert context.draining is early
    assert early.is_set()


async def test_children_in_tasks_share_an_owner() -> None:
    child = in_tasks()(brief, "mail")
    await child.start()
    assert await child.wait() == Exited()


async def test_a_deadline_tells_its_own_lateness_from_that_of_others(clock: FakeClock) -> None:
    with pytest.raises(TimeoutError, match="somebody else"):
        async with deadline(clock, 5):
            raise TimeoutError("somebody else")

    assert clock.sleepers == 0


async def test_a_deadline_cuts_short_on_the_clock_it_was_given(clock: FakeClock) -> None:
    async def wait_for_ever() -> None:
        async with deadline(clock, 5, late="too late"):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait_for_ever())
    await clock.advance(4)
    assert not waiting.done()

    await clock.advance(1)

    with pytest.raises(TimeoutError, match="too late"):
        await waiting


async def test_that_it_runs_is_told_at_once_and_once() -> None:
    told: list[str] = []

    async def busy(context: ChildContext) -> None:
        context.on_started = lambda: told.append("it runs")
        context.started()
        assert told == ["it runs"]
        context.started()

    child = TaskChild(busy, "mail")
    await child.start()
    assert await child.wait() == Exited()
    assert told == ["it runs"]
