import asyncio

import pytest

from meshhost.errors import CallRefusedError
from meshhost.hosting.calls.admission import CallRequest
from meshhost.hosting.calls.life import AnyAgent
from meshhost.hosting.calls.spawns import Route, Spawns
from meshhost.identity.tenant import TenantId
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
def spawns(supervisor):
    return Spawns(supervisor, max_agents=2)


async def test_the_same_call_finds_the_same_spawn_and_another_tenant_its_own(spawns):
    first = await spawns.answer(route(), request(), protocol=Parked())
    assert await spawns.answer(route(), request(token="renewed")) is first
    assert await spawns.answer(route(), request(tenant=TenantId("other")), protocol=Parked()) is not first
    assert first.spec.log_fields == {"tenant": "acme", "room": "room", "identity": "worker", "path": "/worker"}
    assert first.name == "worker in room"
    assert first.key == ("acme", "room", "/worker", "worker")


async def test_a_socket_of_the_room_server_gets_an_agent_of_its_own_that_is_not_restarted(spawns):
    first = await spawns.answer(route(), request(), protocol=Parked())
    second = await spawns.answer(route(), request(), protocol=Parked())
    assert first is not second
    assert second.spec.policy == RestartPolicy(kind="temporary")


async def test_a_repeated_call_changes_what_the_next_life_is_told(spawns):
    first = await spawns.answer(route(), request(arguments={"n": 1}), protocol=Parked())
    visit = spawns._visits[first.id]
    await spawns.answer(route(), request(arguments={"n": 2}, expires_at=9.0))
    assert visit.context().arguments == {"n": 2}
    assert visit.context().deadline == 9.0
    assert visit.context().call_id == visit.id
    assert "secret" not in repr(visit)


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
    assert first.id not in spawns._visits
    spawns.check_free()


async def test_a_draining_host_refuses(spawns, supervisor):
    supervisor.abort_all()
    with pytest.raises(CallRefusedError, match="this host is draining") as refused:
        await spawns.answer(route(), request())
    assert (refused.value.status, refused.value.retry_after) == (503, 5.0)
    assert not spawns._visits


async def test_an_agent_that_drains_is_not_joined(spawns):
    first = await spawns.answer(route(), request(), protocol=Parked())
    first.begin_drain()
    second = await spawns.answer(route(), request(), protocol=Parked())
    assert second is not first


async def test_a_visit_that_has_ended_or_drains_is_not_ended_again(spawns):
    first = await spawns.answer(route(), request(), protocol=Parked())
    visit = spawns._visits[first.id]
    visit.end_for_good("the first reason")
    visit.end_for_good("the second reason")
    assert (first.state, first.reason) == (State.DRAINING, "the first reason")
    first.abort()
    await first.wait_state(State.STOPPED)
    visit.end_for_good("the third reason")
    visit.spawn = None
    visit.end_for_good("nobody's reason")
    assert first.reason == "the first reason"


def test_what_is_an_agent():
    assert isinstance(QuietAgent(), AnyAgent)
    assert not isinstance(object(), AnyAgent)
