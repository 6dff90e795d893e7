"""The history of a message as JSON text: how its deliveries ended that ended without an ack.

Engines keep it in a column beside the message and only write it when such a delivery ends, so that a message that succeeds at
once costs nothing. The newest MAX_HISTORY are kept, with the end of each error. This module is pure.
"""

import json

from meshhost.stores.messages import MAX_HISTORY, AttemptRecord, EndReason, kept_error

__all__ = ["add_to_history", "load_history", "waited"]


def add_to_history(history: str | None, attempt: AttemptRecord) -> str:
    """Return the history with one more delivery that ended."""
    entry = [attempt.began_at, attempt.ended_at, attempt.by, attempt.reason, kept_error(attempt.error)]
    return json.dumps([*(json.loads(history) if history else ()), entry][-MAX_HISTORY:])


def load_history(history: str | None) -> tuple[AttemptRecord, ...]:
    """Return what `add_to_history` made, the oldest first."""
    entries = json.loads(history) if history else ()
    return tuple(
        AttemptRecord(began_at, ended_at, by, EndReason(reason), error)
        for began_at, ended_at, by, reason, error in entries
    )


def waited(since_sent: float, since_ready: float | None, ended: int) -> float | None:
    """For how many seconds a message could have been handed out. `ended` of its deliveries ended before.

    `since_ready` is known when it waited for a time or was given back. One without it that was delivered before was dead.
    """
    if since_ready is None:
        return None if ended else max(since_sent, 0.0)
    return max(since_ready, 0.0)
