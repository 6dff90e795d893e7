"""One queue of the store in memory: its messages, the dead, what is remembered, and how messages of one key follow each other.

`MemoryQueueStore` is the only user; read its module first. A message that is *held back* waits behind an earlier one of its
key: of each key exactly one message, the head, is not. Whatever takes a head out of the queue calls `let_follow`. Times of
`due`, `expires` and `forget` are steady times, all others wall clock.
"""

import dataclasses
from dataclasses import dataclass, field

from meshhost.stores.memory.starts import MemoryStarts
from meshhost.stores.messages import (
    MAX_HISTORY,
    AttemptRecord,
    DeadLetter,
    EndReason,
    MessageRecord,
    MessageState,
    NewMessage,
    StoredMessage,
    kept_error,
)
from meshhost.stores.queue_settings import QueueSettings
from meshhost.stores.queues import HolderId

__all__ = ["MemoryMessage", "MemoryQueue"]


@dataclass(slots=True)
class MemoryMessage:
    """A message that has not ended, or a dead one."""

    id: int
    content: NewMessage
    sent_at: float
    failures: int = 0
    interruptions: int = 0
    ended: int = 0  # deliveries that ended without an ack
    token: int = 0
    holder: HolderId | None = None  # the last to lease it, until that lease is settled, released or taken over
    due: float | None = None  # when time makes it ready: its lease expires or its time comes; None: it is ready
    since: float | None = None  # when it was given back, or its former due; None: it is ready since it was sent
    expires: float | None = None
    is_held_back: bool = False
    is_cancelled: bool = False
    began_at: float | None = None
    by: str | None = None
    progress: str | None = None
    history: tuple[AttemptRecord, ...] = ()

    @property
    def key(self) -> str | None:
        """Messages of one key are delivered one at a time."""
        return self.content.key

    @property
    def place(self) -> tuple[int, int]:
        """Its place in the order of delivery."""
        return -self.content.priority, self.id

    def is_ready(self, now: float) -> bool:
        """Whether it could be claimed at this time."""
        return not self.is_held_back and (self.due is None or self.due <= now)

    def is_leased(self, now: float) -> bool:
        """Whether somebody works on it whose lease has not expired."""
        return self.holder is not None and self.due is not None and self.due > now

    def is_over(self, now: float) -> bool:
        """Whether its ttl is over and nobody works on it."""
        return self.holder is None and self.expires is not None and self.expires <= now

    def make_ready(self, now: float | None = None, *, at: float | None = None) -> None:
        """Nobody works on it any more."""
        self.holder, self.due, self.since = None, at, now

    def note(self, reason: EndReason, error: str, ended_at: float) -> None:
        """Add the end of its present delivery to what is known of it."""
        self.ended += 1
        attempt = AttemptRecord(self.began_at or ended_at, ended_at, self.by or "", reason, kept_error(error))
        self.history = (*self.history, attempt)[-MAX_HISTORY:]

    def state(self, now: float) -> MessageState:
        """Where it is in its life, as long as it has not ended."""
        if self.is_held_back:
            return MessageState.BLOCKED
        if self.is_leased(now):
            return MessageState.LEASED
        if self.is_ready(now):
            return MessageState.READY
        return MessageState.FAILED if self.failures else MessageState.DELAYED

    def record(self, now: float, shift: float) -> MessageRecord:
        """What is known of it now. `shift` is the wall clock less the steady time."""
        state = self.state(now)
        until = None if self.due is None else self.due + shift
        return MessageRecord(
            self.id,
            state,
            self.sent_at,
            self.content.priority,
            self.key,
            self.content.body,
            dict(self.content.headers),
            self.failures,
            self.ended,
            due_at=until if self.holder is None else None,
            expires_at=None if self.expires is None else self.expires + shift,
            began_at=self.began_at,
            by=self.by,
            lease_until=until if state is MessageState.LEASED else None,
            progress=self.progress,
            is_cancelling=self.is_cancelled,
            history=self.history,
        )

    def letter(self, reason: str, died_at: float) -> DeadLetter:
        """The message as a dead letter."""
        headers = dict(self.content.headers)
        return DeadLetter(self.id, self.content.body, headers, self.failures, reason, self.sent_at, died_at)

    def stored(self, letter: DeadLetter | None, shift: float) -> StoredMessage:
        """The message for an archive; `letter` when it is dead."""
        due_at = None if self.due is None or self.holder is not None else self.due + shift
        return StoredMessage(
            self.id,
            self.content.body,
            dict(self.content.headers),
            self.sent_at,
            self.failures,
            0 if letter else self.interruptions,
            self.ended,
            due_at,
            letter.reason if letter else None,
            letter.died_at if letter else None,
            self.content.priority,
            self.key,
            None if self.expires is None else self.expires + shift,
        )


@dataclass(slots=True)
class MemoryQueue:
    """A queue. `sent` has, by the sender's id, the message and until when that is remembered; `ended` the same by message."""

    settings: QueueSettings = field(default_factory=QueueSettings)
    messages: dict[int, MemoryMessage] = field(default_factory=dict)
    dead: dict[int, tuple[MemoryMessage, DeadLetter]] = field(default_factory=dict)
    sent: dict[str, tuple[int, float]] = field(default_factory=dict)
    ended: dict[int, tuple[MessageRecord, float]] = field(default_factory=dict)
    starts: MemoryStarts = field(default_factory=MemoryStarts)

    def in_order(self) -> list[MemoryMessage]:
        """The messages that have not ended, in order of delivery."""
        return sorted(self.messages.values(), key=lambda message: message.place)

    def add(self, message: MemoryMessage) -> None:
        """Take a message in; it is held back when there is one of its key."""
        message.is_held_back = message.key is not None and any(
            other.key == message.key for other in self.messages.values()
        )
        self.messages[message.id] = message

    def take_out(self, message: MemoryMessage) -> bool:
        """Take a message out; return whether the next one of its key is not held back any more."""
        del self.messages[message.id]
        followers = [other for other in self.messages.values() if message.key is not None and other.key == message.key]
        if message.is_held_back or not followers:
            return False
        min(followers, key=lambda other: other.id).is_held_back = False
        return True

    def bury(self, message: MemoryMessage, reason: str, died_at: float) -> None:
        """Make a message dead."""
        self.take_out(message)
        message.make_ready()
        message.is_held_back = message.is_cancelled = False
        self.dead[message.id] = (message, message.letter(reason, died_at))

    def end(
        self, message: MemoryMessage, state: MessageState, ended_at: float, now: float, *, result: str | None = None
    ) -> bool:
        """A message that is not dead ends; return what `take_out` returns."""
        follows = self.take_out(message)
        self.remember(message.record(now, 0.0), state, ended_at, now, result=result)
        return follows

    def remember(
        self, record: MessageRecord, state: MessageState, ended_at: float, now: float, *, result: str | None = None
    ) -> None:
        """Keep what is known of a message that ended, for as long as is set."""
        if self.settings.result_ttl <= 0:
            return
        ended = dataclasses.replace(
            record,
            state=state,
            body=None,
            headers={},
            due_at=None,
            expires_at=None,
            lease_until=None,
            progress=None,
            result=result,
            ended_at=ended_at,
            is_cancelling=False,
        )
        self.ended[record.id] = (ended, now + self.settings.result_ttl)

    def records(self, now: float, shift: float) -> list[MessageRecord]:
        """What is known of all messages."""
        found = [message.record(now, shift) for message in self.messages.values()]
        found += [self.dead_record(message, letter) for message, letter in self.dead.values()]
        return found + [record for record, forget in self.ended.values() if forget > now]

    @staticmethod
    def dead_record(message: MemoryMessage, letter: DeadLetter) -> MessageRecord:
        """What is known of a dead message."""
        record = message.record(0.0, 0.0)
        return dataclasses.replace(
            record,
            state=MessageState.DEAD,
            due_at=None,
            expires_at=None,
            progress=None,
            ended_at=letter.died_at,
            reason=letter.reason,
        )
