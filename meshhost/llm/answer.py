"""What the readers of other APIs' answers have in common (`AnswerReader`), and the items they build (`Items`).

A reader is fed the bytes of a streamed answer in pieces of any size, or the body of a whole one, and returns events of the
Responses API as soon as they are complete. `end` closes what is open. An answer that stopped before its end has no last event:
`is_cut` is true then, and who forwards it must break off its own answer, so that the caller asks again.

Invariants: no event after the last one; each text and each argument text is the concatenation of its pieces, in order; what
cannot be read is left out and never raises.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from meshhost.llm.builder import Event, ResponseBuilder
from meshhost.llm.sse import DataLines

__all__ = ["AnswerReader", "Items", "count_of", "json_object"]

# Of one event; images that a model makes travel in one.
_MAX_LINE = 64 * 1024 * 1024
_MOST = 10**9


class Items:
    """The open items of one answer. Text, refusal and thought grow one at a time; calls may grow in turns."""

    def __init__(self, out: ResponseBuilder, thought_prefix: str) -> None:
        self._out = out
        self._thought_prefix = thought_prefix
        self._open: tuple[str, int] | None = None  # the kind and the place of the text that grows
        self._calls: dict[object, int] = {}

    def grow(self, kind: str, piece: str) -> list[Event]:
        """Add to the text of this kind: text, refusal or thought. An item of another kind ends."""
        if not piece:
            return []
        events: list[Event] = []
        if self._open is None or self._open[0] != kind:
            events += self.end_text()
            begin = {"text": self._out.text_begin, "refusal": self._out.refusal_begin}.get(kind)
            events += begin() if begin else self._out.reasoning_begin(self._thought_prefix)
            self._open = (kind, self._out.last)
        delta = {"text": self._out.text_delta, "refusal": self._out.refusal_delta}.get(kind, self._out.reasoning_delta)
        return events + delta(piece, self._open[1])

    def begin_thought(self) -> list[Event]:
        """Open a thought that may stay without a text."""
        events = self.end_text()
        events += self._out.reasoning_begin(self._thought_prefix)
        self._open = ("thought", self._out.last)
        return events

    def end_text(self, **fields: Any) -> list[Event]:
        """Close the text that grows; `fields` are added to a thought."""
        if self._open is None:
            return []
        (kind, at), self._open = self._open, None
        match kind:
            case "text":
                return self._out.text_end(at)
            case "refusal":
                return self._out.refusal_end(at)
            case _:
                return self._out.reasoning_end(at, **fields)

    def begin_call(self, key: object, name: str, call_id: str | None, **fields: Any) -> list[Event]:
        """Open a call under `key`."""
        events = self.end_text()
        events += self._out.call_begin(name, call_id, **fields)
        self._calls[key] = self._out.last
        return events

    def grow_call(self, key: object, piece: str) -> list[Event]:
        """Add to the arguments of the call under `key`."""
        return self._out.call_delta(piece, self._calls[key]) if piece else []

    def end_call(self, key: object) -> list[Event]:
        """Close the call under `key`."""
        return self._out.call_end(self._calls.pop(key))

    def end(self) -> list[Event]:
        """Close everything."""
        events = self.end_text()
        for key in list(self._calls):
            events += self.end_call(key)
        return events


class AnswerReader(ABC):
    """Translates one answer. Feed it pieces and ask for `end`, or give it a `whole` body."""

    def __init__(self, request: Mapping[str, Any], *, thought_prefix: str = "rs") -> None:
        self.out = ResponseBuilder(str(request.get("model") or ""), request)
        self.items = Items(self.out, thought_prefix)
        self.is_cut = False
        self._lines = DataLines(max_line=_MAX_LINE)
        self._is_begun = self._is_over = False

    @property
    def body(self) -> dict[str, Any]:
        """The answer so far, as the body of a response."""
        return self.out.body

    @property
    def is_over(self) -> bool:
        """Whether the last event was returned."""
        return self._is_over

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes of a stream; return the events that they complete."""
        events: list[Event] = []
        for value in self._lines.feed(data):
            events += self.line(value)
        return events

    def line(self, value: bytes) -> list[Event]:
        """Take the value of one `data:` line."""
        if self._is_over:
            return []
        events = [] if self._is_begun else self._begin()
        if value == b"[DONE]":
            return events + self._done()
        found = json_object(value)
        return events if found is None else events + self._take(found)

    def whole(self, body: Mapping[str, Any]) -> list[Event]:
        """Take a whole answer; return all events."""
        return [*self._begin(), *self._whole(body)]

    def end(self) -> list[Event]:
        """The stream has ended: return the last events, none when it was cut."""
        if self._is_over:
            return []
        events = self._finish()
        self.is_cut = not self._is_over
        return events

    def _begin(self) -> list[Event]:
        self._is_begun = True
        return self.out.begin()

    def _end_with(self, last: list[Event]) -> list[Event]:
        self._is_over = True
        return last

    def _fail(self, error: object) -> list[Event]:
        """The provider reports an error inside its answer."""
        fields = error if isinstance(error, Mapping) else {"message": error}
        names = [str(fields[name]) for name in ("code", "type") if fields.get(name) not in (None, "", "error")]
        message = str(fields.get("message") or "the model failed")
        # Without a name, the message says what kind it is.
        return self._end_with([*self.items.end(), *self.out.fail(message, names[0] if names else message[:200])])

    @abstractmethod
    def _take(self, value: dict[str, Any]) -> list[Event]:
        """Take one value of the stream."""

    @abstractmethod
    def _whole(self, body: Mapping[str, Any]) -> list[Event]:
        """Take the body of a whole answer."""

    def _done(self) -> list[Event]:
        """The stream says that it is complete."""
        return self._finish()

    @abstractmethod
    def _finish(self) -> list[Event]:
        """Return the last events if the answer is complete, else none."""


def json_object(value: bytes) -> dict[str, Any] | None:
    """Return the JSON object in `value`, or None when it is something else."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def count_of(usage: Mapping[str, Any], *names: str) -> int:
    """Return the first of these counts that is a number; 0 when none is."""
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return min(value, _MOST)
    return 0
