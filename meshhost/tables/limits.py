"""How much a room server's tables may take: processes, seconds, memory, rows. Plain values, from `[tables]` of its file."""

from dataclasses import dataclass

__all__ = ["MAX_RESULT_BYTES", "MAX_ROWS", "TableLimits"]

MAX_ROWS = 10_000
"""Rows that one search returns at most."""
MAX_RESULT_BYTES = 8 * 1024 * 1024
"""Bytes of JSON that one search returns at most, unless a message of the server is smaller."""


@dataclass(frozen=True, slots=True)
class TableLimits:
    """The limits of all tables of a server.

    Each tenant that uses tables has a process of its own, of `memory_mb` at most; there are `processes` of them at once, and
    one that is idle for `idle_seconds` ends. `threads` are those of one process that compute. A search, insert or other
    request ends after `query_seconds`, and after `index_seconds` one that may rewrite the table (indexes, optimize, columns).
    A tenant has `concurrent` requests in progress, and `waiting` more that wait for at most `wait_seconds`. While tenants
    wait for a process, one that had its own for `turn_seconds` hands it over with its next request.
    """

    processes: int = 4
    memory_mb: int = 1024
    threads: int | None = None
    query_seconds: float = 30.0
    index_seconds: float = 600.0
    wait_seconds: float = 30.0
    idle_seconds: float = 300.0
    turn_seconds: float = 2.0
    concurrent: int = 4
    waiting: int = 100
    result_bytes: int = MAX_RESULT_BYTES
