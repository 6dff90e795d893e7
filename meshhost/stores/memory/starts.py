"""What the rates of one queue in memory allow: how far the starts so far are paid for (`meshhost.stores.rates`).

A part of `MemoryQueue`; times are steady times. `wake_at` is when the rate allows a start that a claim was refused; `put_off`
says until when the message of a key was put off.
"""

from dataclasses import dataclass, field

from meshhost.stores.rates import Rate

__all__ = ["MemoryStarts"]


@dataclass(slots=True)
class MemoryStarts:
    """The starts of a queue, and of its keys."""

    until: float = 0.0
    wake_at: float | None = None
    keys: dict[str, float] = field(default_factory=dict)
    put_off: dict[str, float] = field(default_factory=dict)

    def start(self, limit: Rate, now: float, count: int, *, is_short: bool) -> None:
        """Add `count` starts. `is_short`: more were wanted than the rate allowed."""
        self.until = limit.taken(self.until, now, count)
        if is_short:
            self.wake_at = limit.next_at(self.until, now)

    def start_key(self, key: str, limit: Rate, now: float) -> float | None:
        """Count a start of a key. When it has none left: when it will, until which its message is put off."""
        until = self.keys.get(key, 0.0)
        if limit.places(until, now):
            self.keys[key] = limit.taken(until, now)
            self.put_off.pop(key, None)
            return None
        self.put_off[key] = limit.next_at(until, now)
        return self.put_off[key]

    def sweep(self, now: float) -> bool:
        """Forget what does not count any more; return whether a start is allowed that was refused before."""
        self.keys = {key: until for key, until in self.keys.items() if until > now}
        self.put_off = {key: until for key, until in self.put_off.items() if key in self.keys}
        if self.wake_at is None or self.wake_at > now:
            return False
        self.wake_at = None
        return True

    def move(self, seconds: float) -> None:
        """The clock was set."""
        self.until += seconds
        self.wake_at = None if self.wake_at is None else self.wake_at + seconds
        self.keys = {key: until + seconds for key, until in self.keys.items()}
        self.put_off = {key: until + seconds for key, until in self.put_off.items()}
