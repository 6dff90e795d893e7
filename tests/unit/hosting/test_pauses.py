import pytest

from meshhost.errors import CallRefusedError
from meshhost.hosting.calls.pauses import Pauses
from meshhost.identity.tenant import AgentKey, RoomKey, TenantId
from meshhost.testing.clock import FakeClock

WORKER = AgentKey(RoomKey(TenantId("acme"), "room"), "/worker", "worker")
OTHER = AgentKey(RoomKey(TenantId("acme"), "other"), "/worker", "worker")


async def test_calls_are_refused_until_the_pause_is_over():
    clock = FakeClock()
    pauses = Pauses(clock)
    pauses.check(WORKER)
    pauses.pause(WORKER, 100.0)
    pauses.check(OTHER)
    with pytest.raises(CallRefusedError, match="an operator stopped this agent for another 100 s") as refused:
        pauses.check(WORKER)
    assert (refused.value.status, refused.value.retry_after) == (503, 30.0)
    await clock.advance(95.0)
    with pytest.raises(CallRefusedError) as refused:
        pauses.check(WORKER)
    assert refused.value.retry_after == 5.0
    await clock.advance(5.0)
    pauses.check(WORKER)


async def test_a_pause_is_ended_before_its_time_and_leaves_others_alone():
    clock = FakeClock()
    pauses = Pauses(clock)
    pauses.pause(WORKER, 100.0)
    pauses.pause(OTHER, 10.0)
    pauses.pause(WORKER, 0.0)
    pauses.check(WORKER)
    with pytest.raises(CallRefusedError):
        pauses.check(OTHER)
