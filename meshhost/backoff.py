"""How long to wait before the next try: one capped exponential backoff with jitter for the whole project.

Everything that tries again (a failed message, a crashed agent, a lost connection, a model request) shares this rule: the wait
doubles from `first_delay` to `max_delay`, and a random part of it spreads callers that failed together, so that they do not
all return at the same moment. The class is pure: the number of the attempt and the source of randomness are arguments, the
waiting is done by the caller. Invariants, pinned by property tests: bounds never fall from one attempt to the next, no wait
passes `max_delay`, and every wait lies between `shortest` and `longest` of its attempt.
"""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Backoff"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits in seconds that grow by `factor` from `first_delay` to at most `max_delay`.

    `jitter` is the part of a wait that is random: 1 (full jitter) draws from zero to the bound, 0.5 from half of the bound
    to the bound, 0 makes every wait its bound. Raises ValueError for values that would let waits shrink or be negative.
    """

    first_delay: float = 1.0
    max_delay: float = 300.0
    factor: float = 2.0
    jitter: float = 1.0

    def __post_init__(self) -> None:
        if not (self.first_delay >= 0 and self.max_delay >= 0 and self.factor >= 1 and 0 <= self.jitter <= 1):
            raise ValueError(f"{self}: expected delays of at least 0, a factor of at least 1 and a jitter from 0 to 1")

    def longest(self, attempt: int) -> float:
        """Return the upper bound of the wait after this failed attempt (1 for the first)."""
        try:
            return float(min(self.max_delay, self.first_delay * float(self.factor) ** (attempt - 1)))
        except OverflowError:  # of the power: far beyond any cap, unless there is nothing to multiply
            return float(self.max_delay) if self.first_delay else 0.0

    def shortest(self, attempt: int) -> float:
        """Return the lower bound of the wait after this failed attempt."""
        return (1.0 - self.jitter) * self.longest(attempt)

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Return the wait after this failed attempt; `random` returns a number from 0 to 1."""
        return self.longest(attempt) * (1.0 - self.jitter + self.jitter * random())
