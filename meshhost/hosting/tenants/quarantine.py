"""Keeps agents that go on crashing from costing their neighbours anything.

A path of a tenant whose agents crash too often is *held*: nothing starts there, and what waits for its next start is kept
waiting. After a time that grows from one hold to the next, one agent may start, on *probation*: when it runs for a while the
hold is over, when it crashes the next, longer hold begins. The same holds for a tenant as a whole when all its paths together
crash too often. No I/O and no tasks: `Tenancy` reports what happens to agents and asks what may start.
"""

import logging
import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from meshhost.clock import Clock
from meshhost.errors import CallRefusedError, SettingsError

__all__ = ["EVERY_PATH", "Hold", "Quarantine", "QuarantinePolicy"]

logger = logging.getLogger(__name__)

EVERY_PATH = ""
"""In place of a path: the tenant as a whole."""

# Bounds the memory: tenants come and go, and each that ever crashed has a history.
_MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class QuarantinePolicy:
    """When to hold, and for how long; all times in seconds.

    A path of a tenant is held after `failures` agents that failed for good or `crashes` crashes within `window_seconds`, a
    tenant after `tenant_failures` or `tenant_crashes`. The first hold lasts `first_hold`, each further one `factor` times the
    one before, up to `max_hold`. An agent that runs for `healthy_seconds` has passed the probation.
    """

    failures: int = 5
    crashes: int = 20
    tenant_failures: int = 15
    tenant_crashes: int = 60
    window_seconds: float = 120.0
    first_hold: float = 60.0
    max_hold: float = 3600.0
    factor: float = 2.0
    healthy_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in ("failures", "crashes", "tenant_failures", "tenant_crashes"):
            if getattr(self, name) < 1:
                raise SettingsError(f"quarantine {name} must be at least 1")
        for name in ("window_seconds", "first_hold", "max_hold"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"quarantine {name} must be more than 0")
        if self.factor < 1 or self.healthy_seconds < 0:
            raise SettingsError("quarantine factor must be at least 1, healthy_seconds at least 0")

    def hold_seconds(self, holds: int) -> float:
        """How long the n-th hold lasts, counted from 1. Monotone, at most `max_hold`."""
        # 2**64 seconds exceed any cap, and the power does not overflow a float.
        return min(self.max_hold, self.first_hold * self.factor ** min(holds - 1, 64))


@dataclass(slots=True)
class Hold:
    """A held path of a tenant, or the tenant as a whole (`path` is EVERY_PATH). Times are on the monotonic clock.

    `number` counts the holds in a row; `probe` is the id of the agent on probation, which has passed at `healthy_at`.
    """

    tenant: str
    path: str
    reason: str
    until: float
    number: int = 1
    probe: str | None = None
    healthy_at: float = math.inf


@dataclass(slots=True)
class _History:
    failures: deque[float] = field(default_factory=deque)
    crashes: deque[float] = field(default_factory=deque)


class Quarantine:
    """Decides which paths of which tenants are held."""

    def __init__(
        self, policy: QuarantinePolicy | None = None, *, clock: Clock, max_remembered: int = _MAX_REMEMBERED
    ) -> None:
        self.policy = policy if policy is not None else QuarantinePolicy()
        self._clock = clock
        self._max_remembered = max_remembered
        self._holds: dict[tuple[str, str], Hold] = {}
        self._histories: OrderedDict[tuple[str, str], _History] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Quarantine holds={len(self._holds)}>"

    @property
    def holds(self) -> tuple[Hold, ...]:
        """All holds, on probation or not, oldest first."""
        return tuple(self._holds.values())

    def hold_of(self, tenant: str, path: str) -> Hold | None:
        """The hold that keeps an agent of this tenant and path from starting now; None when one may start.

        Of two holds, the one that lasts longer.
        """
        blocking = [hold for hold in self._over(tenant, path) if not self._is_due(hold)]
        return max(blocking, key=self.seconds_left) if blocking else None

    def check(self, tenant: str, path: str) -> None:
        """Raises CallRefusedError (429) when no agent of this tenant and path may start now."""
        hold = self.hold_of(tenant, path)
        if hold is not None:
            what = "this path" if hold.path else "this tenant"
            raise CallRefusedError(
                f"{what} is in quarantine: {hold.reason}", status=429, retry_after=max(1.0, self.seconds_left(hold))
            )

    def seconds_left(self, hold: Hold) -> float:
        """An estimate of the seconds until the next agent may start there."""
        now = self._clock.monotonic()
        if hold.probe is None:
            return max(0.0, hold.until - now)
        healthy = hold.healthy_at if hold.healthy_at < math.inf else now + self.policy.healthy_seconds
        return max(0.0, healthy - now)

    def starting(self, tenant: str, path: str, agent_id: str) -> None:
        """An agent starts, or starts again. If a hold is due, the agent is on probation."""
        for hold in self._over(tenant, path):
            if self._is_due(hold):
                hold.probe, hold.healthy_at = agent_id, math.inf
                logger.info("quarantine: one agent starts on probation", extra=_fields(hold))

    def running(self, tenant: str, path: str, agent_id: str) -> None:
        """An agent reported that it runs."""
        for hold in self._over(tenant, path):
            if hold.probe == agent_id:
                hold.healthy_at = self._clock.monotonic() + self.policy.healthy_seconds

    def crashed(self, tenant: str, path: str, agent_id: str, *, for_good: bool) -> bool:
        """An agent crashed, or failed for good. Returns whether a hold began, also a longer one after a probation."""
        longer = self._probe_crashed(tenant, path, agent_id)
        began = False
        for key in ((tenant, path), (tenant, EVERY_PATH)):
            reason = self._count(key, for_good=for_good)
            if reason is not None and key not in self._holds:
                self._begin(key, reason)
                began = True
        return longer or began

    def gone(self, tenant: str, path: str, agent_id: str) -> None:
        """An agent ended without a crash. If it was on probation, the next agent to start will be."""
        for hold in self._over(tenant, path):
            if hold.probe == agent_id:
                hold.probe, hold.healthy_at = None, math.inf

    def tick(self) -> list[Hold]:
        """End the holds whose probation was passed, and return them."""
        now = self._clock.monotonic()
        passed = [hold for hold in self.holds if hold.healthy_at <= now]
        for hold in passed:
            logger.info("quarantine is over: the agent on probation runs", extra=_fields(hold))
            self._end(hold)
        return passed

    def release(self, tenant: str, path: str = EVERY_PATH) -> list[Hold]:
        """End the hold of the path, or with EVERY_PATH all holds of the tenant, and return them."""
        ended = [hold for hold in self.holds if hold.tenant == tenant and path in (EVERY_PATH, hold.path)]
        for hold in ended:
            logger.info("quarantine was released", extra=_fields(hold))
            self._end(hold)
        return ended

    def _over(self, tenant: str, path: str) -> list[Hold]:
        """The holds that cover this path of the tenant."""
        if not self._holds:
            return []
        keys = {(tenant, path), (tenant, EVERY_PATH)}
        return [hold for key in keys if (hold := self._holds.get(key)) is not None]

    def _is_due(self, hold: Hold) -> bool:
        return hold.probe is None and hold.until <= self._clock.monotonic()

    def _probe_crashed(self, tenant: str, path: str, agent_id: str) -> bool:
        crashed = [hold for hold in self._over(tenant, path) if hold.probe == agent_id]
        for hold in crashed:
            hold.number += 1
            hold.probe, hold.healthy_at = None, math.inf
            hold.until = self._clock.monotonic() + self.policy.hold_seconds(hold.number)
            logger.warning("quarantine goes on: the agent on probation crashed", extra=_fields(hold))
        return bool(crashed)

    def _begin(self, key: tuple[str, str], reason: str) -> None:
        until = self._clock.monotonic() + self.policy.hold_seconds(1)
        hold = self._holds[key] = Hold(tenant=key[0], path=key[1], reason=reason, until=until)
        logger.warning("quarantine begins", extra={**_fields(hold), "reason": reason})

    def _end(self, hold: Hold) -> None:
        del self._holds[hold.tenant, hold.path]
        # Crashes before the hold must not cause the next one.
        self._histories.pop((hold.tenant, hold.path), None)

    def _count(self, key: tuple[str, str], *, for_good: bool) -> str | None:
        """Count a crash or failure. Returns the reason for a hold when there were too many."""
        history = self._histories.setdefault(key, _History())
        self._histories.move_to_end(key)
        if len(self._histories) > self._max_remembered:
            self._histories.popitem(last=False)
        policy, now = self.policy, self._clock.monotonic()
        is_path = key[1] != EVERY_PATH
        most_failures = policy.failures if is_path else policy.tenant_failures
        most_crashes = policy.crashes if is_path else policy.tenant_crashes
        events, most = (history.failures, most_failures) if for_good else (history.crashes, most_crashes)
        events.append(now)
        while len(events) > most or events[0] <= now - policy.window_seconds:
            events.popleft()
        if len(events) < most:
            return None
        what = "agents failed for good" if for_good else "crashes"
        return f"{most} {what} within {policy.window_seconds:g} s"


def _fields(hold: Hold) -> dict[str, object]:
    return {"tenant": hold.tenant, "path": hold.path or "(every path)", "hold": hold.number}
