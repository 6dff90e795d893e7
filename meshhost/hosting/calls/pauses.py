"""Agents that an operator keeps away for a time: calls for them are refused until it is over.

A room server calls a configured agent again as soon as it is gone, so stopping one is a restart unless its calls are refused.
`http.admin` sets a pause with the dismissal, `HostedAgents.answer` asks before it answers a call. A pause is kept in memory: it
ends with the host.
"""

from meshhost.clock import Clock
from meshhost.errors import CallRefusedError
from meshhost.identity.tenant import AgentKey

__all__ = ["MAX_PAUSE_SECONDS", "Pauses"]

MAX_PAUSE_SECONDS = 365 * 24 * 3600.0


class Pauses:
    """The pauses of one host, by the agent's key.

    Callers are told to ask again after `retry_seconds`, so that a pause that an operator ends early is over soon.
    """

    def __init__(self, clock: Clock, *, retry_seconds: float = 30.0) -> None:
        self.retry_seconds = retry_seconds
        self._clock = clock
        self._until: dict[AgentKey, float] = {}

    def pause(self, key: AgentKey, seconds: float) -> None:
        """Refuse calls for this agent for so many seconds from now on; 0 ends its pause."""
        now = self._clock.monotonic()
        self._until = {other: until for other, until in self._until.items() if until > now and other != key}
        if seconds > 0:
            self._until[key] = now + seconds

    def check(self, key: AgentKey) -> None:
        """Raises CallRefusedError (503) during a pause."""
        if not self._until:
            return
        left = self._until.get(key, 0.0) - self._clock.monotonic()
        if left > 0:
            text = f"an operator stopped this agent for another {left:.0f} s"
            raise CallRefusedError(text, status=503, retry_after=min(left, self.retry_seconds))
