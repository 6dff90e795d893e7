"""The contract of a queue store: durable queues with leases, for any number of room servers at once.

`meshhost.queues.service` is the caller; every engine implements `QueueStore`, and `tests/contract` pins the prose below by
running the same tests on each. `messages.py` has the values, with the states of a message's life, and `queue_settings.py` what
can be set for one queue. Two invariants must never break: an accepted message is lost by nothing but ack, cancel, its own ttl,
drain and delete; and a message is changed only by the holder of its present lease, which is known by its token (fencing), so
that a holder that woke too late is refused.

Several processes may use one store. What the contract promises then is said at each method; an engine that serves one process
only (SQLite, memory) refuses a second opener or cannot have one, and keeps the same promises between concurrent callers.
This module is pure: values and signatures, no I/O.

Longer than 400 lines because it is one contract.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NewType, Protocol, TypeAlias

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.messages import (
    DeadLetter,
    EndReason,
    MessagePage,
    MessageQuery,
    MessageRecord,
    MessageState,
    NewMessage,
    StoredMessage,
)
from meshhost.stores.queue_settings import Changes, QueueLimits, QueueSettings

__all__ = [
    "LONGEST_DELAY",
    "LONGEST_LEASE",
    "MAX_BATCH",
    "DeadLetter",
    "Delay",
    "Deliveries",
    "Delivery",
    "EndReason",
    "HolderId",
    "Lease",
    "MessagePage",
    "MessageQuery",
    "MessageRecord",
    "MessageState",
    "NewMessage",
    "QueueKey",
    "QueueLimits",
    "QueueSettings",
    "QueueStats",
    "QueueStore",
    "StoredIds",
    "StoredMessage",
    "TenantQueues",
]

# Seconds. No lease, no delay of a message and none before a retry may be longer.
LONGEST_LEASE = 3600.0
LONGEST_DELAY = 30 * 24 * 3600.0
# Messages that one `send_many` stores at most.
MAX_BATCH = 1000

HolderId = NewType("HolderId", str)
# Seconds, or a pure function to seconds from the attempt that failed (1 for the first) and the settings of the queue: only the
# store knows them.
Delay: TypeAlias = float | Callable[[int, QueueSettings], float]


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


@dataclass(frozen=True, slots=True)
class Lease:
    """A time-limited exclusive right to a message. `token` grows with every lease of that message.

    `is_cancelled`: the message was cancelled; its holder should stop, and settle it in any way.
    """

    queue: QueueKey
    message_id: int
    token: int
    holder: HolderId
    expires_at: float  # wall clock, seconds since the epoch
    is_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """One handing-over of a message.

    `attempt` is 1 plus the failures so far; `delivery` is 1 plus all deliveries that ended without an ack, for any reason
    but RELEASED. `deadline`: how many seconds the queue gives the holder for it. `waited`: for how many seconds it could have
    been handed out, since it was sent, its delay was over or it was given back; about, as clocks may have been set. None: it
    is not known, as the message was dead.
    """

    lease: Lease
    body: str
    headers: Mapping[str, str]
    attempt: int
    delivery: int
    sent_at: float
    priority: int = 0
    key: str | None = None
    deadline: float | None = None
    waited: float | None = field(default=None, compare=False)


class Deliveries(list[Delivery]):
    """What a claim handed out. `next_at`: the queue's rate allowed no more, and allows the next start then (wall clock)."""

    def __init__(self, deliveries: Iterable[Delivery] = (), *, next_at: float | None = None) -> None:
        super().__init__(deliveries)
        self.next_at = next_at


@dataclass(frozen=True, slots=True)
class QueueStats:
    """What is in a queue, and the age in seconds of the oldest message that is not dead.

    `delayed` are those that wait for their time or for their next attempt, `blocked` those behind one of their key. A message
    whose lease expired counts as ready, although its late holder may still settle it.
    """

    name: str
    ready: int
    leased: int
    delayed: int
    dead: int
    oldest_age: float | None
    blocked: int = 0
    is_paused: bool = False


class StoredIds(list[int]):
    """The ids of messages in the order in which they were sent. `new` of them were stored by this call."""

    def __init__(self, ids: Iterable[int], *, new: int) -> None:
        super().__init__(ids)
        self.new = new


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

        A message with the `sender_id` of one that this queue took within the time that this is remembered is that one, whatever
        became of it since: nothing is stored, and the id of the first is returned, also when the queue is full by now.
        """
        ...

    async def send_many(self, queue: QueueKey, messages: Sequence[NewMessage], *, create: bool = True) -> StoredIds:
        """Store up to MAX_BATCH messages in this order, all or none, and return their ids once they are durable.

        Each is as `send` would store it, and raises what `send` would raise. For one whose `sender_id` was taken before, the id
        of the first one is returned.
        """
        ...

    async def find_sent(self, queue: QueueKey, sender_id: str) -> int | None:
        """Return the id of the message that `send` would return for this `sender_id` without storing one, or None."""
        ...

    async def lease(
        self, queue: QueueKey, holder: HolderId, *, seconds: float, limit: int = 1, by: str = ""
    ) -> Deliveries:
        """Claim up to `limit` ready messages for `seconds`, in one operation; empty when none is ready.

        A message is ready when it has not ended, its time or that of its retry has come, no earlier message of its key is left,
        and it has no lease or its lease expired. Claiming a message whose lease expired counts that delivery as EXPIRED; one
        that this makes dead, that was cancelled, or whose ttl is over ends instead of being handed out. No message is leased to
        two callers at once, and no two of one key. `by` is what is shown of the holder.

        A paused queue has nothing that is ready, nor has one with as many unexpired leases as its `concurrency`. One with a
        `rate` hands out no more than that; the answer then says when the next may start, and `sweep` reports the queue at that
        time. A message that would be handed out while its key has no start left by the `key_rate` is put off: it is DELAYED, or
        FAILED, until its key has one.

        The deliveries are in order of priority, the highest first, and then of id, and were the first in this order when the
        claim began. A caller may skip messages that another process is claiming at this moment instead of waiting for it, so it
        may return fewer than `limit`. Raises NotFoundError for a missing queue.
        """
        ...

    async def ack(self, lease: Lease, *, result: str | None = None) -> bool:
        """The message is done, with this result (a JSON text). Raises LeaseLostError when this is not its present lease.

        The present lease is known by queue, message, token and holder. One that expired is still the present one until the
        message is leased again. Returns whether another message may have become ready by this: the next one of the key, or any
        of a queue with a `concurrency`.
        """
        ...

    async def ack_many(self, acks: Sequence[tuple[Lease, str | None]]) -> Sequence[bool | None]:
        """Ack each of these leases with its result, in one commit. For each what `ack` returns; None: its lease is lost."""
        ...

    async def nack(self, lease: Lease, *, reason: EndReason, error: str = "", delay: Delay = 0.0) -> bool:
        """Make the message ready again after `delay` seconds, at its old place in the order: it is not done.

        FAILED counts as an attempt; when that was the last one (`max_attempts`), the message is dead-lettered with `error`
        as its reason. INTERRUPTED counts towards `max_interruptions`. One that was cancelled meanwhile ends CANCELLED. Returns
        whether it is dead now; whichever way it ended, another one may have become ready. Raises LeaseLostError.
        """
        ...

    async def extend(self, lease: Lease, *, seconds: float, progress: str | None = None) -> Lease:
        """Let the lease run for `seconds` from now; return it with its new end, and whether the message was cancelled.

        `progress` (a JSON text) replaces what was reported of this delivery before. Raises LeaseLostError.
        """
        ...

    async def get(self, queue: QueueKey, message_id: int) -> MessageRecord | None:
        """Return what is known of a message of the queue; None when nothing is (any more). Raises NotFoundError."""
        ...

    async def find(self, queue: QueueKey, query: MessageQuery) -> MessagePage:
        """Return a page of the messages that fit, the newest first, each without its history. Raises NotFoundError.

        A page may be cut short, so that no call takes long however many messages do not fit.
        """
        ...

    async def peek(self, queue: QueueKey, *, limit: int) -> Sequence[MessageRecord]:
        """Return the up to `limit` messages that are ready and come first, in their order, each without its history.

        Whether the queue is paused, has a `concurrency` or a rate does not matter. Raises NotFoundError.
        """
        ...

    async def cancel(self, queue: QueueKey, message_id: int) -> MessageState | None:
        """End a message that nobody works on, dead or not; have the holder of a leased one told. Returns its state by now.

        That is CANCELLED, or LEASED: its holder learns it by `extend`, and the message ends CANCELLED when its lease ends in
        any way but by an ack. A message that ended before stays as it is. None: nothing is known of it. Another message may
        have become ready by this. Raises NotFoundError.
        """
        ...

    async def settings(self, queue: QueueKey) -> QueueSettings:
        """Return what is set for the queue. Raises NotFoundError."""
        ...

    async def configure(self, queue: QueueKey, changes: Changes) -> QueueSettings:
        """Set these for the queue, in one operation over all processes; keep the others, and return all. Raises NotFoundError,
        and InvalidRequestError that names the setting.

        A rate that changes begins anew: what was started before does not count, and what it has put off is ready.
        """
        ...

    async def release_holder(self, holder: HolderId, *, reason: EndReason, grace: float = 0.0) -> Sequence[QueueKey]:
        """End the leases of a holder that is gone for this reason (not FAILED).

        With a grace they expire within `grace` seconds instead. Returns the queues in which messages became, or will become,
        ready.
        """
        ...

    async def sweep(self) -> Sequence[QueueKey]:
        """Do what time asks for, and return the queues in which messages became ready by it.

        Messages whose ttl is over end, and what need not be known any more is forgotten. A message becomes ready by time alone
        when its delay is over or its lease expired, when one of its key expired, or when the rate of its queue, of which a
        claim wanted more than it allowed, allows another start.

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

        They are gone at once for every caller, and nothing is known of them. Their space may be freed later.
        """
        ...

    async def stats(self, room: RoomKey) -> Sequence[QueueStats]:
        """Return what is in each queue of a room, by name: one consistent view of the moment, over all processes."""
        ...

    async def overview(self, tenant: TenantId | None = None) -> Sequence[tuple[RoomKey, QueueStats]]:
        """Return `stats` of all rooms of a tenant, or of all tenants, by tenant, room and name. Costs as many queues do."""
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

    async def of_tenant(self, tenant: TenantId) -> TenantQueues:
        """Count the queues of a tenant and their messages: for its quota, about once a minute."""
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

        They take their old places in the order, above `max_depth` if need be, and do not expire; one whose key has messages
        already comes right after the one of them that is first. Many are moved in several steps: each is dead or ready at any
        moment, and a crash may leave some dead. Raises NotFoundError.
        """
        ...

    async def stored(self, queue: QueueKey, *, after: int, limit: int, max_bytes: int) -> Sequence[StoredMessage]:
        """Return up to `limit` messages of a queue, dead ones too, with ids above `after`, by id: a page of an archive.

        The first message with which the bodies have `max_bytes` bytes is the last; only an empty page is the end. A message
        that is kept from before the first page until after the last is in exactly one of them. Raises NotFoundError.
        """
        ...

    async def restore(self, queue: QueueKey, messages: Sequence[StoredMessage]) -> None:
        """Store messages of an archive at the end of the queue, which is made if it is missing; all or none.

        They get new ids, in the order that they are given in, and keep everything else; what is left of a ttl goes on from
        now. `max_depth` does not count. No delay is longer than LONGEST_DELAY. Nobody is woken. Raises LimitExceededError for a
        message that is too large, InvalidRequestError for one that is not Unicode, StorageFullError.
        """
        ...

    async def referred(self, names: Collection[str]) -> Collection[str]:
        """Return those of these names of objects to which a body or a result refers (`bodies/reference.py`), in any queue.

        What a drain or a deletion hides may still refer, until its space is freed.
        """
        ...
