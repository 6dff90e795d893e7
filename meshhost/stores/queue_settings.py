"""What a store accepts in any queue, and what can be set for one.

The settings are kept by every queue store beside the queue, as JSON text of what differs from the defaults, and read with each
lease and settlement: `parse` keeps the last texts that it read. A change names some of them, and a store applies it to what is
there when it writes (`changed`). Members of a newer release are ignored. This module is pure.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from meshhost.errors import InvalidRequestError
from meshhost.stores.rates import Rate, check_burst, check_rate, rate_of

__all__ = [
    "DEFAULT_RESULT_TTL",
    "LONGEST_RESULT_TTL",
    "Changes",
    "QueueLimits",
    "QueueSettings",
    "parse_settings",
]

DEFAULT_RESULT_TTL = 3600.0
LONGEST_RESULT_TTL = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What a store accepts.

    `max_attempts` failures make a message dead, and so do `max_interruptions` deliveries that ended INTERRUPTED or EXPIRED:
    such a message ends or blocks its process, and would go round for ever. `max_depth` bounds the messages of one queue that
    are not dead; `max_message_bytes` bounds body and headers of one message together, as UTF-8. A `sender_id` is remembered
    for `remember_ids_seconds`: many times as long as a client sends one message again.

    `max_depth` protects the store; it is not a counter to build on. A queue below it is never refused. One process never
    exceeds it. When several processes send to one queue at the same moment, an engine may exceed it by what the others
    stored within the last second, because an exact count over processes would be one row that every send has to lock.
    """

    max_attempts: int = 5
    max_interruptions: int = 5
    max_depth: int = 1_000_000
    max_message_bytes: int = 8 * 1024 * 1024
    remember_ids_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The settings of a queue. None: as for all queues of the server.

    `paused`: nothing is delivered. `max_attempts` failures make a message dead; the first retry waits about `retry_seconds`,
    each later one twice as long, at most `max_retry_seconds`. `max_depth` bounds the messages that did not end. `deadline` is
    how many seconds a worker may take for one message. `concurrency` bounds the messages in progress at once over all workers.
    `rate` (10/s, 600/m, 100/h) bounds how many are started over all workers, first attempts and later ones alike; `burst` is
    how many may start at once after a pause (None: as many as in a second, at least one). `key_rate` is the rate of each
    single key. `result_ttl` is for how many seconds it is known how a message ended, and its result; 0: not at all.
    """

    paused: bool = False
    max_attempts: int | None = None
    retry_seconds: float | None = None
    max_retry_seconds: float | None = None
    max_depth: int | None = None
    deadline: float | None = None
    concurrency: int | None = None
    result_ttl: float = DEFAULT_RESULT_TTL
    rate: str | None = None
    burst: int | None = None
    key_rate: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_attempts", "max_depth", "concurrency"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 2**31 - 1:
                raise InvalidRequestError(name, f"expected a number from 1 to {2**31 - 1}, got {value}")
        for name in ("retry_seconds", "max_retry_seconds", "deadline"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= LONGEST_RESULT_TTL:
                raise InvalidRequestError(
                    name, f"expected seconds above 0 and at most {LONGEST_RESULT_TTL:.0f}, got {value}"
                )
        for name in ("rate", "key_rate"):
            if (text := getattr(self, name)) is not None:
                check_rate(name, text)
        if self.burst is not None:
            check_burst("burst", self.burst)
        if not 0 <= self.result_ttl <= LONGEST_RESULT_TTL:
            raise InvalidRequestError(
                "result_ttl", f"expected 0 to {LONGEST_RESULT_TTL:.0f} seconds, got {self.result_ttl}"
            )

    @property
    def is_limited(self) -> bool:
        """Whether a claim must be alone with the queue."""
        return self.concurrency is not None or self.has_rates

    @property
    def has_rates(self) -> bool:
        """Whether starts of the queue, or of its keys, are bounded."""
        return self.rate is not None or self.key_rate is not None

    def limit(self) -> Rate | None:
        """The rate of the queue."""
        return rate_of(self.rate, self.burst)

    def key_limit(self) -> Rate | None:
        """The rate of each key."""
        return rate_of(self.key_rate)

    def changed(self, changes: "Changes") -> "QueueSettings":
        """Return the settings after a change. Raises InvalidRequestError that names the setting."""
        if isinstance(changes, QueueSettings):
            return changes
        for name in changes:
            if name not in _NAMES:
                raise InvalidRequestError(f"settings.{name}", f"expected one of {', '.join(_NAMES)}")
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """Return what differs from the defaults as JSON text; `{}` when nothing does."""
        values = dataclasses.asdict(self)
        return json.dumps({name: value for name, value in values.items() if value != getattr(_DEFAULTS, name)})


@functools.lru_cache(maxsize=1024)
def parse_settings(text: str) -> QueueSettings:
    """Return the settings of what `to_json` returned, of this release or another one."""
    known = {field.name for field in dataclasses.fields(QueueSettings)}
    return QueueSettings(**{name: value for name, value in json.loads(text).items() if name in known})


_DEFAULTS = QueueSettings()
_NAMES = sorted(field.name for field in dataclasses.fields(QueueSettings))

Changes: TypeAlias = Mapping[str, Any] | QueueSettings
"""Some settings by name, or all of them."""
