import asyncio

import pytest

from meshhost.testing.agents import CrashingAgent, NeverStartingAgent, QuietAgent, SlowAgent, StubbornAgent


async def test_each_class_knows_the_agents_made_of_it():
    class Mine(QuietAgent):
        pass

    class Other(Mine):
        pass

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(Mine.wait_made(2))
        await asyncio.sleep(0)
        first, second = Mine(), Mine(call="call")
    assert waiting.result() is second
    assert await Mine.wait_made() is first
    assert (Mine.made, Other.made, second.call) == ([first, second], [], "call")
    with pytest.raises(TimeoutError):
        await Other.wait_made(timeout=0)
    Other()


async def test_a_quiet_agent_counts():
    agent = QuietAgent()
    await agent.start(room="room")
    await agent.stop()
    assert (agent.room, agent.starts, agent.stops) == ("room", 1, 1)
    assert agent.started.is_set()
    assert agent.stopped.is_set()
    assert repr(agent) == "<QuietAgent starts=1 stops=1>"


async def test_a_slow_agent_starts_when_released():
    agent = SlowAgent()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(agent.start(room=None))
        await agent.starting.wait()
        assert agent.starts == 0
        agent.release.set()
    assert agent.starts == 1


async def test_one_that_never_starts_can_be_cancelled():
    agent = NeverStartingAgent()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await agent.start(room=None)
    assert agent.starts == 1


async def test_a_crashing_agent_crashes_as_often_and_where_it_is_told():
    class Twice(CrashingAgent):
        crashes = 2
        error = KeyError("x")

    for _ in range(2):
        with pytest.raises(KeyError):
            await Twice().start(room=None)
    third = Twice()
    await third.start(room=None)
    third.crash()
    with pytest.raises(KeyError):
        await third.wait_ended()


async def test_a_stubborn_agent_stops_when_released():
    agent = StubbornAgent()
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(agent.stop())
        await agent.stopping.wait()
        stopping.cancel()
        await asyncio.sleep(0)
        assert not stopping.done()
        agent.release.set()
    assert (agent.stops, stopping.cancelled()) == (1, False)
