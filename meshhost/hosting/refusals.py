"""When a caller that was refused may try again: the values of `Retry-After`, in one place.

All parts of a host that refuse calls use these. A refusal whose end is known (a quarantine, a rate limit) computes its own.
"""

__all__ = ["RETRY_FROZEN_SECONDS", "RETRY_OVERLOADED_SECONDS", "RETRY_SOON_SECONDS"]

RETRY_SOON_SECONDS = 5.0
"""For what may change at any moment: the host is full, draining or not ready, a quota is used up, a disk is full."""

RETRY_OVERLOADED_SECONDS = 10.0
"""For an overloaded machine. Longer, so that the retries do not add to its load."""

RETRY_FROZEN_SECONDS = 60.0
"""For a frozen tenant: an operator has to act first."""
