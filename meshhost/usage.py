"""How agents report the work they do: queue messages they settled, and tokens of models they used.

A host runs each agent inside `reporting_to(sink)`. The sink is kept in a context variable, so that `report_message` and
`report_tokens`, called by the queue consumer and the LLM adapter, reach the sink of their own agent: in that task and in the
tasks it starts. Without a sink a report does nothing, which is the case outside a host. An agent in a process of its own
reports into sums that the process sends to its host; they come from outside and are validated there, so every number has a
bound. The host shows the sums in its `/metrics`. Invariant: a report never waits, and no number that is reported makes it fail.
"""

import math
import threading
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol, get_args

from pydantic import Field

from meshhost.errors import InvalidRequestError

__all__ = [
    "BOUNDS",
    "OUTCOMES",
    "Durations",
    "Outcome",
    "Tally",
    "UsageSink",
    "UsageSums",
    "current_sink",
    "report_message",
    "report_tokens",
    "reporting_to",
]

Outcome = Literal["done", "failed", "dead", "released", "lost"]
"""What became of a message: `done`; `failed`, it comes back; `dead`, that was its last attempt; `released`, the agent stops and
gave it back; `lost`, it comes back since its lease was lost or it could not be settled."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Upper bound of each bucket of `Durations`, in seconds; one more bucket holds everything above."""

_MOST = 2**53
# Most that one report may count, so that the sum of many reports between two answers of a process stays below _MOST.
_MOST_REPORTED = 10**9
_BUCKETS = len(BOUNDS) + 1

# Checked where they come from another process.
_Count = Annotated[int, Field(ge=0, le=_MOST)]
_Seconds = Annotated[float, Field(ge=0, le=_MOST, allow_inf_nan=False)]
_Counts = Annotated[list[_Count], Field(min_length=_BUCKETS, max_length=_BUCKETS)]


@dataclass(slots=True)
class Durations:
    """How many durations fell into each bucket, and their sum in seconds: what a histogram keeps of them."""

    counts: _Counts = field(default_factory=lambda: [0] * _BUCKETS)
    total: _Seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Record one duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def add(self, other: "Durations") -> None:
        """Merge another histogram into this one."""
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def copy(self) -> "Durations":
        """Return a copy that does not share its counts."""
        return Durations(list(self.counts), self.total)


@dataclass(slots=True)
class UsageSums:
    """Reports, added up. `waits` are the times from sent to taken, `works` those from taken to settled."""

    messages: dict[Outcome, _Count] = field(default_factory=dict)
    waits: Durations = field(default_factory=Durations)
    works: Durations = field(default_factory=Durations)
    input_tokens: _Count = 0
    output_tokens: _Count = 0

    def add(self, other: "UsageSums") -> None:
        """Add another set of sums to these."""
        for outcome, number in other.messages.items():
            self.messages[outcome] = self.messages.get(outcome, 0) + number
        self.waits.add(other.waits)
        self.works.add(other.works)
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens

    def copy(self) -> "UsageSums":
        """Return a copy that shares nothing with this one."""
        return UsageSums(
            dict(self.messages), self.waits.copy(), self.works.copy(), self.input_tokens, self.output_tokens
        )


class UsageSink(Protocol):
    """Takes reports, in any thread; never raises."""

    def message(self, outcome: Outcome, *, waited: float | None, worked: float) -> None:
        """A message was worked on: see `report_message`."""

    def tokens(self, model: str, input_tokens: int, output_tokens: int) -> None:
        """A model answered: see `report_tokens`."""

    def add(self, sums: UsageSums) -> None:
        """Add reports that another process has summed up."""


class Tally:
    """A sink that sums up what is reported. Not by model: the number of model names has no bound."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = UsageSums()
        self._is_empty = True

    def message(self, outcome: Outcome, *, waited: float | None, worked: float) -> None:
        """Count the message and record its times."""
        with self._lock:
            self._is_empty = False
            self._sums.messages[outcome] = self._sums.messages.get(outcome, 0) + 1
            self._sums.works.observe(worked)
            if waited is not None:
                self._sums.waits.observe(waited)

    def tokens(self, model: str, input_tokens: int, output_tokens: int) -> None:
        """Add the tokens of one answer."""
        with self._lock:
            self._is_empty = False
            self._sums.input_tokens += input_tokens
            self._sums.output_tokens += output_tokens

    def add(self, sums: UsageSums) -> None:
        """Add these sums."""
        with self._lock:
            self._is_empty = False
            self._sums.add(sums)

    def sums(self) -> UsageSums:
        """Return a copy of all reports so far."""
        with self._lock:
            return self._sums.copy()

    def take(self) -> UsageSums | None:
        """Return all reports since the last `take` and start again from zero; None when there were none."""
        with self._lock:
            if self._is_empty:
                return None
            taken, self._sums, self._is_empty = self._sums, UsageSums(), True
            return taken


_sink: ContextVar[UsageSink | None] = ContextVar("meshhost_usage_sink", default=None)


@contextmanager
def reporting_to(sink: UsageSink | None) -> Iterator[None]:
    """Send what is reported inside the block to this sink (None: nowhere); the innermost block wins."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


def current_sink() -> UsageSink | None:
    """Return the sink that a report made here would reach."""
    return _sink.get()


def report_message(outcome: Outcome, *, worked: float, waited: float | None = None) -> None:
    """Report that a queue message was worked on for `worked` seconds, and how that ended.

    `waited` is how many seconds the message was in the queue before it was first taken; None when that is unknown or this was a
    later attempt. Negative numbers count as 0, because two machines' clocks may differ. Raises InvalidRequestError for an
    unknown outcome.
    """
    if outcome not in OUTCOMES:
        raise InvalidRequestError("outcome", f"expected one of {', '.join(OUTCOMES)}")
    if (sink := _sink.get()) is not None:
        sink.message(outcome, waited=None if waited is None else _bounded(waited), worked=_bounded(worked))


def report_tokens(model: str, input_tokens: int, output_tokens: int) -> None:
    """Report the tokens that one answer of a model used. `OpenAIResponsesAdapter` does this by itself."""
    if (sink := _sink.get()) is not None:
        sink.tokens(model, int(_bounded(input_tokens)), int(_bounded(output_tokens)))


def _bounded(number: float) -> float:
    """Limit a number to what one report may hold: a sum that once took NaN or infinity would keep it."""
    return 0 if math.isnan(number) else min(max(number, 0), _MOST_REPORTED)
