"""What was said in a voice call, by whom and when: `Line`, and the Protocol `Transcript` that lines are given to.

A thinker adds a line when somebody has finished speaking. `ThreadTranscript` writes them into a thread document of the room,
where a person reads along in Studio and a chat agent can go on with the conversation.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

__all__ = ["Line", "Speaker", "Transcript"]


class Speaker(StrEnum):
    """One of the two sides of a voice call."""

    CALLER = "caller"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Line:
    """What one side said without a break, as far as the other heard it.

    `began` and `ended` are wall-clock times in seconds since 1970. `is_cut` says that the speaker was interrupted.
    """

    speaker: Speaker
    text: str
    began: float
    ended: float
    is_cut: bool = False


class Transcript(Protocol):
    """Takes the lines of one voice call, in the order in which they were begun."""

    async def add(self, line: Line) -> None:
        """Take one line. Never raises: a transcript that cannot be written does not end the call."""
        ...
