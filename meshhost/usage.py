"""What agents report of their work: messages and tokens of models.

Whoever runs an agent names a sink around it (`reporting_to`); what is reported inside, in that task and in those it starts,
goes there. Without a sink a report does nothing. A host shows the sums in its `/metrics`.
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
"""Up to how many seconds each bucket of `Durations` goes; one more has the rest."""

_MOST = 2**53
# Of one report: however many there are between two answers of a process, their sum stays one that the host takes.
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
        """One more."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def add(self, other: "Durations") -> None:
        """As many more."""
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def copy(self) -> "Durations":
        """The same, by itself."""
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
        """These, too."""
        for outcome, number in other.messages.items():
            self.messages[outcome] = self.messages.get(outcome, 0) + number
        self.waits.add(other.waits)
        self.works.add(other.works)
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens

    def copy(self) -> "UsageSums":
        """The same, by themselves."""
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
        """Reports that were added up elsewhere."""


class Tally:
    """A sink that adds up. Models are not told apart: their names have no bound."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = UsageSums()
        self._is_empty = True

    def message(self, outcome: Outcome, *, waited: float | None, worked: float) -> None:
        """Count it, and its times."""
        with self._lock:
            self._is_empty = False
            self._sums.messages[outcome] = self._sums.messages.get(outcome, 0) + 1
            self._sums.works.observe(worked)
            if waited is not None:
                self._sums.waits.observe(waited)

    def tokens(self, model: str, input_tokens: int, output_tokens: int) -> None:
        """Count them."""
        with self._lock:
            self._is_empty = False
            self._sums.input_tokens += input_tokens
            self._sums.output_tokens += output_tokens

    def add(self, sums: UsageSums) -> None:
        """Count what these sums have."""
        with self._lock:
            self._is_empty = False
            self._sums.add(sums)

    def sums(self) -> UsageSums:
        """All so far; it stays here."""
        with self._lock:
            return self._sums.copy()

    def take(self) -> UsageSums | None:
        """All since the last `take`, which leaves nothing here; None when there was nothing."""
        with self._lock:
            if self._is_empty:
                return None
            taken, self._sums, self._is_empty = self._sums, UsageSums(), True
            return taken


_sink: ContextVar[UsageSink | None] = ContextVar("meshhost_usage_sink", default=None)


@contextmanager
def reporting_to(sink: UsageSink | None) -> Iterator[None]:
    """What is reported inside goes to this sink (None: nowhere); the innermost counts."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


def current_sink() -> UsageSink | None:
    """Where reports from here go."""
    return _sink.get()


def report_message(outcome: Outcome, *, worked: float, waited: float | None = None) -> None:
    """A message of a queue was worked on for `worked` seconds, with this outcome.

    `waited` is how many seconds it had been in the queue when it was taken for the first time; None when that is not known, or
    this was not the first time. What is less than 0 counts as 0: two machines' clocks may differ. Raises InvalidRequestError
    for an outcome that is none.
    """
    if outcome not in OUTCOMES:
        raise InvalidRequestError("outcome", f"expected one of {', '.join(OUTCOMES)}")
    if (sink := _sink.get()) is not None:
        sink.message(outcome, waited=None if waited is None else _bounded(waited), worked=_bounded(worked))


def report_tokens(model: str, input_tokens: int, output_tokens: int) -> None:
    """A model answered and took so many tokens. `OpenAIResponsesAdapter` reports by itself."""
    if (sink := _sink.get()) is not None:
        sink.tokens(model, int(_bounded(input_tokens)), int(_bounded(output_tokens)))


def _bounded(number: float) -> float:
    """The number, from 0 to a limit; a sum that once had NaN or infinity would stay so."""
    return 0 if math.isnan(number) else min(max(number, 0), _MOST_REPORTED)
