"""Decides which tenant may start an agent, and when: the quotas, turns, quarantine, memory and freezes of one host together.

`HostedAgents` asks before each new agent (`check_call`, `check_start`), reports it (`started`) and wraps each of its lives in
its turn to start (`queued`). As an observer of the supervisor, `changed` learns how agents fare, and holds those that crash
too often. `run` is the only long task: about once a second it measures the load, ends quarantines and releases held agents.

Invariant: what an agent takes here (a turn, a share of memory, its place in the count of its tenant) is given back when it
ends for good, exactly once, in `_ended`. The tenant of an agent is the one in its key.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from meshhost.clock import Clock
from meshhost.errors import CallRefusedError
from meshhost.hosting.agents.assignment import HostedAgent
from meshhost.hosting.observe.load import LoadMeter
from meshhost.hosting.refusals import RETRY_FROZEN_SECONDS
from meshhost.hosting.tenants.freezes import Freezes
from meshhost.hosting.tenants.memory_quota import MemoryQuotas
from meshhost.hosting.tenants.quarantine import EVERY_PATH, Hold, Quarantine, QuarantinePolicy
from meshhost.hosting.tenants.quotas import Quotas
from meshhost.hosting.tenants.start_queue import QueuedChild, StartQueue, Ticket
from meshhost.supervision.isolation import Child
from meshhost.supervision.state import TERMINAL, State
from meshhost.tasks import TaskOwner

__all__ = ["Tenancy", "TenancyCollector", "TenantFacts", "Turns"]

_TICK_SECONDS = 1.0
_WAITS = (0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class Turns:
    """The turns to start of one agent, one for each of its lives. The first place in the queue is taken at once."""

    __slots__ = ("_clock", "_current", "_is_first_used", "_queue", "_start_timeout", "_tenant")

    def __init__(self, queue: StartQueue, tenant: str, *, start_timeout: float, clock: Clock) -> None:
        self._queue = queue
        self._tenant = tenant
        self._start_timeout = start_timeout
        self._clock = clock
        self._current: Ticket = queue.enter(tenant)
        self._is_first_used = False

    @property
    def is_waiting(self) -> bool:
        """Whether its turn has not come yet."""
        return self._current.is_waiting

    def queued(self, child: Child, *, is_parked: bool = False) -> Child:
        """Wrap the child of its next life, so that its start waits for its turn; when parked, first for `unpark`."""
        if self._is_first_used or is_parked:
            self.leave()
            self._current = self._queue.enter(self._tenant, is_parked=is_parked)
        self._is_first_used = True
        return QueuedChild(child, self._current, start_timeout=self._start_timeout, clock=self._clock)

    def unpark(self) -> None:
        """The parked next life may line up."""
        self._current.unpark()

    def leave(self) -> None:
        """Give up the place."""
        self._current.leave()


@dataclass(frozen=True, slots=True)
class TenantFacts:
    """The present state of one tenant."""

    tenant: str
    agents: int
    waiting: int
    memory_bytes: int
    is_frozen: bool
    holds: tuple[Hold, ...]


class Tenancy:
    """Quotas, turns to start, quarantine, load and frozen tenants of one host.

    `live` returns the live agents, `expected_memory` the bytes that a process uses before it runs an agent. The owner adds
    `changed` to the supervisor's observers and runs `run` as long as the host.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        live: Callable[[], Iterable[HostedAgent]],
        load: LoadMeter,
        quotas: Quotas | None = None,
        max_starts: int = 32,
        quarantine: QuarantinePolicy | None = None,
        expected_memory: Callable[[], int] = lambda: 0,
        frozen: Freezes | None = None,
    ) -> None:
        self._clock = clock
        self._live = live
        self.load = load
        self.quotas = quotas if quotas is not None else Quotas(clock=clock)
        self.memory = MemoryQuotas(
            clock=clock, allowed=lambda tenant: self.quotas.of(tenant).memory_mb, expected=expected_memory
        )
        self.quarantine = Quarantine(quarantine, clock=clock)
        self.waits = Histogram(
            "meshhost_start_wait_seconds", "How long starts waited for their turn", buckets=_WAITS, registry=None
        )
        self.queue = StartQueue(
            clock=clock,
            limit=max_starts,
            weight=self.quotas.weight,
            on_grant=self.waits.observe,
        )
        self.frozen = frozen if frozen is not None else Freezes(clock=clock)
        self._agents: Counter[str] = Counter()
        self._turns: dict[str, Turns] = {}
        self._held: dict[str, HostedAgent] = {}
        self._tasks = TaskOwner("tenancy")

    def __repr__(self) -> str:
        return f"<Tenancy agents={self._agents.total()} queue={self.queue!r} {self.quarantine!r}>"

    @property
    def agents(self) -> int:
        """How many agents live here."""
        return len(self._turns)

    def check_call(self, tenant: str) -> None:
        """Raises CallRefusedError (429) when the tenant is frozen."""
        if tenant in self.frozen:
            text = "this tenant is frozen by the host's operator"
            raise CallRefusedError(text, status=429, retry_after=RETRY_FROZEN_SECONDS)

    def check_path(self, tenant: str, path: str) -> None:
        """Raises CallRefusedError (429) when this path of the tenant is in quarantine."""
        self.quarantine.check(tenant, path)

    def check_start(
        self, tenant: str, path: str, *, leaving: Collection[HostedAgent] = (), in_process: bool = False
    ) -> None:
        """Check and count a new start, for which these agents of the tenant are `leaving`.

        Raises CallRefusedError: 503 for the host's load, 429 for the tenant's quota or quarantine.
        """
        self.load.check()
        self.check_path(tenant, path)
        if in_process:
            self.memory.check(tenant, leaving={agent.id for agent in leaving})
        self.quotas.admit(tenant, live=self._agents[tenant] - len(leaving), waiting=self.queue.waiting(tenant))

    def turns(self, tenant: str, *, start_timeout: float) -> Turns:
        """Take a place in the queue. The caller must pass it to `started`, or call its `leave`."""
        return Turns(self.queue, tenant, start_timeout=start_timeout, clock=self._clock)

    def started(self, agent: HostedAgent, turns: Turns, *, has_memory: bool = False) -> None:
        """The agent is supervised now. `has_memory`: `check_start` has just admitted its process."""
        tenant, path = agent.key.tenant, agent.key.path
        if has_memory:
            self.memory.begin(tenant, agent.id)
        self._agents[tenant] += 1
        self._turns[agent.id] = turns
        self.quarantine.starting(tenant, path, agent.id)

    def queued(self, agent: HostedAgent, turns: Turns, child: Child, *, in_process: bool) -> Child:
        """Wrap the child of the agent's next life: its start waits for its turn and, `in_process`, for the tenant's memory."""
        tenant = agent.key.tenant
        return turns.queued(child, is_parked=in_process and not self.memory.ask(tenant, agent.id, turns.unpark))

    def waits_for(self, agent: HostedAgent) -> str | None:
        """What the agent's start waits for here, as text for people; None when for nothing."""
        if self.memory.is_waiting(agent.key.tenant, agent.id):
            return "memory in its tenant's quota"
        return "its turn to start" if self.is_waiting(agent) else None

    def is_waiting(self, agent: HostedAgent) -> bool:
        """Whether the agent waits for its turn to start."""
        turns = self._turns.get(agent.id)
        return turns is not None and turns.is_waiting

    def changed(self, agent: HostedAgent, old: State, new: State) -> None:
        """An agent changed its state; an observer of the supervisor."""
        if agent.id not in self._turns:
            return
        tenant, path = agent.key.tenant, agent.key.path
        match new:
            case State.STARTING:
                self._held.pop(agent.id, None)
                self.quarantine.starting(tenant, path, agent.id)
            case State.RUNNING:
                self.memory.running(tenant, agent.id)
                self.quarantine.running(tenant, path, agent.id)
            case State.BACKING_OFF:
                self.memory.end(tenant, agent.id)
                self._crashed(agent, for_good=False)
            case State.FAILED if old is not State.DRAINING:
                self._crashed(agent, for_good=True)
            case State.DRAINING | State.STOPPED | State.FAILED:
                self.quarantine.gone(tenant, path, agent.id)
            case State.QUARANTINED:
                pass
        if new in TERMINAL:
            self._ended(agent, tenant)

    def tick(self) -> None:
        """Measure the load and release the agents whose quarantine is over. About once a second."""
        self.load.sample()
        self.quarantine.tick()
        self._release_due()

    async def run(self) -> None:
        """Tick until cancelled."""
        self.load.sample()
        try:
            while True:
                await self._clock.sleep(_TICK_SECONDS)
                self.tick()
        finally:
            await self._tasks.stop(timeout=1.0)

    def release(self, tenant: str, path: str = EVERY_PATH) -> list[Hold]:
        """End the quarantine of the path, or all quarantines of the tenant, and return them."""
        ended = self.quarantine.release(tenant, path)
        self._release_due()
        return ended

    def facts(self) -> list[TenantFacts]:
        """All tenants that have agents, a freeze or a quarantine, by name."""
        holds = self.quarantine.holds
        names = {*self._agents, *self.frozen, *(hold.tenant for hold in holds)}
        return [
            TenantFacts(
                tenant=name,
                agents=self._agents[name],
                waiting=self.queue.waiting(name),
                memory_bytes=self.memory.used(name),
                is_frozen=name in self.frozen,
                holds=tuple(hold for hold in holds if hold.tenant == name),
            )
            for name in sorted(names)
        ]

    def _crashed(self, agent: HostedAgent, *, for_good: bool) -> None:
        tenant, path = agent.key.tenant, agent.key.path
        if self.quarantine.crashed(tenant, path, agent.id, for_good=for_good):
            self._hold(other for other in self._live() if other.key.tenant == tenant)
        elif not for_good:
            self._hold([agent])

    def _hold(self, agents: Iterable[HostedAgent]) -> None:
        """Quarantine those of the agents that wait for a start that is held."""
        for agent in list(agents):
            if agent.state is State.BACKING_OFF and agent.id not in self._held:
                hold = self.quarantine.hold_of(agent.key.tenant, agent.key.path)
                if hold is not None:
                    self._held[agent.id] = agent
                    # In a task: the other observers must see the crash before the quarantine.
                    self._tasks.spawn(self._quarantined(agent, hold.reason), name=f"quarantines {agent.name}")

    async def _quarantined(self, agent: HostedAgent, reason: str) -> None:
        if agent.state is State.BACKING_OFF:
            await agent.quarantine(reason)
        else:
            self._held.pop(agent.id, None)

    def _release_due(self) -> None:
        for agent in list(self._held.values()):
            # Checked for each: once the first is on probation, the others have to wait for its result.
            if agent.state is State.QUARANTINED and self.quarantine.hold_of(agent.key.tenant, agent.key.path) is None:
                agent.release()

    def _ended(self, agent: HostedAgent, tenant: str) -> None:
        self._held.pop(agent.id, None)
        self._turns.pop(agent.id).leave()
        self.memory.end(tenant, agent.id)
        self._agents[tenant] -= 1
        if not self._agents[tenant]:
            del self._agents[tenant]


class TenancyCollector(Collector):
    """The metrics of a tenancy. Without tenant labels: the number of tenants is not bounded."""

    def __init__(self, tenancy: Tenancy) -> None:
        self._tenancy = tenancy

    def collect(self) -> Iterator[Metric]:
        """The current values."""
        tenancy, load = self._tenancy, self._tenancy.load.load
        yield GaugeMetricFamily(
            "meshhost_load", "How loaded the host is, from 0 to 1; for autoscaling", value=load.value
        )
        parts = GaugeMetricFamily("meshhost_load_part", "Parts of the limits; the load is the worst", labels=["part"])
        for name, value in load.as_json().items():
            parts.add_metric([name], value)
        yield parts
        for name, text, number in (
            ("meshhost_starts_waiting", "Agents that wait for their turn to start", tenancy.queue.waiting()),
            ("meshhost_starts_running", "Agents that start now", tenancy.queue.starting),
            ("meshhost_quarantine_holds", "Paths and tenants in quarantine", len(tenancy.quarantine.holds)),
            ("meshhost_tenants_over_memory", "Tenants over their memory quota", tenancy.memory.over),
            ("meshhost_tenants_frozen", "Tenants frozen by the operator", len(tenancy.frozen)),
        ):
            yield GaugeMetricFamily(name, text, value=number)
        yield from tenancy.waits.collect()
