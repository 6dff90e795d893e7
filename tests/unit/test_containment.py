"""Exits of code that is not ours end its agent, and never the event loop."""

import asyncio
import contextvars
import gc

import pytest

from meshhost.containment import as_exception, contain_exits, exits_go_to, is_contained
from meshhost.errors import MeshhostError
from meshhost.room.events import EventEmitter


class Panic(BaseException):
    """As extensions written in Rust raise it."""


@pytest.fixture
def crashes():
    return []


@pytest.fixture
async def agent(crashes):
    """Runs a coroutine function as an agent's task would run it."""
    contain_exits(asyncio.get_running_loop(), unclaimed_seconds=0.01)

    async def run(work):
        async def life():
            exits_go_to(crashes.append)
            return await work()

        return await asyncio.create_task(life(), context=contextvars.copy_context())

    return run


def raises(error):
    async def work():
        await asyncio.sleep(0)
        raise error

    return work


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), Panic("boom")])
async def test_an_exit_in_an_awaited_task_is_an_error_for_the_one_that_awaits_it(agent, crashes, error):
    async def work():
        with pytest.raises(MeshhostError, match="the agent") as caught:
            await asyncio.create_task(raises(error)())
        assert caught.value.__cause__ is error
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(raises(error)())
        found = await asyncio.gather(raises(error)(), return_exceptions=True)
        assert isinstance(found[0], MeshhostError)

    await agent(work)
    await asyncio.sleep(0.05)
    assert crashes == []


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_an_exit_that_nobody_awaits_is_the_crash_of_the_agent(agent, crashes, error):
    kept = []

    async def work():
        kept.append(asyncio.create_task(raises(error)()))

    await agent(work)
    await asyncio.sleep(0.05)
    assert [crash.__cause__ for crash in crashes] == [error]


async def test_tasks_outside_of_agents_are_as_before(agent):
    async def work():
        return 1

    task = asyncio.create_task(work())
    assert type(task.get_coro()).__name__ == "coroutine"
    assert await task == 1


async def test_a_contained_task_is_cancelled_named_and_shown_as_any_other(agent):
    async def sleeps():
        await asyncio.sleep(60)

    async def work():
        running, unborn = asyncio.create_task(sleeps(), name="a name"), asyncio.create_task(sleeps())
        unborn.cancel()
        await asyncio.sleep(0)
        assert running.get_name() == "a name"
        assert "sleeps" in repr(running)
        assert running.get_stack()
        running.cancel()
        await asyncio.wait({running, unborn})
        assert running.cancelled()
        assert unborn.cancelled()

    await agent(work)
    gc.collect()  # a coroutine that was never awaited would warn now


async def test_a_task_factory_of_the_program_is_kept(crashes):
    made = []

    def factory(loop, coroutine, **options):
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    contain_exits(loop)
    contain_exits(loop)
    await asyncio.create_task(asyncio.sleep(0))
    assert len(made) == 1


async def test_a_handler_that_exits_ends_its_agent_and_not_the_reading(agent, crashes):
    emitter, seen = EventEmitter(lambda coroutine, name: coroutine.close()), []

    def second(error):
        seen.append(error)

    errors = [SystemExit(3), Panic(), asyncio.CancelledError()]

    def handler(error):
        raise error

    emitter.on("event", handler)
    emitter.on("event", second)

    async def work():
        for error in errors:
            emitter.emit("event", error=error)

    await agent(work)
    assert seen == errors
    assert [crash.__cause__ for crash in crashes] == [errors[0]]


async def test_outside_of_agents_a_handler_may_end_the_program():
    emitter = EventEmitter(lambda coroutine, name: coroutine.close())

    def handler():
        raise SystemExit(3)

    emitter.on("event", handler)
    with pytest.raises(SystemExit):
        emitter.emit("event")


async def test_a_requested_cancellation_is_never_contained(agent):
    found = []

    async def work():
        asyncio.current_task().cancel()
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError as error:
            found.append(is_contained(error))

    await agent(work)
    assert found == [False]


def test_an_error_stays_what_it_is():
    error = ValueError("x")
    assert as_exception(error) is error
    assert str(as_exception(SystemExit(2))) == "the agent raised SystemExit"
    assert str(as_exception(Panic())) == "the agent raised Panic"
