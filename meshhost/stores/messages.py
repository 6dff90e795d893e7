"""What is said about a message: how it is sent, the states of its life, and how it is shown, archived or set aside.

Values of the contract of queue stores (`stores/queues.py`), used by every engine and by all that calls one. A message begins
*ready*, *delayed* or *blocked* (behind an earlier message of its key), is *leased* while somebody works on it, waits as
*failed* for its next attempt, and ends *done*, *dead*, *cancelled* or *expired*. What is known of a message that ended is kept
for the `result_ttl` of its queue, and then forgotten; a dead one is kept until somebody replays or cancels it. This module is
pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "ENDED",
    "HIGHEST_PRIORITY",
    "MAX_ERROR_CHARS",
    "MAX_HISTORY",
    "SENT_BY_SECONDS",
    "AttemptRecord",
    "DeadLetter",
    "EndReason",
    "MessagePage",
    "MessageQuery",
    "MessageRecord",
    "MessageState",
    "NewMessage",
    "StoredMessage",
    "kept_error",
    "sent_by_mark",
]

# Priorities go from its negative to this.
HIGHEST_PRIORITY = 100
# What is kept of the ends of a message's deliveries: the newest, with so much of the end of each error.
MAX_HISTORY = 10
MAX_ERROR_CHARS = 2000
# For how long it is known who sent a message, after its delay.
SENT_BY_SECONDS = 7 * 24 * 3600.0


def kept_error(error: str) -> str:
    """What is kept of an error: its end, where a traceback says what went wrong."""
    return error[-MAX_ERROR_CHARS:]


class MessageState(StrEnum):
    """Where a message is in its life."""

    DELAYED = "delayed"  # until the time that it was sent for
    READY = "ready"  # the next receiver gets it; also after a lease that expired
    BLOCKED = "blocked"  # behind an earlier message of its key
    LEASED = "leased"  # somebody works on it
    FAILED = "failed"  # its last attempt failed, and it waits for the next one
    DONE = "done"
    DEAD = "dead"  # set aside after its last attempt
    CANCELLED = "cancelled"
    EXPIRED = "expired"  # not begun within its `ttl`


# The states that a message does not leave by itself.
ENDED = frozenset({MessageState.DONE, MessageState.DEAD, MessageState.CANCELLED, MessageState.EXPIRED})


class EndReason(StrEnum):
    """Why a delivery ended without an ack."""

    FAILED = "failed"  # the agent raised: counts against the message
    INTERRUPTED = "interrupted"  # stop, deploy, crash or lost connection of the host: not the message's fault
    EXPIRED = "expired"  # the lease was not renewed in time: its holder is gone; an interruption
    RELEASED = "released"  # handed back before work began: the delivery is not counted at all


@dataclass(frozen=True, slots=True)
class NewMessage:
    """What is sent: a JSON text and string headers (trace context travels there).

    `sender_id` is the sender's own name for it: a message that is sent again under the same one is stored once. It is
    remembered for `remember_seconds` (None: as long as the store's limits say).

    `delay` seconds pass before it is ready. A higher `priority` is delivered first. Messages of one `key` are delivered one at
    a time, in the order in which they were sent: one that waits, for its delay or its next attempt, holds back those behind it.
    A message that nobody works on when its `ttl` seconds are over is never delivered any more.

    `sent_by` is a name of who sent it, kept apart from the message until SENT_BY_SECONDS after its delay: `find_sent` then
    finds the message by its `sent_by_mark`. It is for senders that may read nothing but what they sent.
    """

    body: str
    headers: Mapping[str, str] = field(default_factory=dict)
    sender_id: str | None = None
    remember_seconds: float | None = None
    delay: float = 0.0
    priority: int = 0
    key: str | None = None
    ttl: float | None = None
    sent_by: str | None = None


def sent_by_mark(message_id: int, sent_by: str) -> str:
    """The `sender_id` under which `find_sent` finds this message if that sender sent it. No client can choose such an id."""
    return f"meshhost:by:{message_id}:{sent_by}"


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """A delivery that ended without an ack, for any reason but RELEASED. Times are wall clock; `by` names who worked on it."""

    began_at: float
    ended_at: float
    by: str
    reason: EndReason
    error: str = ""


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """What is known of a message. Times are wall clock, seconds since the epoch.

    `due_at` is when a delayed or failed message becomes ready, `lease_until` when the lease of a leased one ends. `began_at`
    and `by` are those of the present or last delivery. `progress` and `result` are JSON texts; the result is that of a message
    that is done. Body and headers are not kept of a message that ended, unless it is dead; `reason` says why that is.
    `is_cancelling`: it was cancelled while it was leased, and its holder has not settled it yet.
    """

    id: int
    state: MessageState
    sent_at: float
    priority: int = 0
    key: str | None = None
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    failures: int = 0
    deliveries: int = 0
    due_at: float | None = None
    expires_at: float | None = None
    began_at: float | None = None
    by: str | None = None
    lease_until: float | None = None
    progress: str | None = None
    result: str | None = None
    ended_at: float | None = None
    reason: str | None = None
    is_cancelling: bool = False
    history: Sequence[AttemptRecord] = ()


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """Which messages of a queue are looked for: those that fit everything that is given.

    `text` is looked for in the body, or in the reason of a dead letter; letters' case counts. `since` and `until` bound the
    time of sending (wall clock). `before` is the `next` of the page before; `limit` bounds the messages of a page.
    """

    states: frozenset[MessageState] | None = None
    key: str | None = None
    text: str | None = None
    since: float | None = None
    until: float | None = None
    before: int | None = None
    limit: int = 50

    def fits(self, record: MessageRecord) -> bool:
        """Whether a message is one of those that are looked for; `before` and `limit` aside."""
        if self.text is not None and self.text not in (record.body or "") and self.text not in (record.reason or ""):
            return False
        return (
            (self.states is None or record.state in self.states)
            and (self.key is None or record.key == self.key)
            and (self.since is None or record.sent_at >= self.since)
            and (self.until is None or record.sent_at <= self.until)
        )


@dataclass(frozen=True, slots=True)
class MessagePage:
    """A page of what a MessageQuery found, the newest first. `next` is where the next page begins; None: there is none.

    A page may hold fewer messages than the query's limit, or none, although there is a next one.
    """

    messages: Sequence[MessageRecord]
    next: int | None


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
class StoredMessage:
    """A message as it is kept, for an archive.

    `attempts`, `interruptions` and `deliveries` count as the store does; a dead letter keeps no interruptions. `due_at` is when
    a delayed message becomes ready; a leased message has none. A dead letter has a `reason` and a time of death.
    """

    id: int
    body: str
    headers: Mapping[str, str]
    sent_at: float
    attempts: int = 0
    interruptions: int = 0
    deliveries: int = 0
    due_at: float | None = None
    reason: str | None = None
    died_at: float | None = None
    priority: int = 0
    key: str | None = None
    expires_at: float | None = None
