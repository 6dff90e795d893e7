"""Schedules and hooks in this process's memory: the contract of TriggerStore in its plainest form.

Used by the memory engine. Methods do not await anything, so each is atomic in its event loop.
"""

from collections import deque
from collections.abc import Sequence

from meshhost.errors import AlreadyExistsError, LimitExceededError, NotFoundError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.triggers.contract import LOG_ENTRIES, LogEntry, Trigger, TriggerKind, TriggerLimits

__all__ = ["MemoryTriggerStore"]


class MemoryTriggerStore:
    """Keeps the contract of TriggerStore except durability. `is_open`: it needs no `open`."""

    def __init__(self, *, is_open: bool = False) -> None:
        self._triggers: dict[str, Trigger] = {}
        self._logs: dict[str, deque[LogEntry]] = {}
        self._open = is_open

    async def open(self) -> None:
        """See TriggerStore."""
        self._open = True

    async def close(self) -> None:
        """See TriggerStore."""
        self._open = False

    async def add(self, trigger: Trigger, limits: TriggerLimits = TriggerLimits()) -> None:  # noqa: B008 - immutable
        """See TriggerStore."""
        if trigger.id in self._all():
            raise AlreadyExistsError("there is a trigger of this id")
        same = [each for each in self._triggers.values() if each.kind is trigger.kind]
        if sum(each.room.tenant == trigger.room.tenant for each in same) >= limits.in_tenant:
            raise LimitExceededError(f"the tenant has {limits.in_tenant} {trigger.kind}s already, which is the limit")
        if sum(each.room == trigger.room for each in same) >= limits.in_room:
            raise LimitExceededError(f"the room has {limits.in_room} {trigger.kind}s already, which is the limit")
        self._triggers[trigger.id] = trigger
        self._logs[trigger.id] = deque(maxlen=LOG_ENTRIES)

    async def find(self, trigger_id: str) -> Trigger | None:
        """See TriggerStore."""
        return self._all().get(trigger_id)

    async def list(
        self, tenant: TenantId, room: str | None = None, *, kind: TriggerKind, after: str = "", limit: int = 1000
    ) -> Sequence[Trigger]:
        """See TriggerStore."""
        found = [
            each
            for each in self._all().values()
            if each.kind is kind and each.room.is_of(tenant, room) and each.id > after
        ]
        return sorted(found, key=lambda each: each.id)[:limit]

    async def rooms(self, tenant: TenantId) -> Sequence[str]:
        """See TriggerStore."""
        return sorted({each.room.name for each in self._all().values() if each.room.tenant == tenant})

    async def replace(self, trigger: Trigger, entry: LogEntry | None = None) -> bool:
        """See TriggerStore."""
        present = self._all().get(trigger.id)
        if present is None or present.version != trigger.version - 1 or present.room.tenant != trigger.room.tenant:
            return False
        self._triggers[trigger.id] = trigger
        if entry is not None:
            self._logs[trigger.id].append(entry)
        return True

    async def add_entry(self, trigger_id: str, entry: LogEntry) -> None:
        """See TriggerStore."""
        if trigger_id in self._all():
            self._logs[trigger_id].append(entry)

    async def entries(self, trigger_id: str) -> Sequence[LogEntry]:
        """See TriggerStore."""
        self._all()
        return [*reversed(self._logs.get(trigger_id, ()))]

    async def delete(self, tenant: TenantId, trigger_id: str) -> None:
        """See TriggerStore."""
        found = self._all().get(trigger_id)
        if found is None or found.room.tenant != tenant:
            raise NotFoundError("no such trigger")
        del self._triggers[trigger_id], self._logs[trigger_id]

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """See TriggerStore."""
        for found in [each for each in self._all().values() if each.room.is_of(tenant, room)]:
            await self.delete(tenant, found.id)

    async def due(self, kind: TriggerKind, *, until: float, limit: int) -> Sequence[Trigger]:
        """See TriggerStore."""
        return [each for at, each in self._in_order(kind) if at <= until][:limit]

    async def next_due(self, kind: TriggerKind) -> float | None:
        """See TriggerStore."""
        return next((at for at, _ in self._in_order(kind)), None)

    async def is_due(self, room: RoomKey, kind: TriggerKind, *, until: float) -> bool:
        """See TriggerStore."""
        return any(at <= until and each.room == room for at, each in self._in_order(kind))

    def _all(self) -> dict[str, Trigger]:
        if not self._open:
            raise RoomError("the trigger store is not open")
        return self._triggers

    def _in_order(self, kind: TriggerKind) -> Sequence[tuple[float, Trigger]]:
        found = [(each.due_at, each) for each in self._all().values() if each.kind is kind and each.due_at is not None]
        return sorted(found, key=lambda pair: (pair[0], pair[1].id))
