"""What a queue store does, for whoever implements one. One contract suite (tests/contract) runs on all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, NewType, Protocol, TypeAlias

from meshhost.identity.tenant import RoomKey

__all__ = [
    "DeadLetter",
    "Delay",
    "Delivery",
    "EndReason",
    "HolderId",
    "Lease",
    "NewMessage",
    "QueueBackend",
    "QueueKey",
    "QueueLimits",
    "QueueStats",
]

HolderId = NewType("HolderId", str)
# Seconds, or a pure function from the attempt that failed (1 for the first) to seconds: only the store knows the attempt.
Delay: TypeAlias = float | Callable[[int], float]


class QueueKey(NamedTuple):
    """A queue: the room it belongs to and its name there."""

    room: RoomKey
    name: str

    def __str__(self) -> str:
        return f"{self.room}/{self.name}"


class EndReason(StrEnum):
    """Why a delivery ended without an ack."""

    FAILED = "failed"  # the agent raised: counts against the message
    INTERRUPTED = "interrupted"  # stop, deploy, crash or lost connection of the host: not the message's fault
    EXPIRED = "expired"  # nobody renewed the lease: the holder is gone; an interruption
    RELEASED = "released"  # handed back unworked: the delivery is not counted at all


@dataclass(frozen=True, slots=True)
class NewMessage:
    """What is sent: a JSON text and string headers (trace context travels there)."""

    body: str
    headers: Mapping[str, str] = field(default_factory=dict)


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

    `attempt` is 1 plus the failures so far; `delivery` is 1 plus all hand-overs that ended without an ack, for whatever
    reason but RELEASED.
    """

    lease: Lease
    body: str
    headers: Mapping[str, str]
    attempt: int
    delivery: int
    sent_at: float


@dataclass(frozen=True, slots=True)
class QueueStats:
    """What is in a queue: ready now, leased, waiting for a retry time, dead; the age in seconds of the oldest not dead.

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
    """What a store takes.

    `max_attempts` failures make a message dead, and so do `max_interruptions` deliveries that ended INTERRUPTED or EXPIRED:
    such a message ends or blocks its process, and would go round for ever. `max_depth` messages that are not dead fit into
    one queue; `max_message_bytes` bounds body and headers of one message together, as UTF-8.
    """

    max_attempts: int = 5
    max_interruptions: int = 5
    max_depth: int = 1_000_000
    max_message_bytes: int = 8 * 1024 * 1024


class QueueBackend(Protocol):
    """A durable store of queues. All methods are safe to call concurrently; each is atomic: it happens wholly or not.

    An accepted change survives `kill -9` of this process and, on disk, power loss. Cancelling a caller cancels the wait,
    not always the change. A failing store raises OSError, and nothing is then half done; one that is not open raises
    RoomError.
    """

    async def open(self) -> None:
        """Make the store usable (schema, migrations). Leases of a former process stay until they expire.

        Raises SettingsError when the store is not ours to use: held by another process, or of a newer version.
        """
        ...

    async def close(self) -> None:
        """Finish what was accepted and release all resources. Idempotent; the store may be opened again."""
        ...

    async def create(self, queue: QueueKey) -> None:
        """Make the queue if it is missing. Raises InvalidRequestError when its name is not Unicode."""
        ...

    async def delete(self, queue: QueueKey) -> None:
        """Remove the queue and all its messages, dead ones too. Raises NotFoundError."""
        ...

    async def exists(self, queue: QueueKey) -> bool:
        """Whether the queue was made."""
        ...

    async def send(self, queue: QueueKey, message: NewMessage, *, create: bool = True) -> int:
        """Store a message at the end of the queue and return its id once it is durable.

        Ids grow in order of acceptance and are never used again. Raises NotFoundError when the queue is missing and
        `create` is false, LimitExceededError when the queue is full or the message too large, InvalidRequestError when
        a text of it is not Unicode.
        """
        ...

    async def lease(self, queue: QueueKey, holder: HolderId, *, seconds: float, limit: int = 1) -> Sequence[Delivery]:
        """Claim up to `limit` ready messages, oldest first, for `seconds`. Empty when none is ready.

        A message is ready when it is not dead, its retry time has come, and it has no lease or its lease expired. Claiming a
        message whose lease expired counts that delivery as EXPIRED; one that this makes dead is not handed out. Raises
        NotFoundError for a missing queue.
        """
        ...

    async def ack(self, lease: Lease) -> None:
        """Done: delete the message. Raises LeaseLostError when the lease is no longer the present one.

        The present lease is known by queue, message, token and holder. One that expired and that nobody has taken over
        is still the present one.
        """
        ...

    async def nack(self, lease: Lease, *, reason: EndReason, error: str = "", delay: Delay = 0.0) -> bool:
        """Not done: make the message ready again after `delay` seconds, at its old place in the order.

        FAILED counts as an attempt; when that was the last one (`max_attempts`), the message is dead-lettered with `error`
        as its reason. INTERRUPTED counts towards `max_interruptions`. Returns whether it is dead now. Raises LeaseLostError.
        """
        ...

    async def extend(self, lease: Lease, *, seconds: float) -> Lease:
        """Let the lease run `seconds` from now. Raises LeaseLostError."""
        ...

    async def release_holder(self, holder: HolderId, *, reason: EndReason, grace: float = 0.0) -> Sequence[QueueKey]:
        """The holder is gone: its leases end for this reason (not FAILED) or, with a grace, expire within `grace` seconds.

        Returns the queues in which messages became (or will become) ready.
        """
        ...

    async def sweep(self) -> Sequence[QueueKey]:
        """Return the queues in which a message became ready by time alone: a retry came due or a lease expired.

        Each such message is reported once, so that a store with nobody to wake comes to rest. Whether it is ready does not
        depend on this call, and one that `lease` handed out meanwhile need not be reported.
        """
        ...

    async def next_due(self) -> float | None:
        """When `sweep` will next have something to report (wall clock, perhaps past already), or None."""
        ...

    async def drain(self, queue: QueueKey) -> int:
        """Delete all messages of the queue, leased ones too but not the dead; returns how many. Raises NotFoundError."""
        ...

    async def stats(self, room: RoomKey) -> Sequence[QueueStats]:
        """All queues of a room, by name."""
        ...

    async def dead_letters(self, queue: QueueKey, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The dead messages of a queue, newest first. Raises NotFoundError."""
        ...

    async def replay(self, queue: QueueKey, message_ids: Sequence[int] | None = None) -> int:
        """Make dead messages (all, or these) ready again with a fresh count of attempts; returns how many.

        They take their old places in the order, above `max_depth` if need be. Raises NotFoundError.
        """
        ...
