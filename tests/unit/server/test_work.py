"""Reports of messages wake rooms that sleep only when the store says that there is work."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from meshhost.errors import RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.server.services.work import WorkService
from meshhost.stores.queues import QueueKey

TENANT = TenantId("acme")


class Queues:
    """Queues whose rooms have the work that a test gives them."""

    def __init__(self) -> None:
        self.on_ready: list[Any] = []
        self.working: set[RoomKey] = set()
        self.asked: list[RoomKey | None] = []
        self.is_broken = False

    async def rooms_with_work(self, *, within: float, room: RoomKey | None = None) -> Sequence[RoomKey]:
        self.asked.append(room)
        if self.is_broken:
            raise RoomError("broken")
        return [key for key in self.working if room in (None, key)]


class Woken(asyncio.Queue[RoomKey]):
    """The rooms that were woken."""

    async def rooms(self, number: int) -> list[str]:
        async with asyncio.timeout(10):
            return sorted([(await self.get()).name for _ in range(number)])


async def test_reports_are_looked_at_before_a_room_that_sleeps_is_woken() -> None:
    queues, woken, awake = Queues(), Woken(), {RoomKey(TENANT, "awake")}
    work = WorkService(
        cast(Any, queues),
        linger_seconds=1.0,
        look_seconds=3600.0,
        need=woken.put_nowait,
        is_awake=lambda key: key in awake,
    )
    running = asyncio.create_task(work.run())
    while queues.asked != [None]:  # noqa: ASYNC110 - the look at the start
        await asyncio.sleep(0)

    def report(*names: str) -> None:
        for name in names:
            queues.on_ready[0](QueueKey(RoomKey(TENANT, name), "jobs"))

    queues.working = {RoomKey(TENANT, "busy")}
    report("awake", "idle", "busy", "busy")
    assert await woken.rooms(2) == ["awake", "busy"]
    assert len(queues.asked) == 3  # the room that is awake is not asked for, and the others once

    queues.asked.clear()
    report(*(f"idle {number}" for number in range(100)), "busy")
    assert await woken.rooms(1) == ["busy"]
    assert queues.asked == [None]

    queues.is_broken = True
    report("unknown")
    assert await woken.rooms(1) == ["unknown"]
    running.cancel()
    await asyncio.wait([running])
    assert queues.on_ready == []
