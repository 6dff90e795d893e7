"""When API keys were last used. A request only notes its key in memory, at most once a minute per key; a task writes the notes.

`IdentityService` notes each key that it verified, and writes what was noted every second. A write that fails is tried again.
"""

from collections.abc import Awaitable, Callable, Mapping

__all__ = ["KeyUses"]

# A key that is used all the time is written this often.
_USE_SECONDS = 60.0


class KeyUses:
    """Notes of uses, in seconds since the epoch."""

    def __init__(self) -> None:
        self._noted: dict[str, float] = {}  # by key: when its use was noted last
        self._unwritten: dict[str, float] = {}

    def note(self, key_id: str, now: float) -> None:
        """Note that a key is used now."""
        if now - self._noted.get(key_id, float("-inf")) >= _USE_SECONDS:
            self._noted[key_id] = self._unwritten[key_id] = now

    def forget(self, key_id: str) -> None:
        """Keep nothing in memory about a key that is gone."""
        self._noted.pop(key_id, None)

    async def write(self, record: Callable[[Mapping[str, float]], Awaitable[None]]) -> None:
        """Have what was noted since the last call recorded. Raises what `record` raises; the notes are then kept."""
        used, self._unwritten = self._unwritten, {}
        if not used:
            return
        try:
            await record(used)
        except BaseException:
            self._unwritten = {**used, **self._unwritten}
            raise
