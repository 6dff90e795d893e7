"""When to dial again. Pure decisions; the waiting is done by the client."""

from collections.abc import Callable
from dataclasses import dataclass

from meshhost.errors import ConnectionLostError, RoomError, RoomRefusedError

__all__ = ["ReconnectPolicy", "is_final"]

# 4000: resumed elsewhere; 4001: token expired or revoked; 4004: the room ended.
_FINAL_CLOSE_CODES = frozenset({4000, 4001, 4004})
# What another try cannot change: the request, the token, the grant, the place.
_FINAL_STATUSES = frozenset({400, 401, 403, 404, 410})


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """Waits between tries, in seconds: full jitter under a bound that doubles from `first_delay` to `max_delay`."""

    first_delay: float = 0.2
    max_delay: float = 10.0

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """The wait before try number `attempt` (1 for the first)."""
        return random() * float(min(self.max_delay, self.first_delay * 2.0 ** min(attempt - 1, 32)))


def is_final(error: RoomError) -> bool:
    """Whether dialling again makes no sense after this end or refusal."""
    match error:
        case RoomRefusedError():
            return error.status in _FINAL_STATUSES
        case ConnectionLostError():
            return error.close_code in _FINAL_CLOSE_CODES
        case _:
            return True
