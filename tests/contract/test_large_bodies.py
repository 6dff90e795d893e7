"""Every queue store keeps references to large bodies and results as it keeps texts, and finds them by the object's name."""

import uuid

import pytest
from doubles.engines import EVERY_ENGINE

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.bodies.reference import BodyReference
from meshhost.stores.queues import EndReason, HolderId, NewMessage, QueueKey, QueueLimits, QueueSettings, QueueStore
from meshhost.testing.clock import FakeClock

JOBS = QueueKey(RoomKey(TenantId("acme"), "lobby"), "jobs")
ANN = HolderId("ann")
LIMITS = QueueLimits(max_attempts=1)

pytestmark = pytest.mark.parametrize("store", EVERY_ENGINE, indirect=True)


def reference() -> BodyReference:
    return BodyReference(uuid.uuid4().hex, 10**6, "0" * 64, '{"n": [0, 1')


async def test_a_reference_is_found_while_a_row_holds_it(store: QueueStore) -> None:
    first, second, never = reference(), reference(), reference()
    names = [first.name, second.name, never.name]
    assert await store.referred(names) == set()
    await store.send_many(
        JOBS, [NewMessage(first.to_text()), NewMessage(f'"@{never.name}"'), NewMessage(second.to_text())]
    )
    assert await store.referred(names) == {first.name, second.name}
    assert await store.referred([second.name]) == {second.name}
    (delivery,) = await store.lease(JOBS, ANN, seconds=30)
    assert BodyReference.parse(delivery.body) == first
    assert await store.referred(names) == {first.name, second.name}
    await store.ack(delivery.lease)
    assert await store.referred(names) == {second.name}


async def test_a_dead_message_keeps_its_reference_and_a_replay_too(store: QueueStore) -> None:
    large = reference()
    message_id = await store.send(JOBS, NewMessage(large.to_text()))
    (delivery,) = await store.lease(JOBS, ANN, seconds=30)
    assert await store.nack(delivery.lease, reason=EndReason.FAILED, error="boom")
    assert await store.referred([large.name]) == {large.name}
    await store.replay(JOBS)
    assert await store.referred([large.name]) == {large.name}
    await store.cancel(JOBS, message_id)
    assert await store.referred([large.name]) == set()


async def test_a_result_refers_until_it_is_forgotten(store: QueueStore, clock: FakeClock) -> None:
    large = reference()
    await store.send(JOBS, NewMessage("1"))
    await store.configure(JOBS, QueueSettings(result_ttl=60))
    (delivery,) = await store.lease(JOBS, ANN, seconds=30)
    await store.ack(delivery.lease, result=large.to_text())
    assert await store.referred([large.name]) == {large.name}
    await clock.advance(61)
    await store.sweep()
    assert await store.referred([large.name]) == set()
