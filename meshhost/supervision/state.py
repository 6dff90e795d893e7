"""The lifecycle of a supervised agent, as one table.

    STARTING ──▶ RUNNING ──▶ DRAINING ──▶ STOPPED | FAILED
       ▲            │
       └ BACKING_OFF┘           QUARANTINED ──release──▶ STARTING

Every state that is not terminal can be drained, quarantined (unless it is draining) and given up.

`TRANSITIONS` is the only place with the rules; `SupervisedAgent._signal` is the only caller that changes a state. A signal
that the table does not allow raises and changes nothing.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from meshhost.errors import LifecycleError

__all__ = ["TERMINAL", "TRANSITIONS", "Signal", "State", "next_state"]


class State(StrEnum):
    """The phase of an agent's life."""

    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing_off"
    DRAINING = "draining"
    QUARANTINED = "quarantined"
    STOPPED = "stopped"
    FAILED = "failed"


class Signal(StrEnum):
    """What can happen to an agent."""

    STARTED = "started"
    """It reported that it is running."""
    CRASHED = "crashed"
    """It ended with an error; unless it was draining it will be started again."""
    EXITED = "exited"
    """It returned without being asked to, and will be started again."""
    FINISHED = "finished"
    """It returned, and its policy does not start it again."""
    GAVE_UP = "gave_up"
    """It failed for good: it will not be started again."""
    RETRY_DUE = "retry_due"
    """The wait before the next start is over."""
    DRAIN = "drain"
    """It is asked to finish its work and to leave."""
    DRAINED = "drained"
    """It left by itself after a drain began."""
    ABORTED = "aborted"
    """It was ended by a requested abort."""
    QUARANTINE = "quarantine"
    """It is stopped to protect its neighbours, and may come back."""
    RELEASE = "release"
    """The quarantine is over."""


TERMINAL = frozenset({State.STOPPED, State.FAILED})

TRANSITIONS: Mapping[tuple[State, Signal], State] = MappingProxyType(
    {
        (State.STARTING, Signal.STARTED): State.RUNNING,
        (State.STARTING, Signal.CRASHED): State.BACKING_OFF,
        (State.STARTING, Signal.GAVE_UP): State.FAILED,
        (State.STARTING, Signal.DRAIN): State.DRAINING,
        (State.STARTING, Signal.QUARANTINE): State.QUARANTINED,
        (State.RUNNING, Signal.CRASHED): State.BACKING_OFF,
        (State.RUNNING, Signal.EXITED): State.BACKING_OFF,
        (State.RUNNING, Signal.FINISHED): State.STOPPED,
        (State.RUNNING, Signal.GAVE_UP): State.FAILED,
        (State.RUNNING, Signal.DRAIN): State.DRAINING,
        (State.RUNNING, Signal.QUARANTINE): State.QUARANTINED,
        (State.BACKING_OFF, Signal.RETRY_DUE): State.STARTING,
        (State.BACKING_OFF, Signal.GAVE_UP): State.FAILED,
        (State.BACKING_OFF, Signal.DRAIN): State.DRAINING,
        (State.BACKING_OFF, Signal.QUARANTINE): State.QUARANTINED,
        # Idempotent: a second drain request changes nothing.
        (State.DRAINING, Signal.DRAIN): State.DRAINING,
        (State.DRAINING, Signal.DRAINED): State.STOPPED,
        (State.DRAINING, Signal.ABORTED): State.STOPPED,
        (State.DRAINING, Signal.CRASHED): State.FAILED,
        (State.DRAINING, Signal.GAVE_UP): State.FAILED,
        (State.QUARANTINED, Signal.QUARANTINE): State.QUARANTINED,
        (State.QUARANTINED, Signal.RELEASE): State.STARTING,
        (State.QUARANTINED, Signal.DRAIN): State.DRAINING,
        (State.QUARANTINED, Signal.GAVE_UP): State.FAILED,
    }
)


def next_state(state: State, signal: Signal) -> State:
    """The state after the signal; LifecycleError when the table does not allow it."""
    try:
        return TRANSITIONS[state, signal]
    except KeyError:
        raise LifecycleError(f"{signal} is not allowed while {state}") from None
