"""Decides whether and when an agent that ended is started again.

`decide` takes a policy, the restart history, the time and a source of random numbers, and returns `RestartAfter` or `GiveUp`.
It does no I/O and reads no clock, so its rules can be tested as laws. `SupervisedAgent` calls it after each end of a child
and keeps the history, shortened by `recent`. Invariants, pinned by property tests: at most `max_restarts` starts fall into any
window, and no wait passes `max_delay`. `RestartPolicy` is public: users pass it to `ServiceHost.path`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from meshhost.backoff import Backoff
from meshhost.errors import SettingsError

__all__ = ["Decision", "GiveUp", "Outcome", "RestartAfter", "RestartPolicy", "decide", "recent"]

Outcome = Literal["crash", "exit"]

# Restarts that are remembered at least: with a factor of 2, the wait after so many has reached any cap.
_MIN_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When to start an agent again; all times in seconds.

    `permanent`: after a crash and after an exit that was not requested; `transient`: only after a crash; `temporary`: never.
    At most `max_restarts` starts within any `window_seconds`. Waits grow by `factor` from `first_delay` to at most `max_delay`.
    """

    kind: Literal["permanent", "transient", "temporary"] = "permanent"
    max_restarts: int = 5
    window_seconds: float = 60.0
    first_delay: float = 0.5
    max_delay: float = 30.0
    factor: float = 2.0

    def __post_init__(self) -> None:
        if self.kind not in ("permanent", "transient", "temporary"):
            raise SettingsError(f"restart kind {self.kind!r}: use permanent, transient or temporary")
        for name in ("max_restarts", "first_delay", "max_delay"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"restart {name} must not be negative")
        if not self.window_seconds > 0:
            raise SettingsError("restart window_seconds must be more than 0")
        if not self.factor >= 1:
            raise SettingsError("restart factor must be at least 1, or waits would shrink")

    def restarts_after(self, outcome: Outcome) -> bool:
        """Return whether this kind of policy restarts an agent after this outcome."""
        return self.kind == "permanent" or (self.kind == "transient" and outcome == "crash")

    def longest(self, failures: int) -> float:
        """Return the upper bound of the wait after this many failures in a row (1 or more). Monotone, at most `max_delay`."""
        return Backoff(self.first_delay, self.max_delay, self.factor).longest(failures)


@dataclass(frozen=True, slots=True)
class RestartAfter:
    """Start it again in `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not start it again. `failed` is false when the policy accepts this end."""

    reason: str
    failed: bool


Decision = RestartAfter | GiveUp


def recent(policy: RestartPolicy, history: Sequence[float], *, ran: float) -> tuple[float, ...]:
    """Return the part of the history to keep after a run of `ran` seconds: none when it ran for the whole window.

    Its length is bounded; older restarts would change neither the limit nor the wait.
    """
    if ran >= policy.window_seconds:
        return ()
    return tuple(history[-max(policy.max_restarts, _MIN_REMEMBERED) :])


def decide(
    policy: RestartPolicy, history: Sequence[float], now: float, outcome: Outcome, random: Callable[[], float]
) -> Decision:
    """Return what to do with an agent that ended `now`.

    `history` holds when it was restarted since its last long run, oldest first, on the clock of `now`; `random` returns a
    number from 0 to 1. The wait is a random part of its bound (full jitter), so that agents that crashed at the same time
    do not restart at the same time.
    """
    if not policy.restarts_after(outcome):
        return GiveUp(f"{outcome} of a {policy.kind} agent", failed=outcome == "crash")
    lately = sum(restarted > now - policy.window_seconds for restarted in history)
    if lately >= policy.max_restarts:
        return GiveUp(f"{lately} restarts within {policy.window_seconds:g} s did not help", failed=True)
    return RestartAfter(random() * policy.longest(len(history) + 1))
