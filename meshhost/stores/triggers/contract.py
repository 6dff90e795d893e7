"""The contract of a trigger store: schedules, hooks and mailboxes of rooms, and the last things that happened to each.

A trigger is what `meshhost.triggers` makes of it: the store keeps its content as JSON text that it does not read, the time at
which somebody must look at it (`due_at`, None for never), and a version. Several room servers share one store. Each of them
finds the same triggers due, and each may be killed at any moment; so a trigger changes by compare-and-set only: `replace` takes
effect for the one that read the version before, and everybody else learns that it came too late. That is the invariant.

Beside each trigger is a log of its newest LOG_ENTRIES entries, for people who want to see what happened.

This module is pure: values and signatures, no I/O. One contract suite runs on all implementations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from meshhost.identity.tenant import RoomKey, TenantId

__all__ = ["LOG_ENTRIES", "LogEntry", "Trigger", "TriggerKind", "TriggerLimits", "TriggerStore"]

LOG_ENTRIES = 20


class TriggerKind(StrEnum):
    """What a trigger waits for: a time, a request of a foreign service, or a mail."""

    SCHEDULE = "schedule"
    HOOK = "hook"
    MAILBOX = "mailbox"


@dataclass(frozen=True, slots=True)
class Trigger:
    """A schedule, hook or mailbox of a room.

    `id` is unique over all kinds and tenants; ids in order of text are triggers in the order in which they were made, and
    mailboxes in that of their addresses. `content`
    is JSON text and may hold a secret. `due_at` is in seconds since the epoch by the wall clock. The first `version` is 1.
    """

    id: str
    kind: TriggerKind
    room: RoomKey
    content: str
    due_at: float | None = None
    version: int = 1

    def __repr__(self) -> str:
        return f"<Trigger {self.kind} {self.id[:11]} of {self.room} due_at={self.due_at} version={self.version}>"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One thing that happened to a trigger: when (seconds since the epoch), and what, as JSON text."""

    at: float
    content: str


@dataclass(frozen=True, slots=True)
class TriggerLimits:
    """How many triggers of one kind a room and a tenant may have.

    They protect the store: several processes that add at the same moment may exceed them by what the others add.
    """

    in_room: int = 100
    in_tenant: int = 1000


class TriggerStore(Protocol):
    """A durable store of triggers, shared by all processes that open it.

    Methods are safe to call concurrently, from any number of tasks and processes, and atomic. Changes are on disk when they
    return. A failing store raises OSError, and nothing of the call is done then; one that is not open raises RoomError.
    """

    async def open(self) -> None:
        """Make the store usable (schema, migrations). Raises SettingsError when it cannot be used, OSError."""
        ...

    async def close(self) -> None:
        """Finish what was accepted and release all resources. Idempotent; the store may be opened again."""
        ...

    async def add(self, trigger: Trigger, limits: TriggerLimits = TriggerLimits()) -> None:
        """Add a trigger. Raises AlreadyExistsError for an id that is there, LimitExceededError."""
        ...

    async def find(self, trigger_id: str) -> Trigger | None:
        """Return the trigger of this id, of whatever tenant, or None."""
        ...

    async def list(
        self, tenant: TenantId, room: str | None = None, *, kind: TriggerKind, after: str = "", limit: int = 1000
    ) -> Sequence[Trigger]:
        """Return the triggers of one kind of a tenant, or of one of its rooms, by id, at most `limit` after this id."""
        ...

    async def rooms(self, tenant: TenantId) -> Sequence[str]:
        """Return the names of the tenant's rooms that have a trigger, sorted."""
        ...

    async def replace(self, trigger: Trigger, entry: LogEntry | None = None) -> bool:
        """Store the content, room and due time of a trigger, and add an entry to its log; return whether that was done.

        The room may be another one of the same tenant.
        Nothing is done unless the trigger is there with the version before that of `trigger`.
        """
        ...

    async def add_entry(self, trigger_id: str, entry: LogEntry) -> None:
        """Add an entry to a trigger's log; nothing when the trigger is not there. Its version stays."""
        ...

    async def entries(self, trigger_id: str) -> Sequence[LogEntry]:
        """Return the log of a trigger, the newest entry first."""
        ...

    async def delete(self, tenant: TenantId, trigger_id: str) -> None:
        """Delete a trigger of a tenant with its log. Raises NotFoundError when the tenant has none of this id."""
        ...

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """Delete all triggers of a tenant, or of one of its rooms. Idempotent; a crash may leave some."""
        ...

    async def due(self, kind: TriggerKind, *, until: float, limit: int) -> Sequence[Trigger]:
        """Return triggers of a kind that are due at or before a time, the first due first, at most `limit`."""
        ...

    async def next_due(self, kind: TriggerKind) -> float | None:
        """Return when the next trigger of a kind is due, which may be past; None when none is."""
        ...

    async def is_due(self, room: RoomKey, kind: TriggerKind, *, until: float) -> bool:
        """Return whether a trigger of this room is due at or before a time."""
        ...
