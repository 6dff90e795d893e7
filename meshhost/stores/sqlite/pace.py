"""How the thread of a SQLite file divides its time: sizes of batches, and when it tidies and asks for the room on the disk.

The defaults are right for every disk that we measured. A program that makes a store may choose others, as tests do.
"""

from dataclasses import dataclass

__all__ = ["DEFAULT_PACE", "Pace"]


@dataclass(frozen=True, slots=True)
class Pace:
    """Times are in seconds.

    `max_batch` operations share a commit at most: it bounds how long the first waits for the others. While several tenants
    wait, a batch runs for `batch_seconds`, or for `commits` times as long as its commit took: slow disks need larger ones.
    Without an operation for `idle_seconds` the file is tidied, with a pause of `step_pause` after each step. How much room the
    disk has is asked every `space_seconds`.
    """

    max_batch: int = 1000
    batch_seconds: float = 0.01
    commits: float = 1.0
    idle_seconds: float = 1.0
    step_pause: float = 0.005
    space_seconds: float = 0.2


DEFAULT_PACE = Pace()
