"""Stops an exchange of mails that goes too fast for a person: at most so many answers to one correspondent in a while.

Rules (`meshhost.mail.answering`) recognise programs that say what they are. Two that do not would answer each other for ever,
and each answer costs money. The brake counts in the room's storage, one small file for each answer, so it holds over restarts
and for several agents of the mailbox, and an answer that is tried again counts once.

A file is written first and counted then: of several that are written at the same time each sees the others, and those behind
the limit withdraw. So the limit is never exceeded.
"""

import contextlib
import hashlib
from typing import TYPE_CHECKING

from meshhost.clock import Clock, SystemClock
from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.mail.addresses import mailbox_keys

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["Brake"]

_FOLDER = ".emails/answered"


class Brake:
    """Lets `most` answers to one address pass in `seconds`."""

    def __init__(self, *, most: int = 10, seconds: float = 3600.0, clock: Clock | None = None) -> None:
        if most < 1:
            raise InvalidRequestError("max_answers", f"expected at least 1, got {most}")
        if not seconds > 0:
            raise InvalidRequestError("answer_window", f"expected seconds above 0, got {seconds}")
        self._most = most
        self._seconds = seconds
        self._clock = clock or SystemClock()

    async def passes(self, room: "RoomClient", own: str, correspondent: str, key: str) -> bool:
        """Count an answer; return whether it may be sent. The same `key` is the same answer. Raises RoomError."""
        folder = f"{_FOLDER}/{_hash(own)}/{_hash(mailbox_keys(correspondent)[-1])}"
        now = self._clock.time()
        name = _hash(key)
        names = await self._names(room, folder, now)
        if not any(each.endswith(name) for each in names):
            if len(names) >= self._most:
                return False
            await room.storage.upload(path=f"{folder}/{_stamp(now)}-{name}", data=b"", overwrite=True)
            names = await self._names(room, folder, now)
        mine = next((number for number, each in enumerate(names) if each.endswith(name)), self._most)
        if mine < self._most:
            return True
        await _remove(room, f"{folder}/{names[mine]}" if mine < len(names) else None)
        return False

    async def _names(self, room: "RoomClient", folder: str, now: float) -> list[str]:
        """The answers of the present window in order; older ones are removed."""
        oldest = _stamp(now - self._seconds)
        names = sorted(entry.name for entry in await room.storage.list(path=folder) if not entry.is_folder)
        for each in names:
            if each < oldest:
                await _remove(room, f"{folder}/{each}")
        return [each for each in names if each >= oldest]


async def _remove(room: "RoomClient", path: str | None) -> None:
    if path is not None:
        with contextlib.suppress(NotFoundError):
            await room.storage.delete(path)


def _stamp(time: float) -> str:
    return f"{int(max(time, 0) * 1000):015}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:32]
