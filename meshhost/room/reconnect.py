"""When to connect again: how long to wait, and which errors make another try pointless.

Pure decisions without I/O. `keeper.py` asks them for the connection of a room and does the waiting; `consumer.py` uses the same
policy to receive again after an error.
"""

from collections.abc import Callable
from dataclasses import dataclass

from meshhost.backoff import Backoff
from meshhost.errors import ConnectionLostError, RoomError, RoomRefusedError

__all__ = ["ReconnectPolicy", "is_final"]

# 4000: the session was resumed on another connection; 4001: the token expired or was revoked; 4004: the room ended.
_FINAL_CLOSE_CODES = frozenset({4000, 4001, 4004})
# Bad request, bad token, missing grant, no such room, place taken, room gone: another try with the same token cannot change
# these.
_FINAL_STATUSES = frozenset({400, 401, 403, 404, 409, 410})


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """Delays between tries, in seconds: a random part (full jitter) of a bound that doubles from `first_delay` to `max_delay`.

    The jitter spreads the clients of a server that restarts, which all lose their connections at the same time.
    """

    first_delay: float = 0.2
    max_delay: float = 10.0

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Return the delay before try number `attempt`, counted from 1. `random` returns a number from 0 to 1."""
        return Backoff(self.first_delay, self.max_delay).delay(attempt, random)


def is_final(error: RoomError) -> bool:
    """Whether another try is pointless after this error. Errors of other kinds are bugs or broken protocol, so final too."""
    match error:
        case RoomRefusedError():
            return error.status in _FINAL_STATUSES
        case ConnectionLostError():
            return error.close_code in _FINAL_CLOSE_CODES
        case _:
            return True
