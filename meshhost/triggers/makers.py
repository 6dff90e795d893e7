"""Who made a schedule or hook, and how many a participant may hold.

REST takes the maker from the key or token that is shown, `Schedules` and `Hooks` keep it with what was made. A participant may
manage what it made itself, by its name and the key that signed its token: another key of the tenant may give that name to
others. What was made stops with the key that its maker showed, and goes on when another key takes it over.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from meshhost.errors import LimitExceededError, MeshhostError
from meshhost.identity.tenant import RoomKey

__all__ = ["MOST_OF_A_PARTICIPANT", "NOBODY", "CheckMaker", "Maker", "check_share", "reason_against"]

MOST_OF_A_PARTICIPANT: Final = 20
"""How many of a room's schedules, and of its hooks, one participant may hold."""


@dataclass(frozen=True, slots=True)
class Maker:
    """A participant ("" for an API key), and the id of the key that signed its token, or of the API key.

    `key_id` is None for a token that the server's own secret signed, and where no key was shown.
    """

    name: str = ""
    key_id: str | None = None


NOBODY: Final = Maker()
CheckMaker: TypeAlias = Callable[[RoomKey, Maker], None]
"""Raises a MeshhostError when what somebody made in a room must not start work any more: its key has ended."""


def reason_against(check: CheckMaker, room: RoomKey, maker: Maker) -> str | None:
    """Return why what this maker made in the room starts no work any more; None when it does."""
    try:
        check(room, maker)
    except MeshhostError as error:
        return str(error)
    return None


def check_share(maker: Maker, makers: Iterable[Maker], what: str) -> None:
    """Raise LimitExceededError when a participant made as many of these (`schedules`, `hooks`) as it may hold."""
    if maker.name and sum(other == maker for other in makers) >= MOST_OF_A_PARTICIPANT:
        raise LimitExceededError(
            f"{maker.name!r} has {MOST_OF_A_PARTICIPANT} {what} in this room already, which is the limit of a participant"
        )
