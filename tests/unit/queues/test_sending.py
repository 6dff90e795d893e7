"""Messages of several senders are stored together, and each is accepted or refused for itself."""

from collections.abc import AsyncIterator, Sequence

import pytest

from meshhost.errors import LimitExceededError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.sending import send_each
from meshhost.queues.service import QueueService
from meshhost.queues.sweeper import QueueSweeper
from meshhost.stores.memory.queues import MemoryQueueStore
from meshhost.stores.queues import HolderId, NewMessage, QueueKey, QueueLimits
from meshhost.stores.shared.local_notifier import LocalNotifier

JOBS = QueueKey(RoomKey(TenantId("acme"), "lobby"), "jobs")


class _Store(MemoryQueueStore):
    def __init__(self) -> None:
        super().__init__(limits=QueueLimits(max_depth=2))
        self.sizes: list[int] = []

    async def send_many(self, queue: QueueKey, messages: Sequence[NewMessage], *, create: bool = True):  # type: ignore[no-untyped-def]
        self.sizes.append(len(messages))
        return await super().send_many(queue, messages, create=create)


@pytest.fixture
async def store() -> AsyncIterator[_Store]:
    made = _Store()
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def queues(store: _Store) -> AsyncIterator[QueueService]:
    async with QueueService(store, notifier=LocalNotifier(), sweeper=QueueSweeper(store)) as service:
        yield service


async def test_messages_are_stored_in_one_operation(queues: QueueService, store: _Store) -> None:
    ids = await send_each(queues, JOBS, [NewMessage("1"), NewMessage("2")], create=True)
    assert store.sizes == [2]
    taken = await queues.receive_many(JOBS, HolderId("ann"), limit=5)
    assert [(each.lease.message_id, each.body) for each in taken] == list(zip(ids, ["1", "2"], strict=True))


async def test_only_those_are_refused_that_have_to_be(queues: QueueService, store: _Store) -> None:
    sent = await send_each(queues, JOBS, [NewMessage(str(number)) for number in range(3)], create=True)
    assert store.sizes == [3, 1, 1, 1]
    assert [type(each) for each in sent] == [int, int, LimitExceededError]
    taken = await queues.receive_many(JOBS, HolderId("ann"), limit=5)
    assert [each.body for each in taken] == ["0", "1"]


async def test_a_lone_message_is_refused_once(queues: QueueService, store: _Store) -> None:
    (refused,) = await send_each(queues, JOBS, [NewMessage("1")], create=False)
    assert isinstance(refused, NotFoundError)
    assert store.sizes == [1]
