"""The states of a room client and the reason it was closed.

A leaf module: `keeper.py` changes the state, `client.py` publishes it, and `link.py` names it in the Protocol that the service
clients use.
"""

from dataclasses import dataclass
from enum import Enum

from meshhost.errors import RoomError

__all__ = ["CloseReason", "RoomState"]


class RoomState(Enum):
    """NEW, then OPEN and RECONNECTING in turns, and CLOSED for good. A failed first `connect()` goes from NEW to CLOSED."""

    NEW = "new"
    OPEN = "open"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class CloseReason:
    """Why a room client is closed for good. `error` is None when `close()` was called here."""

    error: RoomError | None = None

    def __str__(self) -> str:
        return "left" if self.error is None else str(self.error)
