"""Answers that many ask for and that cost the stores something: each is made once in a while, for all who ask meanwhile.

Studio's pages ask for the same overview every few seconds, from every open browser, and anybody may ask for metrics. `Fresh`
makes it once and hands it to all; those who come while it is being made wait for it. What takes long to make is made more
rarely, so that watching never takes more than a small share of the server's time. Each value has a number that grows when the
value changes.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from meshhost.clock import Clock, SystemClock

__all__ = ["Fresh", "Made"]

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

# Making a value takes at most one part in so many of the time.
_PAUSE_FACTOR = 20.0


@dataclass(frozen=True, slots=True)
class Made(Generic[Value]):
    """A value, with a number that is another one when the value is."""

    value: Value
    number: int


@dataclass(slots=True)
class _Entry(Generic[Value]):
    made: Made[Value] | None = None
    until: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Fresh(Generic[Key, Value]):
    """The values of the last `most` keys. A value that was made within `seconds` is fresh."""

    def __init__(
        self,
        make: Callable[[Key], Awaitable[Value]],
        *,
        seconds: float,
        most: int = 1000,
        clock: Clock | None = None,
    ) -> None:
        self._make = make
        self._seconds = seconds
        self._most = most
        self._clock = clock or SystemClock()
        self._entries: OrderedDict[Key, _Entry[Value]] = OrderedDict()
        self._number = 0

    def known(self, key: Key) -> Made[Value] | None:
        """The value as it was made last, fresh or not; inside `make` the one that will be replaced."""
        entry = self._entries.get(key)
        return None if entry is None else entry.made

    async def of(self, key: Key) -> Made[Value]:
        """The value, made now if it is not fresh. Raises what making it raises."""
        entry = self._entries.setdefault(key, _Entry())
        self._entries.move_to_end(key)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)
        async with entry.lock:
            began = self._clock.monotonic()
            if entry.made is not None and began < entry.until:
                return entry.made
            value = await self._make(key)
            now = self._clock.monotonic()
            entry.until = now + max(self._seconds, (now - began) * _PAUSE_FACTOR)
            if entry.made is None or entry.made.value != value:
                self._number += 1
                entry.made = Made(value, self._number)
            return entry.made
