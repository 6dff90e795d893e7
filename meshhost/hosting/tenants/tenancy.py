"""What keeps the tenants of a host apart: who may start an agent, and when. Holds no sockets and reads no settings."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from meshhost.clock import Clock
from meshhost.errors import CallRefusedError
from meshhost.hosting.observe.load import LoadMeter
from meshhost.hosting.tenants.freezes import Freezes
from meshhost.hosting.tenants.memory_quota import MemoryQuotas
from meshhost.hosting.tenants.quarantine import EVERY_PATH, Hold, Quarantine, QuarantinePolicy
from meshhost.hosting.tenants.quotas import Quotas
from meshhost.hosting.tenants.start_queue import QueuedChild, StartQueue, Ticket
from meshhost.supervision.isolation import Child
from meshhost.supervision.spawn import Spawn
from meshhost.supervision.state import TERMINAL, State
from meshhost.tasks import TaskOwner

__all__ = ["Tenancy", "TenancyCollector", "TenantFacts", "Turns", "who"]

_FROZEN_RETRY_SECONDS = 60.0
_TICK_SECONDS = 1.0
_WAITS = (0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class Turns:
    """The turns to start of one agent: one for each of its lives. The first place in the queue is taken at once."""

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
        """Whether its turn is still to come."""
        return self._current.is_waiting

    def queued(self, child: Child, *, is_parked: bool = False) -> Child:
        """The child of its next life, which waits for its turn; a parked one first for `unpark`."""
        if self._is_first_used or is_parked:
            self.leave()
            self._current = self._queue.enter(self._tenant, is_parked=is_parked)
        self._is_first_used = True
        return QueuedChild(child, self._current, start_timeout=self._start_timeout, clock=self._clock)

    def unpark(self) -> None:
        """What its next life was parked for is there."""
        self._current.unpark()

    def leave(self) -> None:
        """Give up the place."""
        self._current.leave()


@dataclass(frozen=True, slots=True)
class TenantFacts:
    """A tenant as of now."""

    tenant: str
    agents: int
    waiting: int
    memory_bytes: int
    is_frozen: bool
    holds: tuple[Hold, ...]


class Tenancy:
    """Quotas, turns to start, quarantine, load and frozen tenants of one host. `live` gives the agents.

    `expected_memory` tells how many bytes a process takes before it runs an agent.
    `changed` is an observer of the supervisor; `run` has to run as long as the host.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        live: Callable[[], Iterable[Spawn]],
        load: LoadMeter,
        quotas: Quotas | None = None,
        max_starts: int = 32,
        quarantine: QuarantinePolicy | None = None,
        expected_memory: Callable[[], int] = lambda: 0,
        frozen: Freezes | None = None,
    ) -> None:
        self._clock = clock
        self._live_spawns = live
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
        self._held: dict[str, Spawn] = {}
        self._tasks = TaskOwner("tenancy")

    def __repr__(self) -> str:
        return f"<Tenancy agents={self._agents.total()} queue={self.queue!r} {self.quarantine!r}>"

    @property
    def agents(self) -> int:
        """How many agents live here."""
        return len(self._turns)

    def check_call(self, tenant: str) -> None:
        """Raises CallRefusedError (429) when the tenant may not call at all."""
        if tenant in self.frozen:
            text = "this tenant is frozen by the host's operator"
            raise CallRefusedError(text, status=429, retry_after=_FROZEN_RETRY_SECONDS)

    def check_path(self, tenant: str, path: str) -> None:
        """Raises CallRefusedError (429) when this path of the tenant is in quarantine."""
        self.quarantine.check(tenant, path)

    def check_start(self, tenant: str, path: str, *, leaving: Collection[Spawn] = (), in_process: bool = False) -> None:
        """Count a start, be it `in_process`, for which these agents of the tenant are `leaving`.

        Raises CallRefusedError: 503 for the host's load, 429 for the tenant's quota or quarantine.
        """
        self.load.check()
        self.check_path(tenant, path)
        if in_process:
            self.memory.check(tenant, leaving={spawn.id for spawn in leaving})
        self.quotas.admit(tenant, live=self._agents[tenant] - len(leaving), waiting=self.queue.waiting(tenant))

    def turns(self, tenant: str, *, start_timeout: float) -> Turns:
        """A place in the queue for an agent that will be handed to `started`, or has to `leave`."""
        return Turns(self.queue, tenant, start_timeout=start_timeout, clock=self._clock)

    def started(self, spawn: Spawn, turns: Turns, *, has_memory: bool = False) -> None:
        """The agent is supervised now; `has_memory`: its start in a process was checked a moment ago."""
        tenant, path = who(spawn)
        if has_memory:
            self.memory.begin(tenant, spawn.id)
        self._agents[tenant] += 1
        self._turns[spawn.id] = turns
        self.quarantine.starting(tenant, path, spawn.id)

    def queued(self, spawn: Spawn, turns: Turns, child: Child, *, in_process: bool) -> Child:
        """The child of the agent's next life, which waits for its turn and, `in_process`, for its tenant's memory."""
        tenant, _ = who(spawn)
        return turns.queued(child, is_parked=in_process and not self.memory.ask(tenant, spawn.id, turns.unpark))

    def waits_for(self, spawn: Spawn) -> str | None:
        """What the agent's start waits for here, for people; None when for nothing."""
        if self.memory.is_waiting(who(spawn)[0], spawn.id):
            return "memory in its tenant's quota"
        return "its turn to start" if self.is_waiting(spawn) else None

    def is_waiting(self, spawn: Spawn) -> bool:
        """Whether the agent waits for its turn to start."""
        turns = self._turns.get(spawn.id)
        return turns is not None and turns.is_waiting

    def changed(self, spawn: Spawn, old: State, new: State) -> None:
        """An agent changed its state; an observer of the supervisor."""
        if spawn.id not in self._turns:
            return
        tenant, path = who(spawn)
        match new:
            case State.STARTING:
                self._held.pop(spawn.id, None)
                self.quarantine.starting(tenant, path, spawn.id)
            case State.RUNNING:
                self.memory.running(tenant, spawn.id)
                self.quarantine.running(tenant, path, spawn.id)
            case State.BACKING_OFF:
                self.memory.end(tenant, spawn.id)
                self._crashed(spawn, for_good=False)
            case State.FAILED if old is not State.DRAINING:
                self._crashed(spawn, for_good=True)
            case State.DRAINING | State.STOPPED | State.FAILED:
                self.quarantine.gone(tenant, path, spawn.id)
            case State.QUARANTINED:
                pass
        if new in TERMINAL:
            self._ended(spawn, tenant)

    def tick(self) -> None:
        """Measure, and let go whose time has come. About once a second."""
        self.load.sample()
        self.quarantine.tick()
        self._let_go()

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
        """End the quarantine of the path, or of all the tenant's. Returns what was held."""
        ended = self.quarantine.release(tenant, path)
        self._let_go()
        return ended

    def facts(self) -> list[TenantFacts]:
        """All tenants of whom there is something to say, by name."""
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

    def _crashed(self, spawn: Spawn, *, for_good: bool) -> None:
        tenant, path = who(spawn)
        if self.quarantine.crashed(tenant, path, spawn.id, for_good=for_good):
            self._hold(other for other in self._live_spawns() if who(other)[0] == tenant)
        elif not for_good:
            self._hold([spawn])

    def _hold(self, spawns: Iterable[Spawn]) -> None:
        """Keep those of these from their next start who wait for it in vain."""
        for spawn in list(spawns):
            if spawn.state is State.BACKING_OFF and spawn.id not in self._held:
                hold = self.quarantine.hold_of(*who(spawn))
                if hold is not None:
                    self._held[spawn.id] = spawn
                    # Later: other observers have not heard yet of what brought this about.
                    self._tasks.spawn(self._quarantined(spawn, hold.reason), name=f"quarantines {spawn.name}")

    async def _quarantined(self, spawn: Spawn, reason: str) -> None:
        if spawn.state is State.BACKING_OFF:
            await spawn.quarantine(reason)
        else:
            self._held.pop(spawn.id, None)

    def _let_go(self) -> None:
        for spawn in list(self._held.values()):
            # Asked for each: the first may be on probation, and then the others have to wait for how that ends.
            if spawn.state is State.QUARANTINED and self.quarantine.hold_of(*who(spawn)) is None:
                spawn.release()

    def _ended(self, spawn: Spawn, tenant: str) -> None:
        self._held.pop(spawn.id, None)
        self._turns.pop(spawn.id).leave()
        self.memory.end(tenant, spawn.id)
        self._agents[tenant] -= 1
        if not self._agents[tenant]:
            del self._agents[tenant]


class TenancyCollector(Collector):
    """The numbers of a tenancy for Prometheus. No labels of tenants: their number has no bound."""

    def __init__(self, tenancy: Tenancy) -> None:
        self._tenancy = tenancy

    def collect(self) -> Iterator[Metric]:
        """All of them, as of now."""
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


def who(spawn: Spawn) -> tuple[str, str]:
    """The tenant and the path of an agent of a host."""
    fields = spawn.spec.log_fields
    return str(fields["tenant"]), str(fields["path"])
