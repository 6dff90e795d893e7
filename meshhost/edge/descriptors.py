"""File descriptors: as many as the system lets us have, and a short log when they run out.

Every connection takes one, and so does every agent's connection to its room. The usual soft limit of 1024 stems from programs
that use `select`; a server may raise it to the hard limit by itself. `GuardedSite` calls `raise_limit` before it listens, and
refuses connections above a share of the limit (`most_descriptors`), so that stores and calls keep working.
"""

import resource

__all__ = ["most_descriptors", "raise_limit"]

# Beyond this, tables that grow with the highest descriptor cost more than connections bring.
_ENOUGH = 1_048_576


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
