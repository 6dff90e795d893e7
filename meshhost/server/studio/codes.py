"""One-time codes that sign a browser in: what the link holds that a server prints when it starts.

A code stands for a key that this process knows, so that the key itself is never on a screen or in an address. It works once
and for ten minutes. Codes are kept in memory, few of them: a tenant that makes many loses its oldest, and nobody else's. The
link has the code behind `#`, which browsers send to no server, so that no log and no referrer has it.
"""

import secrets
from dataclasses import dataclass

from meshhost.clock import Clock, SystemClock
from meshhost.errors import InvalidTokenError

__all__ = ["CODE_SECONDS", "CodeOf", "OneTimeCodes"]

CODE_SECONDS = 600.0
_MOST = 100
"""Of each project, and of the operator."""


@dataclass(frozen=True, slots=True)
class CodeOf:
    """The key that a code stands for: one of a project, or without a project the operator's."""

    project: str | None
    key_id: str | None


class OneTimeCodes:
    """The codes of one server that were made and not used yet."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._codes: dict[str, tuple[CodeOf, float]] = {}

    def make(self, of: CodeOf) -> str:
        """A new code for this key."""
        now = self._clock.monotonic()
        self._codes = {code: kept for code, kept in self._codes.items() if kept[1] >= now}
        same = [code for code, (kept, _) in self._codes.items() if kept.project == of.project]
        for oldest in same[: max(len(same) + 1 - _MOST, 0)]:
            del self._codes[oldest]
        code = secrets.token_urlsafe(24)
        self._codes[code] = (of, now + CODE_SECONDS)
        return code

    def use(self, code: str) -> CodeOf:
        """What the code stands for; it is used up then. Raises InvalidTokenError for one that is not known (any more)."""
        of, until = self._codes.pop(code, (None, 0.0))
        if of is None or until < self._clock.monotonic():
            raise InvalidTokenError(
                "this link was used before, or is older than ten minutes: run `meshhost studio` for a new one"
            )
        return of
