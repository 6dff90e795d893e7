"""The state of a room as its watchers see it, and what changed in it.

A room may have 10,000 participants, and each second something changes in it: to encode all of them again, for all or even for
each who watches, would cost more than the work of the room. `RoomState` encodes a participant once, when it comes, and keeps
the text; the whole state is joined from such texts, and only when somebody needs it. What changed since the state before is
encoded with it, once for all who saw that one.

A state knows its predecessor by number (`fresh.py`), and keeps the changes of the last few, so that a reader who missed some
catches up. Ages always change: they are not compared, and an event says when it was made.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, Self

from meshhost.server.fresh import Made

__all__ = ["RoomState", "event"]

# Changes that are kept for readers who missed some.
_KEPT = 8


class _Participant(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...


class RoomState:
    """The state of a room. Two are equal when nothing but ages is different."""

    def __init__(
        self,
        *,
        is_open: bool,
        participants: Mapping[str, str],
        queues: Sequence[dict[str, Any]],
        calls: Sequence[dict[str, Any]],
    ) -> None:
        self._at = round(time.time(), 3)
        self._is_open = is_open
        self.participants = participants  # as JSON, by id
        self._queues = queues
        self.still = {queue["name"]: {**queue, "oldest_age": None} for queue in queues}
        self.calls = calls
        self.changes: Sequence[tuple[int, bytes]] = ()
        self._event: bytes | None = None

    @classmethod
    def made(
        cls,
        *,
        is_open: bool,
        participants: Iterable[_Participant],
        queues: Sequence[dict[str, Any]],
        calls: Sequence[dict[str, Any]],
        before: Made["RoomState"] | None,
    ) -> Self:
        """The state now; `before` is the one that readers saw last, with its number."""
        known: Mapping[str, str] = {} if before is None else before.value.participants
        texts = {each.id: known.get(each.id) or _participant(each) for each in participants}
        state = cls(is_open=is_open, participants=texts, queues=queues, calls=calls)
        if before is not None and state != before.value:
            changes = (*before.value.changes, (before.number, state._change_since(before.value)))
            state.changes = changes[-_KEPT:]
        return state

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RoomState) and self._compared == other._compared

    __hash__ = None  # type: ignore[assignment]

    @property
    def _compared(self) -> tuple[Any, ...]:
        return (self._is_open, self.participants, self.still, self.calls)

    def event(self) -> bytes:
        """The whole state, as an event `room`."""
        if self._event is None:
            participants = ", ".join(self.participants.values())
            rest = json.dumps({"at": self._at, "open": self._is_open, "queues": self._queues, "calls": self.calls})
            self._event = _event("room", f'{rest[:-1]}, "participants": [{participants}]}}')
        return self._event

    def changes_since(self, number: int) -> bytes | None:
        """The events `change` that lead here from the state of this number, None when they are not known any more."""
        for index, (base, _) in enumerate(self.changes):
            if base == number:
                return b"".join(change for _, change in self.changes[index:])
        return None

    def _change_since(self, before: "RoomState") -> bytes:
        joined = [text for key, text in self.participants.items() if key not in before.participants]
        left = [key for key in before.participants if key not in self.participants]
        queues = [queue for queue in self._queues if self.still[queue["name"]] != before.still.get(queue["name"])]
        gone = [name for name in before.still if name not in self.still]
        change: dict[str, Any] = {"at": self._at, "open": self._is_open, "left": left, "queues": queues, "gone": gone}
        if self.calls != before.calls:
            change["calls"] = self.calls
        return _event("change", f'{json.dumps(change)[:-1]}, "joined": [{", ".join(joined)}]}}')


def event(name: str, data: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return _event(name, json.dumps(data))


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()


def _participant(each: _Participant) -> str:
    return json.dumps({"id": each.id, "name": each.name, "role": each.role})
