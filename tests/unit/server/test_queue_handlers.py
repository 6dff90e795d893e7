"""What the server does by itself for queue clients without leases."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshhost.errors import LeaseLostError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.protocol.messages import EmptyResponse, ErrorResponse, JsonResponse
from meshhost.queues.over_engine import queue_service
from meshhost.queues.service import QueueService
from meshhost.server.core.dispatch import Dispatcher
from meshhost.server.services.queue_leases import MAX_RECENT, ConnectionLeases, HandedOver, ParticipantLeases
from meshhost.server.services.queues import QueuesService
from meshhost.stores.memory.engine import memory_engine
from meshhost.stores.queues import HolderId, Lease, NewMessage, QueueKey, QueueStore
from meshhost.testing.clock import FakeClock


class _World:
    def __init__(self, queues: QueueService, store: QueueStore, clock: FakeClock) -> None:
        self.queues, self.store, self.clock = queues, store, clock
        self.service = QueuesService(queues, receive_seconds=20, lease_seconds=30, clock=clock)
        self.dispatcher = Dispatcher(self.service.operations(), count=lambda *_: None)

    def leases(self, served: Any) -> ConnectionLeases:
        return self.service._peers.of(served.connection)

    async def settle(self, served: Any) -> None:
        await self.service.settle(served.room, served.participant, served.connection, orderly=False)


@pytest.fixture
async def world() -> AsyncIterator[_World]:
    clock = FakeClock()
    engine = memory_engine(clock=clock)
    async with engine, queue_service(engine, clock=clock) as queues:
        own = _World(queues, engine.queues, clock)
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(own.service.run())
            yield own
            keeping.cancel()


async def _receive(served: Any, world: _World, *, wait: bool = True) -> Any:
    key = QueueKey(served.room.key, "q")
    await world.queues.send(key, NewMessage(body='"m"'))
    return await served.ask("queues.receive", {"name": "q", "wait": wait})


async def test_a_slow_client_without_leases_keeps_its_message(world: _World, serving: Any) -> None:
    async with serving(world.dispatcher) as served:
        assert await _receive(served, world) == JsonResponse(json="m")
        for _ in range(10):
            await world.clock.advance(10.0)
        key = QueueKey(served.room.key, "q")
        assert await world.queues.receive(key, HolderId("other")) is None
        assert await served.ask("queues.receive", {"name": "q", "wait": False}) == EmptyResponse()
        (stats,) = await world.queues.stats(served.room.key)
        assert (stats.ready, stats.leased) == (0, 0)
        await world.clock.advance(10.0)


async def test_a_lease_that_was_lost_is_not_kept(
    world: _World, serving: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(world.dispatcher) as served:
        await _receive(served, world)
        errors: list[Exception] = [OSError("disk"), RoomError("down"), LeaseLostError("lost")]

        async def extend(*_: Any, **__: Any) -> None:
            raise errors.pop(0)

        monkeypatch.setattr(world.queues, "extend", extend)
        await world.clock.advance(20.0)
        assert world.leases(served).unsettled
        await world.clock.advance(20.0)
        assert world.leases(served).unsettled == {}
        assert errors == []
    assert caplog.text.count("lease not extended") == 2


async def test_a_late_settlement_is_none(world: _World, serving: Any) -> None:
    async with serving(world.dispatcher) as served:
        await _receive(served, world)
        await world.queues.delete(QueueKey(served.room.key, "q"))
        assert await served.ask("queues.receive", {"name": "q", "wait": False}) == EmptyResponse()


async def test_a_store_that_fails_at_the_end_is_logged(
    world: _World, serving: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk")

    async with serving(world.dispatcher) as served:
        await _receive(served, world)
        world.service._participants.of(served.participant).has_leased = True
        monkeypatch.setattr(world.queues, "release_holder", fail)
        await world.settle(served)
        await world.service.left(served.room, served.participant)
    assert caplog.text.count("leases not given back") == 2


async def test_a_message_that_was_not_written_comes_back(world: _World, serving: Any) -> None:
    async with serving(world.dispatcher) as served:
        served.far.hold()
        key = QueueKey(served.room.key, "q")
        await world.queues.send(key, NewMessage(body="1"))
        served.far.release()
        await served.send("queues.receive", {"name": "q", "wait": False})
        served.far.hold()
        async with asyncio.timeout(5):
            while not world.leases(served).unsettled:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)
        served.near.break_connection()
        await served.serving
        await world.settle(served)
        delivery = await world.queues.receive(key, HolderId("other"))
        assert delivery is not None


async def test_a_dismissed_participant_without_a_connection_waits_for_nothing(world: _World, serving: Any) -> None:
    async with serving(world.dispatcher) as served:
        served.participant.peer = None
        world.service.dismiss(served.participant)
        assert world.service._participants.of(served.participant).is_dismissed


async def _stats(world: _World, served: Any) -> tuple[int, int]:
    for _ in range(20):  # until what goes back in the background is back
        await asyncio.sleep(0)
    (stats,) = await world.queues.stats(served.room.key)
    return stats.ready, stats.leased


@pytest.mark.parametrize("lease", [None, 10.0])
async def test_a_receive_that_is_given_up_takes_no_message(world: _World, serving: Any, lease: float | None) -> None:
    async with serving(world.dispatcher) as served:
        request = await served.send("queues.receive", {"name": "q", "lease": lease})
        await served.ask("queues.list")
        await served.notify("request.cancel", {"id": request})
        await served.ask("queues.list")
        await world.queues.send(QueueKey(served.room.key, "q"), NewMessage(body='"m"'))
        assert await _stats(world, served) == (1, 0)
        assert await served.ask("queues.receive", {"name": "q"}) == JsonResponse(json="m")


@pytest.mark.parametrize("lease", [None, 10.0])
async def test_an_answer_that_comes_too_late_gives_its_message_back(
    world: _World, serving: Any, lease: float | None
) -> None:
    key = QueueKey(RoomKey(TenantId("t"), "r"), "q")
    async with serving(world.dispatcher, given_up=world.service.given_up) as served:
        for number in (1, 2):
            await world.queues.send(key, NewMessage(body=f"{number}"))
        request = await served.send("queues.receive", {"name": "q", "lease": lease})
        assert await served.reply() == JsonResponse(json=1)
        await served.notify("request.cancel", {"id": request})
        # Not acked by this one, although it is the next receive of the connection.
        assert await served.ask("queues.receive", {"name": "q", "lease": lease}) in (
            JsonResponse(json=1),
            JsonResponse(json=2),
        )
        assert await _stats(world, served) == (1, 1)
        await served.notify("request.cancel", {"id": 12345})
        assert await _stats(world, served) == (1, 1)
        (letter,) = await world.store.lease(key, HolderId("other"), seconds=1)
        assert (letter.attempt, letter.delivery) == (1, 1)


async def test_a_settled_delivery_is_not_taken_back(world: _World, serving: Any) -> None:
    key = QueueKey(RoomKey(TenantId("t"), "r"), "q")
    async with serving(world.dispatcher, given_up=world.service.given_up) as served:
        await world.queues.send(key, NewMessage(body="1"))
        request = await served.send("queues.receive", {"name": "q", "lease": 10.0})
        event = await served.next()
        lease = event.extra["delivery"]["lease"]
        await served.ask("queues.extend", {"name": "q", "lease": lease, "seconds": 10.0})
        await served.notify("request.cancel", {"id": request})
        await served.ask("queues.list")
        assert await _stats(world, served) == (0, 1)
        assert world.service._participants.of(served.participant).recent == ()


async def test_an_answer_that_the_connection_swallowed_gives_its_message_back(world: _World, serving: Any) -> None:
    async with serving(world.dispatcher) as served:
        await world.queues.send(QueueKey(served.room.key, "q"), NewMessage(body="1"))
        asked = {"name": "q", "lease": 10.0}
        assert await served.ask("queues.receive", asked | {"call": "a"}) == JsonResponse(json=1)
        answer = await served.ask("queues.receive", asked | {"call": "b", "given_up": ["a", "x"], "wait": True})
        assert answer == JsonResponse(json=1)
        assert [each.call for each in world.service._participants.of(served.participant).recent] == ["b"]


async def test_a_poll_that_is_given_up_before_its_answer_is_written_gives_its_message_back(
    world: _World, serving: Any
) -> None:
    async with serving(world.dispatcher) as served:
        await world.queues.send(QueueKey(served.room.key, "q"), NewMessage(body="1"))
        served.far.hold()
        request = await served.send("queues.receive", {"name": "q", "wait": False})
        async with asyncio.timeout(5):
            while not world.leases(served).unsettled:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)
        await served.notify("request.cancel", {"id": request})
        assert await _stats(world, served) == (1, 0)
        served.far.release()


def test_only_the_newest_deliveries_are_remembered() -> None:
    leases, peer = ParticipantLeases(), Any
    key = QueueKey(RoomKey(TenantId("t"), "r"), "q")
    for number in range(100):
        leases.hand_over(HandedOver(peer, number, Lease(key, number, 1, leases.holder, 0.0)))  # type: ignore[arg-type]
    assert [each.message_id for each in leases.recent] == list(range(100 - MAX_RECENT, 100))


async def test_a_queue_that_fails_fails_no_message_that_was_sent_to_another_one_at_the_same_time(
    world: _World, serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_many = world.queues.send_many

    async def failing(queue: QueueKey, *args: Any, **options: Any) -> Any:
        if queue.name == "bad":
            raise OSError("disk")
        await asyncio.sleep(0)
        return await send_many(queue, *args, **options)

    monkeypatch.setattr(world.queues, "send_many", failing)
    async with serving(world.dispatcher) as served:
        for name in ("bad", "good"):
            assert served.far.send_at_once(served.client.request("queues.send", {"name": name, "message": 1})[1])
        refused, sent = await served.reply(), await served.reply()
    assert isinstance(refused, ErrorResponse)
    assert sent == JsonResponse(json={"id": "1"})
