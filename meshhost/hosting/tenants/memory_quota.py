"""How much memory the agents of one tenant may use together, counting agents with processes of their own.

The process pool measures each process once a second and calls `judge`, which returns the processes to end. Before a start,
`Tenancy` calls `check` (for a new call) or `ask` (when the start's turn has come); until a process was measured it counts with
the size of a process that has booted. No I/O and no tasks. Sizes are bytes, quotas megabytes.

Invariant: of a tenant over its quota one process is ended at a time, the biggest; the next one only after the memory of the
first was given back or did not come back within 10 s. Otherwise one peak would end all agents of the tenant.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from meshhost.clock import Clock
from meshhost.errors import CallRefusedError
from meshhost.hosting.agents.process_memory import MEGABYTE, ProcessMemory
from meshhost.hosting.refusals import RETRY_SOON_SECONDS

__all__ = ["MemoryQuotas"]

logger = logging.getLogger(__name__)

_WARN_SHARE = 0.8
# Below this the warning ends. Well below the mark, so that usage around one mark does not warn every second.
_CALM_SHARE = 0.7
# The kernel frees the memory of a killed process with a delay. If it does not, another process has to be ended.
_RELEASE_SECONDS = 10.0
_MAX_NAMED = 3


@dataclass(slots=True)
class _Share:
    expected: int
    used: int = 0
    is_started: bool = False
    is_settled: bool = False
    """It was measured after its start was over."""
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
    """One tenant's. `shares` and `waiting` are by agent id, oldest first."""

    shares: dict[str, _Share] = field(default_factory=dict)
    waiting: dict[str, Callable[[], None]] = field(default_factory=dict)
    is_near: bool = False
    is_over: bool = False
    ending_since: float | None = None

    @property
    def used(self) -> int:
        return sum(share.used for share in self.shares.values())

    def counted(self, without: Collection[str] = ()) -> int:
        return sum(share.counted for agent_id, share in self.shares.items() if agent_id not in without)

    def biggest(self) -> list[tuple[str, int]]:
        """The agents that may be ended, biggest first; of equal ones the youngest first."""
        there = [(one, share.used) for one, share in self.shares.items() if share.used and not share.is_ending]
        return sorted(there, key=lambda item: item[1])[::-1]


class MemoryQuotas:
    """Decides whether a tenant may have one more process, and which process ends when the tenant is over its quota.

    `allowed` returns a tenant's quota in megabytes (None: no limit), `expected` the bytes that a process uses before it runs
    an agent. An agent has a share from `begin` or a granted `ask` until `end`.
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
        """How many tenants were over their quota at the last measurement."""
        return sum(account.is_over for account in self._accounts.values())

    def used(self, tenant: str) -> int:
        """The memory of the tenant's processes at the last measurement."""
        account = self._accounts.get(tenant)
        return 0 if account is None else account.used

    def is_waiting(self, tenant: str, agent_id: str) -> bool:
        """Whether this agent's start waits for memory."""
        account = self._accounts.get(tenant)
        return account is not None and agent_id in account.waiting

    def check(self, tenant: str, *, leaving: Collection[str] = ()) -> None:
        """Raises CallRefusedError (429) when one more process would be too much, not counting those that are `leaving`."""
        account = self._accounts.get(tenant)
        if account is None:
            account = _Account()
        else:
            # Starts that wait already go first.
            self._grant_waiting(tenant, account)
        allowed = self._allowed(tenant)
        if allowed is not None and not self._has_room(tenant, account, leaving):
            raise CallRefusedError(
                f"over the tenant's quota memory_mb: its agents take {_mb(account.counted(leaving))} MB of {allowed:g} MB,"
                f" and one more about {_mb(self._expected())} MB",
                status=429,
                retry_after=RETRY_SOON_SECONDS,
            )

    def begin(self, tenant: str, agent_id: str) -> None:
        """The agent was admitted and will have a process."""
        self._add_share(self._account(tenant), agent_id)

    def ask(self, tenant: str, agent_id: str, grant: Callable[[], None]) -> bool:
        """Whether the agent may have a process now. If not, it waits, and `grant` is called later unless `end` comes first.

        Also true for an agent that `begin` admitted for this start.
        """
        account = self._account(tenant)
        share = account.shares.get(agent_id)
        if share is not None and not share.is_started:
            return True
        account.shares.pop(agent_id, None)
        if account.waiting or not self._has_room(tenant, account):
            account.waiting[agent_id] = grant
            return False
        self._add_share(account, agent_id)
        return True

    def running(self, tenant: str, agent_id: str) -> None:
        """The agent's start is over: from the next measurement on it counts with what it uses."""
        account = self._accounts.get(tenant)
        if account is not None and (share := account.shares.get(agent_id)) is not None:
            share.is_started = True

    def end(self, tenant: str, agent_id: str) -> None:
        """The agent has no process and waits for none. Idempotent."""
        account = self._accounts.get(tenant)
        if account is None:
            return
        account.shares.pop(agent_id, None)
        account.waiting.pop(agent_id, None)
        self._grant_waiting(tenant, account)
        if not account.shares:
            # None waits now either, except where the quota is smaller than one process; `judge` releases those.
            account.is_near = account.is_over = False
            if not account.waiting:
                del self._accounts[tenant]

    def judge(self, looks: Iterable[ProcessMemory]) -> Mapping[str, str]:
        """Take a measurement of all agents' processes. Returns the agents whose process must end, by id, with the reason.

        That is at most one for each tenant over its quota, its biggest, and none while an earlier one releases its memory.
        """
        by_id = {look.agent_id: look for look in looks}
        verdicts: dict[str, str] = {}
        for tenant, account in tuple(self._accounts.items()):
            for agent_id, share in account.shares.items():
                share.take(by_id.get(agent_id))
            if (allowed := self._allowed(tenant)) is not None:
                self._log_marks(tenant, account, allowed)
                if account.is_over and not self._is_releasing(account):
                    verdicts.update(self._verdict(tenant, account, allowed))
            self._grant_waiting(tenant, account)
        return verdicts

    def _account(self, tenant: str) -> _Account:
        return self._accounts.setdefault(tenant, _Account())

    def _add_share(self, account: _Account, agent_id: str) -> None:
        account.shares[agent_id] = _Share(self._expected())

    def _has_room(self, tenant: str, account: _Account, leaving: Collection[str] = ()) -> bool:
        allowed = self._allowed(tenant)
        return allowed is None or account.counted(leaving) + max(self._expected(), 1) <= allowed * MEGABYTE

    def _grant_waiting(self, tenant: str, account: _Account) -> None:
        while account.waiting and self._has_room(tenant, account):
            agent_id = next(iter(account.waiting))
            grant = account.waiting.pop(agent_id)
            self._add_share(account, agent_id)
            grant()

    def _log_marks(self, tenant: str, account: _Account, allowed: float) -> None:
        """Update the marks (near, over) and log each when it is reached, once until the tenant is below it again."""
        used = account.used
        was_near, was_over = account.is_near, account.is_over
        account.is_over = used > allowed * MEGABYTE
        account.is_near = used > allowed * MEGABYTE * (_CALM_SHARE if was_near else _WARN_SHARE)
        fields = {"tenant": tenant, "used_mb": _mb(used), "allowed_mb": allowed}
        if account.is_over and not was_over:
            agents = ", ".join(f"{agent_id} ({_mb(size)} MB)" for agent_id, size in account.biggest()[:_MAX_NAMED])
            logger.warning("tenant is over its memory quota", extra={**fields, "biggest": agents})
        elif account.is_near and not was_near:
            logger.warning("tenant is near its memory quota", extra=fields)

    def _is_releasing(self, account: _Account) -> bool:
        """Whether a process that was ended still has memory, and not yet for too long."""
        if not any(share.is_ending and share.used for share in account.shares.values()):
            account.ending_since = None
            return False
        now = self._clock.monotonic()
        if account.ending_since is None:
            account.ending_since = now
        return now - account.ending_since < _RELEASE_SECONDS

    def _verdict(self, tenant: str, account: _Account, allowed: float) -> dict[str, str]:
        account.ending_since = None
        biggest = account.biggest()
        if not biggest:
            return {}
        agent_id, size = biggest[0]
        total = _mb(account.used)
        fields = {
            "tenant": tenant,
            "spawn_id": agent_id,
            "used_mb": _mb(size),
            "tenant_mb": total,
            "allowed_mb": allowed,
        }
        logger.error("agent's process is ended: its tenant is over its memory quota", extra=fields)
        reason = (
            f"the agent's tenant was over its memory quota, not the agent over a limit of its own: the tenant's agents used"
            f" {total} MB of {allowed:g} MB, and this one the most, {_mb(size)} MB"
        )
        return {agent_id: reason}


def _mb(size: int) -> int:
    return round(size / MEGABYTE)
