"""Runs the scheduler of a server, and keeps rooms open whose schedules are due soon.

The message of an occurrence wakes its room as every message does (`work.py`). A room that has nothing else to do stays open
when one of its schedules is due before it has lingered once more: its agents would be called again at once.
"""

from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.triggers.scheduler import Scheduler

__all__ = ["SchedulingService"]


class SchedulingService(RoomService):
    """See above."""

    def __init__(self, scheduler: Scheduler, *, linger_seconds: float) -> None:
        self._scheduler = scheduler
        self._linger_seconds = linger_seconds

    async def run(self) -> None:
        """Send for what is due, until cancelled."""
        await self._scheduler.run()

    async def has_work(self, room: Room) -> bool:
        """See RoomService."""
        return await self._scheduler.has_due(room.key, within=self._linger_seconds)
