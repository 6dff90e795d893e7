import asyncio
import functools
from unittest.mock import MagicMock

import pytest

from meshhost.errors import CallRefusedError
from meshhost.hosting.agents.assignment import CallRequest
from meshhost.hosting.agents.life import AnyAgent
from meshhost.hosting.calls.hosted_agents import HostedAgents, task_children
from meshhost.hosting.calls.route import Route, Routes
from meshhost.hosting.observe.load import LoadMeter
from meshhost.hosting.processes.supervised import ProcessLife
from meshhost.hosting.tenants.tenancy import Tenancy
from meshhost.identity.tenant import AgentKey, RoomKey, TenantId
from meshhost.supervision.policy import RestartPolicy
from meshhost.supervision.state import State
from meshhost.supervision.supervisor import Supervisor
from meshhost.testing.agents import QuietAgent
from meshhost.testing.clock import FakeClock


class Parked:
    """A way to a room that does not answer."""

    url = "ws://127.0.0.1:1/rooms/room"
    token = "secret"

    def __init__(self):
        self.dialled = asyncio.Event()

    async def connect(self, *, resume=None):
        self.dialled.set()
        await asyncio.Event().wait()


def request(token="t", **changes):
    given = {"tenant": TenantId("acme"), "room_name": "room", "identity": "worker", "arguments": {}, "expires_at": None}
    return CallRequest(room_url="ws://127.0.0.1:1/rooms/room", token=token, **given | changes)


def route(**changes):
    return Route(**{"path": "/worker", "cls": QuietAgent, "restart": RestartPolicy(kind="permanent")} | changes)


@pytest.fixture
async def supervisor():
    supervisor = Supervisor(clock=FakeClock())
    yield supervisor
    supervisor.abort_all()
    for spawn in supervisor.live:
        await spawn.wait_state(State.STOPPED, State.FAILED)


@pytest.fixture
def assignments():
    """What the agents were started for, in order."""
    return []


@pytest.fixture
def spawns(supervisor, assignments, tmp_path):
    clock = FakeClock()
    load = LoadMeter(clock=clock, live=lambda: supervisor.count, max_agents=2, cgroup=tmp_path, proc=tmp_path)
    make = task_children()

    def child(route, assignment):
        assignments.append(assignment)
        return make(route, assignment)

    return HostedAgents(
        supervisor,
        routes=Routes(),
        tenancy=Tenancy(clock=clock, live=lambda: supervisor.live, load=load),
        children={"task": child, "process": child},
        max_agents=2,
        max_processes=2,
    )


async def test_the_same_call_finds_the_same_spawn_and_another_tenant_its_own(spawns):
    first = await spawns.answer(route(), request(), protocol=Parked())
    assert await spawns.answer(route(), request(token="renewed")) is first
    assert await spawns.answer(route(), request(tenant=TenantId("other")), protocol=Parked()) is not first
    assert first.key.log_fields() == {"tenant": "acme", "room": "room", "identity": "worker", "path": "/worker"}
    assert first.name == "worker in room"
    assert (str(first.key), first.key.tenant) == ("worker in room at /worker", "acme")
    assert first.key == AgentKey(RoomKey(TenantId("acme"), "room"), "/worker", "worker")


async def test_a_socket_of_the_room_server_gets_an_agent_of_its_own_that_is_not_restarted(spawns):
    first = await spawns.answer(route(), request(), protocol=Parked())
    second = await spawns.answer(route(), request(), protocol=Parked())
    assert first is not second
    assert second.spec.policy == RestartPolicy(kind="temporary")


async def test_a_repeated_call_changes_what_the_next_life_is_told(spawns, assignments):
    parked = Parked()
    await spawns.answer(route(), request(arguments={"n": 1}), protocol=parked)
    await parked.dialled.wait()
    [assignment] = assignments
    await spawns.answer(route(), request(arguments={"n": 2}, expires_at=9.0))
    assert assignment.context().arguments == {"n": 2}
    assert assignment.context().deadline == 9.0
    assert assignment.context().call_id == assignment.id
    assert "secret" not in repr(assignment)


async def test_a_full_host_refuses_until_somebody_leaves(spawns, supervisor):
    first = await spawns.answer(route(), request(), protocol=Parked())
    assert not spawns.is_full
    await spawns.answer(route(), request(identity="b"), protocol=Parked())
    assert spawns.is_full
    with pytest.raises(CallRefusedError, match="this host is full: 2 agents live here") as refused:
        await spawns.answer(route(), request(identity="c"))
    assert (refused.value.status, refused.value.retry_after) == (503, 5.0)
    first.abort()
    await first.wait_state(State.STOPPED)
    assert first.id not in spawns._assignments
    spawns.check_free()


async def test_a_draining_host_refuses(spawns, supervisor):
    supervisor.abort_all()
    with pytest.raises(CallRefusedError, match="this host is draining") as refused:
        await spawns.answer(route(), request())
    assert (refused.value.status, refused.value.retry_after) == (503, 5.0)
    assert not spawns._assignments


async def test_an_agent_that_drains_is_not_joined(spawns):
    first = await spawns.answer(route(), request(), protocol=Parked())
    first.begin_drain()
    second = await spawns.answer(route(), request(), protocol=Parked())
    assert second is not first


async def test_an_assignment_that_has_ended_or_drains_is_not_ended_again(spawns, assignments):
    parked = Parked()
    first = await spawns.answer(route(), request(), protocol=parked)
    await parked.dialled.wait()
    [assignment] = assignments
    assignment.end_for_good("the first reason")
    assignment.end_for_good("the second reason")
    assert (first.state, first.reason) == (State.DRAINING, "the first reason")
    first.abort()
    await first.wait_state(State.STOPPED)
    assignment.end_for_good("the third reason")
    assignment.agent = None
    assignment.end_for_good("nobody's reason")
    assert first.reason == "the first reason"


def test_what_is_an_agent():
    assert isinstance(QuietAgent(), AnyAgent)
    assert not isinstance(object(), AnyAgent)


async def turns_of_the_loop():
    """Let the agents' tasks begin."""
    for _ in range(5):
        await asyncio.sleep(0)


async def called_in_process(spawns, assignments):
    """An agent in a process of its own, and what the host knows of its life; the process is not real."""
    agent = await spawns.answer(route(isolation="process"), request())
    await turns_of_the_loop()
    [assignment] = assignments
    life, process = ProcessLife(MagicMock(), "/worker", assignment, 1.0), MagicMock()
    assignment.on_renew = functools.partial(life.renew, process)
    return agent, life, process


async def test_a_call_that_crossed_the_end_of_an_agent_in_a_process_starts_another(spawns, supervisor, assignments):
    first, life, process = await called_in_process(spawns, assignments)
    assert await spawns.answer(route(isolation="process"), request(token="second")) is first
    process.send.assert_called_once()
    life.end_for_good("the room is closed", 0)  # sent before the renewal arrived
    life.end_for_good("the room is closed", 0)
    [old, new] = supervisor.live
    assert (old, old.state) == (first, State.DRAINING)
    await turns_of_the_loop()
    assert assignments[1].request.token == "second"
    assert await spawns.answer(route(isolation="process"), request(token="third")) is new


async def test_an_agent_in_a_process_that_saw_every_call_ends_for_good(spawns, supervisor, assignments):
    first, life, _ = await called_in_process(spawns, assignments)
    await spawns.answer(route(isolation="process"), request(token="second"))
    life.end_for_good("the room is closed", 1)
    assert supervisor.live == (first,)


async def test_a_missed_call_at_a_draining_host_is_logged(spawns, supervisor, assignments, caplog):
    _, life, _ = await called_in_process(spawns, assignments)
    await spawns.answer(route(isolation="process"), request(token="second"))
    supervisor.abort_all()
    life.end_for_good("the room is closed", 0)
    assert "agent that was called cannot start" in caplog.text
