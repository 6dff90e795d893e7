"""Background tasks have an owner, and work that must be finished is."""

import asyncio
import functools
from collections.abc import Awaitable, Callable

import pytest

from meshhost.tasks import LightEvent, Stopped, TaskOwner, Won, first_of, uninterrupted, until


class BoomError(Exception):
    """What goes wrong here."""


async def forever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise BoomError


class Stubborn:
    """A coroutine that ignores cancellation until it is let go."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.released = asyncio.Event()
        self.cancelled = 0

    async def run(self) -> str:
        self.started.set()
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
        return "done"


async def test_a_task_bears_the_name_of_its_owner() -> None:
    owner = TaskOwner("room lobby")

    task = owner.spawn(forever(), name="reader")

    assert task.get_name() == "room lobby reader"
    assert repr(owner) == "<TaskOwner 'room lobby' tasks=1 crash=None>"
    assert await owner.stop() == []
    assert task.cancelled()
    assert repr(owner) == "<TaskOwner 'room lobby' tasks=0 crash=None>"


async def test_a_result_is_at_the_task_and_the_owner_forgets_it() -> None:
    owner = TaskOwner("o")

    async def work() -> int:
        return 7

    task = owner.spawn(work(), name="w")
    await owner.wait()

    assert await task == 7
    assert "tasks=0" in repr(owner)


async def test_waiting_without_tasks_returns_at_once() -> None:
    owner = TaskOwner("o")

    await owner.wait()
    assert await owner.stop() == []


async def test_a_crash_reaches_whoever_waits_though_others_still_run() -> None:
    owner = TaskOwner("o")
    other = owner.spawn(forever(), name="other")

    async with asyncio.timeout(5):
        owner.spawn(fail(), name="failing")
        with pytest.raises(BoomError):
            await owner.wait()

    assert not other.done()
    assert "crash=BoomError()" in repr(owner)
    assert await owner.stop() == []


async def test_the_first_crash_counts_and_every_waiter_gets_it() -> None:
    owner = TaskOwner("o")
    gate = asyncio.Event()

    async def fail_later() -> None:
        await gate.wait()
        raise ValueError

    async def watch() -> None:
        with pytest.raises(BoomError):
            await owner.wait()

    later = owner.spawn(fail_later(), name="later")
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        tasks.create_task(watch())
        owner.spawn(fail(), name="first")

    gate.set()
    await asyncio.wait({later})
    with pytest.raises(BoomError):
        await owner.wait()


async def test_waiting_ends_only_with_the_last_task() -> None:
    owner = TaskOwner("o")
    first, last = asyncio.Event(), asyncio.Event()
    one = owner.spawn(first.wait(), name="first")
    owner.spawn(last.wait(), name="last")

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        waiter = tasks.create_task(owner.wait())
        first.set()
        await one
        assert not waiter.done()
        last.set()


async def test_a_cancelled_task_is_no_crash() -> None:
    owner = TaskOwner("o")
    task = owner.spawn(forever(), name="t")

    task.cancel()

    await owner.wait()


async def test_stopping_names_the_tasks_that_will_not_end() -> None:
    owner = TaskOwner("o")
    stubborn = {name: Stubborn() for name in ("b", "a")}
    for name, work in stubborn.items():
        owner.spawn(work.run(), name=name)
    owner.spawn(forever(), name="tame")
    for work in stubborn.values():
        await work.started.wait()

    assert await owner.stop(timeout=0.01) == ["o a", "o b"]

    for work in stubborn.values():
        work.released.set()
    async with asyncio.timeout(5):
        await owner.wait()
    assert await owner.stop() == []


async def test_a_task_that_fails_while_stopping_is_a_crash() -> None:
    owner = TaskOwner("o")
    started = asyncio.Event()

    async def fail_to_stop() -> None:
        started.set()
        try:
            await forever()
        finally:
            raise BoomError

    owner.spawn(fail_to_stop(), name="t")
    await started.wait()

    assert await owner.stop() == []
    with pytest.raises(BoomError):
        await owner.wait()


# Work that must not be cut short


class Work:
    """Inner work under the test's control."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.released = asyncio.Event()
        self.outcome = ""

    async def run(self) -> str:
        self.started.set()
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.outcome = "cancelled"
            raise
        self.outcome = "finished"
        return "result"


async def cancelled_while(work: Work, body: Callable[[], Awaitable[object]], *, times: int) -> asyncio.Task[object]:
    """A task that was cancelled `times` times while its inner work went on; it has not ended yet."""

    async def outer() -> object:
        return await body()

    task = asyncio.create_task(outer())
    await work.started.wait()
    for _ in range(times):
        task.cancel()
        # One turn of the loop delivers the cancellation, another lets the task go on as far as it can.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return task


async def test_undisturbed_work_gives_its_result() -> None:
    work = Work()
    work.released.set()

    assert await uninterrupted(work.run()) == "result"


async def test_undisturbed_work_raises_its_error() -> None:
    with pytest.raises(BoomError):
        await uninterrupted(fail())


@pytest.mark.parametrize("times", [1, 3])
async def test_work_is_finished_though_cancelled_and_then_the_cancellation_goes_through(times: int) -> None:
    work = Work()
    task = await cancelled_while(work, lambda: uninterrupted(work.run()), times=times)

    assert not task.done()
    work.released.set()
    await asyncio.wait({task}, timeout=5)

    assert task.cancelled()
    assert work.outcome == "finished"


async def test_the_error_of_work_that_was_to_be_cut_short_is_the_cause() -> None:
    work = Work()
    caught: list[BaseException | None] = []

    async def fail_in_the_end() -> None:
        await work.run()
        raise BoomError

    async def body() -> None:
        try:
            await uninterrupted(fail_in_the_end())
        except asyncio.CancelledError as error:
            caught.append(error.__cause__)
            raise

    task = await cancelled_while(work, body, times=1)
    work.released.set()
    await asyncio.wait({task}, timeout=5)

    assert task.cancelled()
    assert isinstance(caught[0], BoomError)


async def test_work_that_takes_too_long_is_cancelled() -> None:
    work = Work()

    with pytest.raises(TimeoutError):
        await uninterrupted(work.run(), timeout=0.01)
    await asyncio.sleep(0)

    assert work.outcome == "cancelled"


async def test_work_that_takes_too_long_is_cancelled_and_so_are_we_when_asked() -> None:
    work = Work()
    task = await cancelled_while(work, lambda: uninterrupted(work.run(), timeout=0.05), times=1)

    await asyncio.wait({task}, timeout=5)
    await asyncio.sleep(0)

    assert task.cancelled()
    assert work.outcome == "cancelled"


async def test_work_that_cancels_itself_is_cancelled() -> None:
    async def give_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await uninterrupted(give_up())


async def test_without_any_time_nothing_is_begun() -> None:
    work = Work()

    with pytest.raises(TimeoutError):
        await uninterrupted(work.run(), timeout=0)
    await asyncio.sleep(0)

    assert not work.started.is_set()


async def test_a_timeout_around_it_still_ends_as_a_timeout() -> None:
    work = Work()

    async def release_once_cancelled() -> str:
        asyncio.get_running_loop().call_later(0.05, work.released.set)
        return await work.run()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await uninterrupted(release_once_cancelled())

    assert work.outcome == "finished"


# Work that ends when something else does


async def test_work_that_ends_first_gives_its_result_and_the_other_is_cancelled() -> None:
    work, stop = Work(), Work()
    work.released.set()

    assert await first_of(work.run(), stop.run()) == Won("result")
    assert stop.outcome == "cancelled"


async def test_work_that_fails_first_raises() -> None:
    stop = Work()

    with pytest.raises(BoomError):
        await first_of(fail(), stop.run())
    assert stop.outcome == "cancelled"


async def nothing() -> None:
    pass


async def test_work_is_cancelled_when_the_other_ends() -> None:
    work = Work()

    assert await first_of(work.run(), nothing()) == Stopped()
    assert work.outcome == "cancelled"


async def test_work_is_cancelled_when_the_other_fails_and_its_error_is_raised() -> None:
    work = Work()

    with pytest.raises(BoomError):
        await first_of(work.run(), fail())
    assert work.outcome == "cancelled"


async def test_of_two_that_end_at_once_the_work_counts() -> None:
    work, stop = Work(), Work()
    work.released.set()
    stop.released.set()

    assert await first_of(work.run(), stop.run()) == Won("result")


async def test_neither_runs_on_when_the_caller_is_cancelled() -> None:
    work, stop = Work(), Work()
    task = asyncio.create_task(first_of(work.run(), stop.run()))
    await stop.started.wait()

    task.cancel()
    await asyncio.wait({task}, timeout=5)

    assert task.cancelled()
    assert (work.outcome, stop.outcome) == ("cancelled", "cancelled")


async def test_an_event_lets_go_all_who_wait_and_who_come_later() -> None:
    event = LightEvent()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(event.wait())
        await asyncio.sleep(0)
        assert repr(event) == "<LightEvent unset waiting=3>"
        event.set()
    await event.wait()
    assert (event.is_set(), repr(event)) == (True, "<LightEvent set waiting=0>")


async def test_who_gives_up_waiting_is_forgotten() -> None:
    event = LightEvent()
    async with asyncio.TaskGroup() as tasks:
        waiting, other = tasks.create_task(event.wait()), tasks.create_task(event.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        event.set()
    assert (waiting.cancelled(), other.done()) == (True, True)


async def test_a_cleared_event_has_to_be_set_again() -> None:
    event = LightEvent()
    event.set()
    event.clear()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(event.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        event.set()


def test_an_event_calls_back_once_and_at_once_when_it_is_set() -> None:
    event, called = LightEvent(), []
    event.on_set(lambda: called.append("before"))
    event.set()
    event.on_set(lambda: called.append("after"))
    event.set()
    assert called == ["before", "after"]


def test_a_callback_can_be_taken_back() -> None:
    event, called = LightEvent(), list[str]()
    event.on_set(functools.partial(called.append, "kept"))
    event.on_set(called.clear)
    event.off_set(called.clear)
    event.off_set(called.clear)
    event.set()
    assert called == ["kept"]


async def value() -> int:
    return 1


async def test_work_goes_on_until_an_event() -> None:
    event = LightEvent()
    assert await until(event, value()) == Won(1)
    with pytest.raises(BoomError):
        await until(event, fail())
    assert not event._callbacks
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(until(event, forever()))
        await asyncio.sleep(0)
        event.set()
    assert waiting.result() == Stopped()


async def test_work_that_fails_as_the_event_comes_is_looked_at() -> None:
    event = LightEvent()

    async def late() -> None:
        try:
            await forever()
        finally:
            raise BoomError

    event.set()
    assert await until(event, late()) == Stopped()


async def test_work_ends_with_who_waits_for_it() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await forever()
        finally:
            ended.set()

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(until(LightEvent(), work()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
    assert ended.is_set()
