"""What agents report about their own work: messages they processed, and tokens of models they used.

These numbers are *self-reported*: they come from the agent's code (the queue consumer, the model adapter, or a program that
calls `report_tokens`), cover models that do not pass the gateway, and may be wrong. They are shown in a host's `/metrics`
and are never billed. What the gateway measured is the truth about models: `meshhost.gateway.meter`,
`meshhost.stores.usage`.

A host wraps each agent in `reporting_to(sink)`; reports inside, in that task and in those it starts, go to that sink (a
context variable). Without a sink a report does nothing. `Tally` adds reports up under a lock, since an agent may report
from a thread; an agent in a process of its own sends the sums of its Tally to the host, where the pydantic limits below are
checked.
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

Outcome = Literal["done", "failed", "dead", "cancelled", "released", "lost"]
"""What happened to a message: `done`; `failed`, it will be retried; `dead`, that was its last attempt; `cancelled`, somebody
cancelled it meanwhile; `released`, the agent gave it back because it stops; `lost`, it will be retried since its lease was lost
or it could not be settled."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Upper bounds of the buckets of `Durations` in seconds; one more bucket holds the rest."""

_MOST = 2**53
# Limit of one report, so that the sum of many reports between two answers of a process stays below _MOST, which a host accepts.
_MOST_REPORTED = 10**9
_BUCKETS = len(BOUNDS) + 1

# pydantic checks these where sums arrive from another process.
_Count = Annotated[int, Field(ge=0, le=_MOST)]
_Seconds = Annotated[float, Field(ge=0, le=_MOST, allow_inf_nan=False)]
_Counts = Annotated[list[_Count], Field(min_length=_BUCKETS, max_length=_BUCKETS)]


@dataclass(slots=True)
class Durations:
    """A histogram of durations: how many fell into each bucket, and their sum in seconds."""

    counts: _Counts = field(default_factory=lambda: [0] * _BUCKETS)
    total: _Seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Record a duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def add(self, other: "Durations") -> None:
        """Merge another histogram."""
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def copy(self) -> "Durations":
        """Return a copy."""
        return Durations(list(self.counts), self.total)


@dataclass(slots=True)
class UsageSums:
    """Sums of reports. `waits` are the times from sent to first taken, `works` those from taken to settled."""

    messages: dict[Outcome, _Count] = field(default_factory=dict)
    waits: Durations = field(default_factory=Durations)
    works: Durations = field(default_factory=Durations)
    input_tokens: _Count = 0
    output_tokens: _Count = 0
    dropped_spans: _Count = 0

    def add(self, other: "UsageSums") -> None:
        """Add other sums."""
        for outcome, number in other.messages.items():
            self.messages[outcome] = self.messages.get(outcome, 0) + number
        self.waits.add(other.waits)
        self.works.add(other.works)
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.dropped_spans += other.dropped_spans

    def copy(self) -> "UsageSums":
        """Return a copy."""
        return UsageSums(
            dict(self.messages),
            self.waits.copy(),
            self.works.copy(),
            self.input_tokens,
            self.output_tokens,
            self.dropped_spans,
        )


class UsageSink(Protocol):
    """Receives reports, in any thread; never raises."""

    def message(self, outcome: Outcome, *, waited: float | None, worked: float) -> None:
        """A message was processed: see `report_message`."""

    def tokens(self, model: str, input_tokens: int, output_tokens: int) -> None:
        """A model answered: see `report_tokens`."""

    def dropped(self, spans: int) -> None:
        """So many spans were not reported to the room server."""

    def add(self, sums: UsageSums) -> None:
        """Reports that were summed elsewhere."""


class Tally:
    """A sink that sums reports. Tokens are not kept by model, since an agent may use any number of model names."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = UsageSums()
        self._is_empty = True

    def message(self, outcome: Outcome, *, waited: float | None, worked: float) -> None:
        """Count a message and its times."""
        with self._lock:
            self._is_empty = False
            self._sums.messages[outcome] = self._sums.messages.get(outcome, 0) + 1
            self._sums.works.observe(worked)
            if waited is not None:
                self._sums.waits.observe(waited)

    def tokens(self, model: str, input_tokens: int, output_tokens: int) -> None:
        """Count tokens."""
        with self._lock:
            self._is_empty = False
            self._sums.input_tokens += input_tokens
            self._sums.output_tokens += output_tokens

    def dropped(self, spans: int) -> None:
        """Count spans that were not reported."""
        with self._lock:
            self._is_empty = False
            self._sums.dropped_spans += spans

    def add(self, sums: UsageSums) -> None:
        """Add sums."""
        with self._lock:
            self._is_empty = False
            self._sums.add(sums)

    def sums(self) -> UsageSums:
        """Return a copy of all sums so far."""
        with self._lock:
            return self._sums.copy()

    def take(self) -> UsageSums | None:
        """Return the sums since the last `take` and reset them; None when nothing was reported."""
        with self._lock:
            if self._is_empty:
                return None
            taken, self._sums, self._is_empty = self._sums, UsageSums(), True
            return taken


_sink: ContextVar[UsageSink | None] = ContextVar("meshhost_usage_sink", default=None)


@contextmanager
def reporting_to(sink: UsageSink | None) -> Iterator[None]:
    """Send reports made inside the block to this sink (None: nowhere). The innermost block wins."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


def current_sink() -> UsageSink | None:
    """Return the sink of the present context, or None."""
    return _sink.get()


def report_message(outcome: Outcome, *, worked: float, waited: float | None = None) -> None:
    """Report that a message of a queue was processed for `worked` seconds, with this outcome.

    `waited` is how many seconds it had been in the queue when it was taken for the first time; None when that is unknown,
    or when it was taken before. Negative times count as 0, since the clocks of two machines may differ. Raises
    InvalidRequestError for an unknown outcome.
    """
    if outcome not in OUTCOMES:
        raise InvalidRequestError("outcome", f"expected one of {', '.join(OUTCOMES)}")
    if (sink := _sink.get()) is not None:
        sink.message(outcome, waited=None if waited is None else _bounded(waited), worked=_bounded(worked))


def report_tokens(model: str, input_tokens: int, output_tokens: int) -> None:
    """Report the tokens of a model's answer. `OpenAIResponsesAdapter` does so itself; other adapters should call this."""
    if (sink := _sink.get()) is not None:
        sink.tokens(model, int(_bounded(input_tokens)), int(_bounded(output_tokens)))


def _bounded(number: float) -> float:
    """Return the number within 0 and the limit: one NaN or infinity would spoil a sum for good."""
    return 0 if math.isnan(number) else min(max(number, 0), _MOST_REPORTED)
