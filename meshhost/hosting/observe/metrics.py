"""The metrics of a host, in Prometheus form.

`HostMetrics.changed` is an observer of the supervisor; `http.routes` counts the calls, the assembly the drains, the process
pool its starts, the watchdog the lag. `render` serves /metrics and computes the gauges of live agents on each request.

Labels must have a bounded number of values: the host's own paths and states, and the names of a limited number of tenants
(`tenant_labels`). Everything runs in the event loop, except the usage sinks, which agents may call from any thread.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

from meshhost.hosting.agents.assignment import HostedAgent
from meshhost.hosting.observe.usage_metrics import UsageMetrics
from meshhost.supervision.state import State
from meshhost.tenant_names import TenantLabel, TenantLabels
from meshhost.usage import UsageSink

__all__ = ["HostMetrics"]

_LAGS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class HostMetrics:
    """The metrics of one host, in a registry of their own.

    `live` returns the live agents. At most `tenant_labels` tenants have labels of their own, which show their id or name.
    """

    def __init__(
        self,
        live: Callable[[], Iterable[HostedAgent]],
        *,
        tenant_labels: int = 0,
        tenant_label: TenantLabel = "id",
    ) -> None:
        registry = self._registry = CollectorRegistry()
        self._live = live
        self._labels = TenantLabels(tenant_labels, label=tenant_label)
        self._usage = UsageMetrics(self._labels.of)
        registry.register(self._usage)
        self._calls = Counter(
            "meshhost_calls", "Calls by how they were answered", ["path", "status"], registry=registry
        )
        self._starts = Counter("meshhost_agent_starts", "Agents that came to run", ["path"], registry=registry)
        self._restarts = Counter("meshhost_agent_restarts", "Agents started again", ["path"], registry=registry)
        self._crashes = Counter("meshhost_agent_crashes", "Crashes of agents", ["path"], registry=registry)
        self._ends = Counter("meshhost_agent_ends", "Agents that ended", ["path", "state"], registry=registry)
        self._agents = Gauge("meshhost_agents", "Agents by state", ["path", "state"], registry=registry)
        self._start_seconds = Histogram(
            "meshhost_agent_start_seconds", "From the first call to running", ["path"], registry=registry
        )
        self._drain_seconds = Histogram("meshhost_drain_seconds", "How long a drain took", registry=registry)
        self._drain_aborted = Counter(
            "meshhost_drain_aborted_agents", "Agents that did not leave before the drain's deadline", registry=registry
        )
        self._ready = Gauge("meshhost_ready", "1 while the host takes calls", registry=registry)

        self._lag = Histogram(
            "meshhost_loop_lag_seconds", "How late the event loop was", buckets=_LAGS, registry=registry
        )
        self._last_lag = Gauge("meshhost_loop_lag_last_seconds", "How late it was when last asked", registry=registry)
        self._blocks = Counter("meshhost_loop_blocks", "Blocks of the event loop", ["path"], registry=registry)
        self._process_starts = Histogram(
            "meshhost_process_start_seconds",
            "How long an agent waited for its process; warm ones were ready",
            ["kind"],
            registry=registry,
        )
        self._tenant_calls = Counter(
            "meshhost_tenant_calls", "Admitted calls by how they were answered", ["tenant", "status"], registry=registry
        )
        self._tenant_restarts = Counter(
            "meshhost_tenant_restarts", "Agents started again", ["tenant"], registry=registry
        )
        self._tenant_crashes = Counter("meshhost_tenant_crashes", "Crashes of agents", ["tenant"], registry=registry)
        self._tenant_agents = Gauge("meshhost_tenant_agents", "Agents that live", ["tenant"], registry=registry)

    def register(self, collector: Collector) -> None:
        """Show the metrics of this collector too."""
        self._registry.register(collector)

    def show_ready(self, is_ready: Callable[[], bool]) -> None:
        """Show whether the host takes calls, as of each request."""
        self._ready.set_function(lambda: float(is_ready()))

    def observe_lag(self, seconds: float) -> None:
        """The event loop was late by this much."""
        self._lag.observe(seconds)
        self._last_lag.set(seconds)

    def count_block(self, path: str) -> None:
        """An agent of this path blocked the event loop ("" when it is not known which)."""
        self._blocks.labels(path).inc()

    def observe_process_start(self, warm: bool, seconds: float) -> None:
        """An agent got its process."""
        self._process_starts.labels("warm" if warm else "cold").observe(seconds)

    def count_call(self, path: str, status: int, tenant: str | None = None) -> None:
        """A call was answered. `tenant` only when the call was admitted: before that the tenant is only a claim."""
        self._calls.labels(path, str(status)).inc()
        if tenant is not None:
            self._tenant_calls.labels(self._labels.of(tenant), str(status)).inc()

    def usage_sink(self, path: str, tenant: str) -> UsageSink:
        """The sink for usage reports of an agent of this path and tenant."""
        return self._usage.sink(path, tenant)

    def observe_drain(self, seconds: float, aborted: int = 0) -> None:
        """A drain ended, and `aborted` agents had to be aborted."""
        self._drain_seconds.observe(seconds)
        self._drain_aborted.inc(aborted)

    def changed(self, agent: HostedAgent, old: State, new: State) -> None:
        """An agent changed its state; an observer of the supervisor."""
        path, tenant = agent.key.path, self._labels.of(agent.key.tenant)
        if new is State.RUNNING:
            self._starts.labels(path).inc()
            if agent.restarts == 0:
                self._start_seconds.labels(path).observe(max(agent.state_since - agent.started_at, 0.0))
        if old is State.BACKING_OFF and new is State.STARTING:
            self._restarts.labels(path).inc()
            self._tenant_restarts.labels(tenant).inc()
        if new in (State.BACKING_OFF, State.FAILED):
            self._crashes.labels(path).inc()
            self._tenant_crashes.labels(tenant).inc()
        if new in (State.STOPPED, State.FAILED):
            self._ends.labels(path, new.value).inc()

    def render(self) -> bytes:
        """All metrics as text."""
        self._agents.clear()
        self._tenant_agents.clear()
        for agent in self._live():
            self._agents.labels(agent.key.path, agent.state.value).inc()
            self._tenant_agents.labels(self._labels.of(agent.key.tenant)).inc()
        return generate_latest(self._registry)
