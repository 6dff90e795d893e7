"""What the queues of a room answer, as values: queues and their settings, and what is known of messages.

`queues.py` reads the replies of the server into these. Times are in seconds since the epoch. A server of a newer release may
answer with more members, which are ignored; one that misses a member here answers wrongly, and the caller gets a RoomError.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from meshhost.room.services.large_bodies import LargeBody, large_body

__all__ = [
    "Attempt",
    "DeadMessage",
    "MessageRecord",
    "MessageState",
    "NewMessage",
    "Queue",
    "QueueSettings",
    "SentIds",
    "dead_message",
    "message_record",
    "queue",
    "queue_settings",
]

MessageState = Literal["delayed", "ready", "blocked", "leased", "failed", "done", "dead", "cancelled", "expired"]
_ENDED = ("done", "dead", "cancelled", "expired")


@dataclass(frozen=True, slots=True)
class Queue:
    """The size of a queue. `size` counts the waiting messages; a MeshAgent server reports nothing else (the rest is None).

    `ready`, `leased`, `delayed`, `blocked` (behind another message of their key) and `dead` count messages; `oldest_age` is the
    age of the oldest one in seconds. A `paused` queue delivers nothing.
    """

    name: str
    size: int
    ready: int | None = None
    leased: int | None = None
    delayed: int | None = None
    dead: int | None = None
    oldest_age: float | None = None
    blocked: int | None = None
    paused: bool | None = None


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The settings of a queue. None: as for all queues of the server.

    `paused`: nothing is delivered. `max_attempts` failures make a message dead; the first retry waits about `retry_seconds`,
    each later one twice as long, at most `max_retry_seconds`. `max_depth` bounds the messages that did not end. `deadline` is
    how many seconds a worker may take for one message. `concurrency` bounds the messages that are worked on at once, over all
    workers. `result_ttl` is for how many seconds it is known how a message ended, and its result; 0: not at all. `rate`, such
    as "10/s", "600/m" or "100/h", bounds how many are started, first attempts and later ones alike, over all workers; `burst`
    is how many may start at once after a pause (None: as many as in a second, at least one); `key_rate` is the rate of each
    key.
    """

    paused: bool = False
    max_attempts: int | None = None
    retry_seconds: float | None = None
    max_retry_seconds: float | None = None
    max_depth: int | None = None
    deadline: float | None = None
    concurrency: int | None = None
    result_ttl: float = 3600.0
    rate: str | None = None
    burst: int | None = None
    key_rate: str | None = None


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message that was dead-lettered after its last attempt. `reason` is the last error, times are in Unix seconds.

    A large message is not here: `body` says what is known of it, and `queues.body` fetches it.
    """

    id: str
    message: Any
    headers: Mapping[str, str]
    attempts: int
    reason: str
    sent_at: float
    died_at: float
    body: LargeBody | None = None


@dataclass(frozen=True, slots=True)
class NewMessage:
    """One message for `send_many`; the options are those of `send`."""

    message: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None
    id_seconds: float | None = None
    delay: float | None = None
    at: Any = None
    priority: int = 0
    key: str | None = None
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A delivery that ended without an ack. `by` is the participant that worked on it."""

    began_at: float
    ended_at: float
    by: str
    reason: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """What is known of a message.

    `due_at` is when a delayed or failed message becomes ready, `expires_at` when its ttl is over, `lease_until` when the lease
    of a leased one ends. `began_at` and `by` are those of the present or last delivery. `reason` says why a message is dead.
    `is_cancelling`: it was cancelled while it was leased, and its worker has not answered since. A message that ended has no
    contents any more, unless it is dead; a participant that may only send gets neither contents nor history. Of a large message
    or result, `body` or `result_body` says what is known, and `queues.body` fetches it.
    """

    id: str
    state: MessageState
    sent_at: float
    priority: int = 0
    key: str | None = None
    message: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    failures: int = 0
    deliveries: int = 0
    due_at: float | None = None
    expires_at: float | None = None
    began_at: float | None = None
    by: str | None = None
    lease_until: float | None = None
    progress: Any = None
    result: Any = None
    ended_at: float | None = None
    reason: str | None = None
    is_cancelling: bool = False
    history: Sequence[Attempt] = ()
    body: LargeBody | None = None
    result_body: LargeBody | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it will not be delivered any more, unless a dead one is replayed."""
        return self.state in _ENDED


def queue(entry: Mapping[str, Any]) -> Queue:
    """Read an entry of the reply to `queues.list`."""
    extra = ("ready", "leased", "delayed", "dead", "oldest_age", "blocked", "paused")
    return Queue(name=entry["name"], size=int(entry["size"]), **{key: entry.get(key) for key in extra})


class SentIds(list[str]):
    """The ids of messages that were sent together, in their order.

    `before` of them had been sent under their id already and were not stored again; None when the server does not say.
    """

    def __init__(self, ids: Iterable[str], *, before: int | None) -> None:
        super().__init__(ids)
        self.before = before


def dead_message(entry: Mapping[str, Any]) -> DeadMessage:
    """Read an entry of the reply to `queues.dead`."""
    return DeadMessage(**(_known(DeadMessage, entry) | {"body": large_body(entry.get("body"))}))


def queue_settings(entry: Mapping[str, Any]) -> QueueSettings:
    """Read the settings of a queue."""
    return QueueSettings(**_known(QueueSettings, entry))


def message_record(entry: Mapping[str, Any]) -> MessageRecord:
    """Read what is known of a message."""
    values = _known(MessageRecord, entry)
    values |= {name: large_body(entry.get(name)) for name in ("body", "result_body")}
    values["is_cancelling"] = bool(entry.get("cancelling"))
    values["history"] = tuple(Attempt(**_known(Attempt, attempt)) for attempt in entry.get("history", ()))
    return MessageRecord(**values)


def _known(kind: type[Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: entry[each.name] for each in fields(kind) if each.name in entry}
