"""The memory of an agent's process, as the process pool measures it and the memory quotas judge it."""

from dataclasses import dataclass

__all__ = ["MEGABYTE", "ProcessMemory"]

MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """One measurement, in bytes. `is_ending`: the process was killed already."""

    agent_id: str
    used: int
    is_ending: bool = False
