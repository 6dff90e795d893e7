"""`Playback`: which answers are heard how far, so that an interruption can be told to the provider exactly.

The sound of answers passes one queue in one order. From what was added to it, and how much of that was heard when the caller
interrupted, follows for each item how much of it was heard. Pure, no I/O.
"""

from dataclasses import dataclass

__all__ = ["Cut", "Playback"]

# As much is lost where sound is cut into frames and converted to another rate.
_ROUNDING_MS = 2.0


@dataclass(frozen=True, slots=True)
class Cut:
    """An item that was not heard to its end."""

    item_id: str
    heard_ms: float


@dataclass(slots=True)
class _Part:
    item_id: str
    ms: float


class Playback:
    """The sound that was queued and is not known to be heard, by items."""

    def __init__(self) -> None:
        self._parts: list[_Part] = []

    def __repr__(self) -> str:
        return f"<Playback items={[part.item_id for part in self._parts]}>"

    def add(self, item_id: str, ms: float) -> None:
        """Sound of an item was queued, behind what there is."""
        if not self._parts or self._parts[-1].item_id != item_id:
            self._parts.append(_Part(item_id, 0.0))
        self._parts[-1].ms += ms

    def heard_all(self) -> list[str]:
        """All was heard; returns the items."""
        items = [part.item_id for part in self._parts]
        self._parts.clear()
        return items

    def cut(self, heard_ms: float) -> tuple[list[str], list[Cut]]:
        """The voice was stopped when this much of it all was heard. Returns the items heard whole, and those that were not."""
        heard = max(0.0, heard_ms)
        whole: list[str] = []
        cuts: list[Cut] = []
        for part in self._parts:
            if not cuts and heard >= part.ms - _ROUNDING_MS:
                whole.append(part.item_id)
            else:
                cuts.append(Cut(part.item_id, min(heard, part.ms)))
            heard = max(0.0, heard - part.ms)
        self._parts.clear()
        return whole, cuts
