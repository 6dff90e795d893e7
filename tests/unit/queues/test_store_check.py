"""The queue store is asked at most every few seconds whether it works."""

import pytest

from meshhost.queues.store_check import StoreCheck
from meshhost.stores.memory.queues import MemoryQueueStore
from meshhost.testing.clock import FakeClock


class Broken(MemoryQueueStore):
    """Counts how often it is asked, and works when it is mended."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.error: OSError | None = OSError("storage full")

    async def check(self) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error


async def test_an_answer_is_kept_for_a_while_and_then_asked_for_again() -> None:
    store, clock = Broken(), FakeClock()
    check = StoreCheck(store, clock)
    for _ in range(3):
        with pytest.raises(OSError, match="storage full"):
            await check()
    assert store.asked == 1
    store.error = None
    await clock.advance(10)
    for _ in range(3):
        await check()
    assert store.asked == 2
