"""How much memory the agents of one tenant may take together, of those that have processes of their own.

What they take is measured by the process pool, which looks at each process once a second and lets `judge` decide; a start
counts with what a process is expected to take until it was measured. No I/O and no tasks. Sizes are bytes, quotas megabytes.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from meshhost.clock import Clock
from meshhost.errors import CallRefusedError

__all__ = ["MEGABYTE", "MemoryQuotas", "ProcessMemory"]

logger = logging.getLogger(__name__)

MEGABYTE = 1024 * 1024

_RETRY_AFTER_SECONDS = 5.0
_WARN_SHARE = 0.8
# Below this it counts as calmed down. Well below: an agent that swings around one mark must not warn every second.
_CALM_SHARE = 0.7
# A process that was killed gives its memory back when the kernel gets to it. If it never does, another has to go.
_GIVES_BACK_SECONDS = 10.0
_NAMED = 3


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """What an agent's process took when it was looked at. `is_ending`: it was killed already."""

    spawn_id: str
    used: int
    is_ending: bool = False


@dataclass(slots=True)
class _Share:
    expected: int
    used: int = 0
    is_started: bool = False
    is_settled: bool = False
    """It was measured after its start."""
    is_ending: bool = False

    @property
    def counted(self) -> int:
        return self.used if self.is_settled else max(self.expected, self.used)

    def take(self, memory: ProcessMemory | None) -> None:
        self.used = memory.used if memory is not None else 0
        self.is_ending = memory is not None and memory.is_ending
        self.is_settled = self.is_settled or (self.is_started and memory is not None)


@dataclass(slots=True)
class _Account:
    """A tenant's. `shares` and `waiting` are by spawn id, oldest first."""

    shares: dict[str, _Share] = field(default_factory=dict)
    waiting: dict[str, Callable[[], None]] = field(default_factory=dict)
    is_near: bool = False
    is_over: bool = False
    ending_since: float | None = None

    @property
    def used(self) -> int:
        return sum(share.used for share in self.shares.values())

    def counted(self, without: Collection[str] = ()) -> int:
        return sum(share.counted for spawn_id, share in self.shares.items() if spawn_id not in without)

    def biggest(self) -> list[tuple[str, int]]:
        """Those that may be ended, by size, of equal ones the youngest first."""
        there = [(one, share.used) for one, share in self.shares.items() if share.used and not share.is_ending]
        return sorted(there, key=lambda item: item[1])[::-1]


class MemoryQuotas:
    """Decides whether a tenant may have one more process, and whose process ends when its agents outgrow the quota.

    `allowed` tells a tenant's quota in megabytes (None: no limit), `expected` what a process takes before it runs an agent.
    An agent has a share from `begin` or a granted `ask` until `end`.
    """

    def __init__(
        self, *, clock: Clock, allowed: Callable[[str], float | None], expected: Callable[[], int] = lambda: 0
    ) -> None:
        self._clock = clock
        self._allowed = allowed
        self._expected = expected
        self._accounts: dict[str, _Account] = {}

    def __repr__(self) -> str:
        return f"<MemoryQuotas tenants={len(self._accounts)} over={self.over}>"

    @property
    def over(self) -> int:
        """How many tenants were over their quota when last looked at."""
        return sum(account.is_over for account in self._accounts.values())

    def used(self, tenant: str) -> int:
        """What the tenant's processes took when last looked at."""
        account = self._accounts.get(tenant)
        return 0 if account is None else account.used

    def is_waiting(self, tenant: str, spawn_id: str) -> bool:
        """Whether this agent's start waits for memory."""
        account = self._accounts.get(tenant)
        return account is not None and spawn_id in account.waiting

    def check(self, tenant: str, *, leaving: Collection[str] = ()) -> None:
        """Raises CallRefusedError (429) when one more process is too much, also without the agents that are `leaving`."""
        account = self._accounts.get(tenant)
        if account is None:
            account = _Account()
        else:
            # Who waited longer goes first.
            self._let_go(tenant, account)
        allowed = self._allowed(tenant)
        if allowed is not None and not self._has_room(tenant, account, leaving):
            raise CallRefusedError(
                f"over the tenant's quota memory_mb: its agents take {_mb(account.counted(leaving))} MB of {allowed:g} MB,"
                f" and one more about {_mb(self._expected())} MB",
                status=429,
                retry_after=_RETRY_AFTER_SECONDS,
            )

    def begin(self, tenant: str, spawn_id: str) -> None:
        """The agent was admitted and will have a process."""
        self._share_out(self._account(tenant), spawn_id)

    def ask(self, tenant: str, spawn_id: str, grant: Callable[[], None]) -> bool:
        """Whether the agent may have a process now. If not it waits: `grant` is called when it may, unless `end` comes first.

        True for one that was admitted for this start.
        """
        account = self._account(tenant)
        share = account.shares.get(spawn_id)
        if share is not None and not share.is_started:
            return True
        account.shares.pop(spawn_id, None)
        if account.waiting or not self._has_room(tenant, account):
            account.waiting[spawn_id] = grant
            return False
        self._share_out(account, spawn_id)
        return True

    def running(self, tenant: str, spawn_id: str) -> None:
        """The agent's start is over: from the next look on it counts with what it takes."""
        account = self._accounts.get(tenant)
        if account is not None and (share := account.shares.get(spawn_id)) is not None:
            share.is_started = True

    def end(self, tenant: str, spawn_id: str) -> None:
        """The agent has no process now, and waits for none. Again is no news."""
        account = self._accounts.get(tenant)
        if account is None:
            return
        account.shares.pop(spawn_id, None)
        account.waiting.pop(spawn_id, None)
        self._let_go(tenant, account)
        if not account.shares:
            # Nobody waits then either, but where the quota is less than one process: they are looked at with the rest.
            account.is_near = account.is_over = False
            if not account.waiting:
                del self._accounts[tenant]

    def judge(self, looks: Iterable[ProcessMemory]) -> Mapping[str, str]:
        """Take what all processes of agents take now. Returns, by spawn id, whose process is to be ended, and why.

        Of each tenant over its quota that is one, the biggest; and none as long as an earlier one gives back its memory.
        """
        by_id = {look.spawn_id: look for look in looks}
        verdicts: dict[str, str] = {}
        for tenant, account in tuple(self._accounts.items()):
            for spawn_id, share in account.shares.items():
                share.take(by_id.get(spawn_id))
            if (allowed := self._allowed(tenant)) is not None:
                self._tell(tenant, account, allowed)
                if account.is_over and not self._gives_back(account):
                    verdicts.update(self._verdict(tenant, account, allowed))
            self._let_go(tenant, account)
        return verdicts

    def _account(self, tenant: str) -> _Account:
        return self._accounts.setdefault(tenant, _Account())

    def _share_out(self, account: _Account, spawn_id: str) -> None:
        account.shares[spawn_id] = _Share(self._expected())

    def _has_room(self, tenant: str, account: _Account, leaving: Collection[str] = ()) -> bool:
        allowed = self._allowed(tenant)
        return allowed is None or account.counted(leaving) + max(self._expected(), 1) <= allowed * MEGABYTE

    def _let_go(self, tenant: str, account: _Account) -> None:
        while account.waiting and self._has_room(tenant, account):
            spawn_id = next(iter(account.waiting))
            grant = account.waiting.pop(spawn_id)
            self._share_out(account, spawn_id)
            grant()

    def _tell(self, tenant: str, account: _Account, allowed: float) -> None:
        """Notice when the tenant passes one of the marks; each is logged once until it is left again."""
        used = account.used
        was_near, was_over = account.is_near, account.is_over
        account.is_over = used > allowed * MEGABYTE
        account.is_near = used > allowed * MEGABYTE * (_CALM_SHARE if was_near else _WARN_SHARE)
        fields = {"tenant": tenant, "used_mb": _mb(used), "allowed_mb": allowed}
        if account.is_over and not was_over:
            agents = ", ".join(f"{spawn_id} ({_mb(size)} MB)" for spawn_id, size in account.biggest()[:_NAMED])
            logger.warning("tenant is over its memory quota", extra={**fields, "biggest": agents})
        elif account.is_near and not was_near:
            logger.warning("tenant is near its memory quota", extra=fields)

    def _gives_back(self, account: _Account) -> bool:
        """Whether one that was ended still has memory, and not for too long."""
        if not any(share.is_ending and share.used for share in account.shares.values()):
            account.ending_since = None
            return False
        now = self._clock.monotonic()
        if account.ending_since is None:
            account.ending_since = now
        return now - account.ending_since < _GIVES_BACK_SECONDS

    def _verdict(self, tenant: str, account: _Account, allowed: float) -> dict[str, str]:
        account.ending_since = None
        biggest = account.biggest()
        if not biggest:
            return {}
        spawn_id, size = biggest[0]
        total = _mb(account.used)
        fields = {
            "tenant": tenant,
            "spawn_id": spawn_id,
            "used_mb": _mb(size),
            "tenant_mb": total,
            "allowed_mb": allowed,
        }
        logger.error("agent's process is ended: its tenant is over its memory quota", extra=fields)
        reason = (
            f"the agent's tenant was over its memory quota, not the agent over a limit of its own: the tenant's agents used"
            f" {total} MB of {allowed:g} MB, and this one the most, {_mb(size)} MB"
        )
        return {spawn_id: reason}


def _mb(size: int) -> int:
    return round(size / MEGABYTE)
