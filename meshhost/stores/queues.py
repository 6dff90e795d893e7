"""The contract of a queue store: durable queues with leases, for any number of room servers at once.

`meshhost.queues.service` is the caller; every engine implements `QueueStore`, and `tests/contract` pins the prose below by
running the same tests on each. A message is in one of four states: *ready*, *delayed* (until its retry time), *leased* (until
the lease is settled, released or runs out) and *dead* (set aside after its last attempt). Two invariants must never break: an
accepted message is lost by nothing but ack, drain and delete; and a message is changed only by the holder of its present
lease, which is known by its token (fencing), so that a holder that woke too late is refused.

Several processes may use one store. What the contract promises then is said at each method; an engine that serves one process
only (SQLite, memory) refuses a second opener or cannot have one, and keeps the same promises between concurrent callers.
This module is pure: values and signatures, no I/O.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, NewType, Protocol, TypeAlias

from meshhost.identity.tenant import RoomKey, TenantId

__all__ = [
    "LONGEST_DELAY",
    "LONGEST_LEASE",
    "DeadLetter",
    "Delay",
    "Delivery",
    "EndReason",
    "HolderId",
    "Lease",
    "NewMessage",
    "QueueKey",
    "QueueLimits",
    "QueueStats",
    "QueueStore",
    "TenantQueues",
]

# Seconds. No lease and no delay before a retry may be longer.
LONGEST_LEASE = 3600.0
LONGEST_DELAY = 7 * 24 * 3600.0

HolderId = NewType("HolderId", str)
# Seconds, or a pure function from the attempt that failed (1 for the first) to seconds: only the store knows the attempt.
Delay: TypeAlias = float | Callable[[int], float]


class QueueKey(NamedTuple):
    """A queue: the room it belongs to and its name there."""

    room: RoomKey
    name: str

    def __str__(self) -> str:
        return f"{self.room}/{self.name}"


class TenantQueues(NamedTuple):
    """How many queues a tenant has in all its rooms, and how many messages are in them, dead ones included."""

    queues: int
    messages: int


class EndReason(StrEnum):
    """Why a delivery ended without an ack."""

    FAILED = "failed"  # the agent raised: counts against the message
    INTERRUPTED = "interrupted"  # stop, deploy, crash or lost connection of the host: not the message's fault
    EXPIRED = "expired"  # the lease was not renewed in time: its holder is gone; an interruption
    RELEASED = "released"  # handed back before work began: the delivery is not counted at all


@dataclass(frozen=True, slots=True)
class NewMessage:
    """What is sent: a JSON text and string headers (trace context travels there).

    `sender_id` is the sender's own name for it: a message that is sent again under the same one is stored once.
    """

    body: str
    headers: Mapping[str, str] = field(default_factory=dict)
    sender_id: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """A time-limited exclusive right to a message. `token` grows with every lease of that message."""

    queue: QueueKey
    message_id: int
    token: int
    holder: HolderId
    expires_at: float  # wall clock, seconds since the epoch


@dataclass(frozen=True, slots=True)
class Delivery:
    """One handing-over of a message.

    `attempt` is 1 plus the failures so far; `delivery` is 1 plus all deliveries that ended without an ack, for any reason
    but RELEASED.
    """

    lease: Lease
    body: str
    headers: Mapping[str, str]
    attempt: int
    delivery: int
    sent_at: float


@dataclass(frozen=True, slots=True)
class QueueStats:
    """What is in a queue: ready, leased, delayed and dead messages, and the age in seconds of the oldest that is not dead.

    A message whose lease expired counts as ready, although its late holder may still settle it.
    """

    name: str
    ready: int
    leased: int
    delayed: int
    dead: int
    oldest_age: float | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message set aside after its last attempt, with the reason (an exception's text and traceback)."""

    message_id: int
    body: str
    headers: Mapping[str, str]
    attempts: int
    reason: str
    sent_at: float
    died_at: float


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What a store accepts.

    `max_attempts` failures make a message dead, and so do `max_interruptions` deliveries that ended INTERRUPTED or EXPIRED:
    such a message ends or blocks its process, and would go round for ever. `max_depth` bounds the messages of one queue that
    are not dead; `max_message_bytes` bounds body and headers of one message together, as UTF-8. A `sender_id` is remembered
    for `remember_ids_seconds`: many times as long as a client sends one message again.

    `max_depth` protects the store; it is not a counter to build on. A queue below it is never refused. One process never
    exceeds it. When several processes send to one queue at the same moment, an engine may exceed it by what the others
    stored within the last second, because an exact count over processes would be one row that every send has to lock.
    """

    max_attempts: int = 5
    max_interruptions: int = 5
    max_depth: int = 1_000_000
    max_message_bytes: int = 8 * 1024 * 1024
    remember_ids_seconds: float = 600.0


class QueueStore(Protocol):
    """A durable store of queues, shared by all processes that open it.

    All methods are safe to call concurrently, from any number of tasks and processes. Each is atomic unless it says
    otherwise: it happens wholly or not at all, and no caller sees it half done. None holds up the others for long, however
    many messages it is about. An accepted change survives `kill -9` of this process and, on disk, power
    loss. Cancelling a caller cancels the wait, not always the change. A failing store raises OSError, and nothing is half
    done then; one that is not open raises RoomError. Times are wall clock; processes that share a store need clocks that
    agree to well within a lease. A clock that is set forward or back ends and prolongs no lease and no delay: `sweep`
    notices it and moves the stored times by as much, where the store belongs to one process. What was set while the store
    was closed prolongs none beyond LONGEST_LEASE and LONGEST_DELAY.
    """

    async def open(self) -> None:
        """Make the store usable (schema, migrations). Leases of other or former processes stay until they expire.

        Several processes may open one store at the same moment: migrations run once. Raises SettingsError when the store
        cannot be used by us: held by another process (engines for one process), or of a newer version.
        """
        ...

    async def close(self) -> None:
        """Finish what was accepted and release all resources. Idempotent; the store may be opened again."""
        ...

    async def check(self) -> None:
        """Prove by a durable write that a message could be stored now. Raises StorageFullError, OSError, RoomError."""
        ...

    async def create(self, queue: QueueKey) -> None:
        """Create the queue if it is missing. Raises InvalidRequestError when its name is not Unicode."""
        ...

    async def delete(self, queue: QueueKey) -> None:
        """Remove the queue and all its messages, dead ones too. Raises NotFoundError.

        They are gone at once for every caller; the space that they took may be freed later, also after a crash.
        """
        ...

    async def exists(self, queue: QueueKey) -> bool:
        """Return whether the queue exists."""
        ...

    async def delete_all(self, tenant: TenantId, room: str | None = None) -> None:
        """Delete all queues of a tenant, or of one of its rooms, with their messages; idempotent, in steps.

        Returns when nothing of them is kept any more. After a crash the call must be repeated.
        """
        ...

    async def send(self, queue: QueueKey, message: NewMessage, *, create: bool = True) -> int:
        """Store a message at the end of the queue and return its id once it is durable.

        Ids are unique over all queues and processes and are never used again. A send that begins after another one returned
        gets a greater id, whichever processes they ran in; sends that overlap may get theirs in any order. Raises
        NotFoundError when the queue is missing and `create` is false, LimitExceededError when the queue is full (see
        QueueLimits) or the message too large, InvalidRequestError when a text of it is not Unicode, StorageFullError when
        the disk has no more room than leasing and settling need.

        A message with the `sender_id` of one that this queue took within `remember_ids_seconds` is that one, whatever became
        of it since: nothing is stored, and the id of the first is returned, also when the queue is full by now.
        """
        ...

    async def find_sent(self, queue: QueueKey, sender_id: str) -> int | None:
        """Return the id of the message that `send` would return for this `sender_id` without storing one, or None."""
        ...

    async def lease(self, queue: QueueKey, holder: HolderId, *, seconds: float, limit: int = 1) -> Sequence[Delivery]:
        """Claim up to `limit` ready messages for `seconds`, in one operation; empty when none is ready.

        A message is ready when it is not dead, its retry time has come, and it has no lease or its lease expired. Claiming
        a message whose lease expired counts that delivery as EXPIRED; one that this makes dead is not handed out. No message
        is leased to two callers at once.

        The deliveries are in order of id, and are the oldest that were ready when the claim began. A caller may skip
        messages that another process is claiming at this moment instead of waiting for it, so it may return fewer than
        `limit`. Raises NotFoundError for a missing queue.
        """
        ...

    async def ack(self, lease: Lease) -> None:
        """Delete the message: it is done. Raises LeaseLostError when the lease is not the message's present lease.

        The present lease is known by queue, message, token and holder. One that expired is still the present one until the
        message is leased again.
        """
        ...

    async def nack(self, lease: Lease, *, reason: EndReason, error: str = "", delay: Delay = 0.0) -> bool:
        """Make the message ready again after `delay` seconds, at its old place in the order: it is not done.

        FAILED counts as an attempt; when that was the last one (`max_attempts`), the message is dead-lettered with `error`
        as its reason. INTERRUPTED counts towards `max_interruptions`. Returns whether it is dead now. Raises LeaseLostError.
        """
        ...

    async def extend(self, lease: Lease, *, seconds: float) -> Lease:
        """Let the lease run for `seconds` from now and return it with its new end. Raises LeaseLostError."""
        ...

    async def release_holder(self, holder: HolderId, *, reason: EndReason, grace: float = 0.0) -> Sequence[QueueKey]:
        """End the leases of a holder that is gone for this reason (not FAILED).

        With a grace they expire within `grace` seconds instead. Returns the queues in which messages became, or will become,
        ready.
        """
        ...

    async def sweep(self) -> Sequence[QueueKey]:
        """Return the queues in which a message became ready by time alone: a retry came due or a lease expired.

        Every process may sweep at any time. Each such message is reported exactly once, to one caller in one process: the
        others do not see it again, and that caller wakes the receivers that wait for it (through the notifier). When its
        process dies in between, those receivers find the message at their next poll. Readiness never depends on this call,
        and a message that `lease` handed out meanwhile need not be reported.
        """
        ...

    async def next_due(self) -> float | None:
        """Return when `sweep` will next have something to report (wall clock, perhaps in the past), or None."""
        ...

    async def drain(self, queue: QueueKey) -> int:
        """Delete all messages of the queue, leased ones too but not the dead; return how many. Raises NotFoundError.

        They are gone at once for every caller; the space that they took may be freed later, also after a crash.
        """
        ...

    async def stats(self, room: RoomKey) -> Sequence[QueueStats]:
        """Return what is in each queue of a room, by name: one consistent view of the moment, over all processes."""
        ...

    async def of_tenant(self, tenant: TenantId) -> TenantQueues:
        """Count the queues of a tenant and their messages: for its quota, about once a minute."""
        ...

    async def rooms_with_work(self, *, within: float, room: RoomKey | None = None) -> Sequence[RoomKey]:
        """Return the rooms (of all, or of this one) that have undone work, sorted.

        Work is a message that is ready, that has a lease (also one that expired), or that becomes ready within `within`
        seconds. Dead messages and those delayed for longer are none. The cost grows with the queues that are not empty and
        with the leases, not with the messages.
        """
        ...

    async def rooms_of(self, tenant: TenantId) -> Sequence[str]:
        """Return the names of the tenant's rooms that have a queue, empty or not, sorted."""
        ...

    async def totals(self) -> QueueStats:
        """Return the sum over all queues of all rooms, under the name `""`: one consistent view of the moment."""
        ...

    async def dead_letters(
        self,
        queue: QueueKey,
        *,
        limit: int = 100,
        before: tuple[float, int] | None = None,
        max_bytes: int | None = None,
    ) -> Sequence[DeadLetter]:
        """Return up to `limit` dead messages of a queue, newest first. Raises NotFoundError.

        With `before`, the time of death and the id of a letter, those that are older than it: the next page. The first letter
        with which bodies and reasons have `max_bytes` characters is the last; fewer than `limit` then do not mean the end.
        """
        ...

    async def replay(self, queue: QueueKey, message_ids: Sequence[int] | None = None) -> int:
        """Make dead messages (all, or these) ready again with a fresh count of attempts; return how many.

        They take their old places in the order, above `max_depth` if need be. Many are moved in several steps: each is dead or
        ready at any moment, and a crash may leave some dead. Raises NotFoundError.
        """
        ...
