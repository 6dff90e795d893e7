"""`Absence`: tells when the other side of a voice call has left, and not when its connection was only lost for a moment.

A participant whose connection is lost is reported as removed at once, and as added again, under the same id, when it resumes.
Between the two a call is silent, but not over. Messaging reports both to `_on_removed` and `_on_added`, which never wait; a
timer of the event loop decides.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from meshhost.room.participants import Participant

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["GRACE_SECONDS", "Absence"]

GRACE_SECONDS = 5.0


class Absence:
    """Calls `on_left` once the participant of this id is away for GRACE_SECONDS. `stop` ends it."""

    def __init__(self, room: "RoomClient", participant_id: str, on_left: Callable[[], None]) -> None:
        self._messaging = room.messaging
        self._participant_id = participant_id
        self._on_left = on_left
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._messaging.on("participant_removed", self._on_removed)
        self._messaging.on("participant_added", self._on_added)

    def stop(self) -> None:
        """Watch no more. Idempotent."""
        self._messaging.off("participant_removed", self._on_removed)
        self._messaging.off("participant_added", self._on_added)
        self._cancel()

    def _on_removed(self, participant: Participant) -> None:
        if participant.id == self._participant_id and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GRACE_SECONDS, self._on_left)

    def _on_added(self, participant: Participant) -> None:
        if participant.id == self._participant_id:
            self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
