"""File descriptors: as many as the system lets us have, and a short log when they run out.

Every connection takes one, and so does every agent's connection to its room. The usual soft limit of 1024 stems from programs
that use `select`; a server may raise it to the hard limit by itself. `GuardedSite` calls `raise_limit` before it listens, and
refuses connections above a share of the limit (`most_descriptors`), so that stores and calls keep working.

When none is left all the same, asyncio tries to accept again up to a thousand times in a row and logs each failure.
`quiet_accept` lets one of these lines through per period.
"""

import logging
import resource
import time

__all__ = ["AcceptFilter", "most_descriptors", "quiet_accept", "raise_limit"]

# Beyond this, tables that grow with the highest descriptor cost more than connections bring.
_ENOUGH = 1_048_576
_LOG_SECONDS = 30.0
_ACCEPT_FAILED = "socket.accept() out of system resource"


def raise_limit() -> int:
    """Raise the soft limit of file descriptors to the hard one, where that is allowed. Returns the limit that is in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return _ENOUGH if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):  # macOS allows less than its hard limit says
        return soft
    return most


def most_descriptors(share: float) -> int:
    """This share of the file descriptors that the process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if soft == resource.RLIM_INFINITY else max(16, int(soft * share))


class AcceptFilter(logging.Filter):
    """Passes one of asyncio's records about a failed accept per period, and all others."""

    def __init__(self) -> None:
        super().__init__()
        self._again_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        if not str(record.msg).startswith(_ACCEPT_FAILED):
            return True
        if time.monotonic() < self._again_at:
            return False
        self._again_at = time.monotonic() + _LOG_SECONDS
        return True


_filter = AcceptFilter()


def quiet_accept() -> None:
    """Let asyncio log only once in a while that it cannot accept connections. Idempotent."""
    logging.getLogger("asyncio").addFilter(_filter)
