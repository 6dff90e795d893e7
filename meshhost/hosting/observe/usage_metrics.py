"""What agents report of their work (messages, tokens), as Prometheus metrics by path and by tenant label.

`HostedAgents` starts each agent with a sink from here in its context (`meshhost.usage.reporting_to`); workers and model
adapters report to it, in any thread. Agents in processes report through the process channel, as sums. These are the agents'
own reports, not measurements of the host.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from meshhost.usage import BOUNDS, OUTCOMES, Durations, Outcome, Tally, UsageSink, UsageSums

__all__ = ["UsageMetrics"]

_BOUND_LABELS = [*(str(bound) for bound in BOUNDS), "+Inf"]


class UsageMetrics(Collector):
    """The metrics and the sinks that feed them. `label_of` gives a tenant's label and bounds how many are kept."""

    def __init__(self, label_of: Callable[[str], str]) -> None:
        self._label_of = label_of
        self._by_path: dict[str, Tally] = {}
        self._by_tenant: dict[str, Tally] = {}
        self._sinks: dict[tuple[str, str], UsageSink] = {}

    def sink(self, path: str, tenant: str) -> UsageSink:
        """The sink for an agent of this path and tenant."""
        label = self._label_of(tenant)
        key = path, label
        if key not in self._sinks:
            of_path = self._by_path.setdefault(path, Tally())
            self._sinks[key] = _Both(of_path, self._by_tenant.setdefault(label, Tally()))
        return self._sinks[key]

    def collect(self) -> Iterator[Metric]:
        """The current values. What has not happened yet is shown as 0, so that its first occurrence is seen as a change."""
        paths = _sums(self._by_path)
        yield from _counters("meshhost", "path", paths)
        dropped = CounterMetricFamily(
            "meshhost_spans_dropped", "Spans of traces that agents could not report to the room server", labels=["path"]
        )
        for path, sums in paths:
            dropped.add_metric([path], sums.dropped_spans)
        yield dropped
        yield _histogram(
            "meshhost_message_wait_seconds",
            "From sent until an agent took it for the first time",
            ((path, sums.waits) for path, sums in paths),
        )
        yield _histogram(
            "meshhost_message_work_seconds", "From taken to settled", ((path, sums.works) for path, sums in paths)
        )
        yield from _counters("meshhost_tenant", "tenant", _sums(self._by_tenant))


class _Both:
    """Forwards all reports to two tallies."""

    def __init__(self, path: Tally, tenant: Tally) -> None:
        self._tallies = path, tenant

    def message(self, outcome: Outcome, *, waited: float | None, worked: float) -> None:
        """A message was worked on."""
        for tally in self._tallies:
            tally.message(outcome, waited=waited, worked=worked)

    def tokens(self, model: str, input_tokens: int, output_tokens: int) -> None:
        """A model answered."""
        for tally in self._tallies:
            tally.tokens(model, input_tokens, output_tokens)

    def dropped(self, spans: int) -> None:
        """Spans were not reported."""
        for tally in self._tallies:
            tally.dropped(spans)

    def add(self, sums: UsageSums) -> None:
        """Reports of an agent in a process of its own."""
        for tally in self._tallies:
            tally.add(sums)


def _sums(tallies: dict[str, Tally]) -> list[tuple[str, UsageSums]]:
    return [(name, tally.sums()) for name, tally in tallies.items()]


def _counters(prefix: str, label: str, found: list[tuple[str, UsageSums]]) -> Iterator[Metric]:
    messages = CounterMetricFamily(
        f"{prefix}_messages", "Messages that agents worked on, by what became of them", labels=[label, "outcome"]
    )
    tokens = CounterMetricFamily(
        f"{prefix}_llm_tokens", "Tokens that models took, as agents report them", labels=[label, "kind"]
    )
    for name, sums in found:
        for outcome in OUTCOMES:
            messages.add_metric([name, outcome], sums.messages.get(outcome, 0))
        tokens.add_metric([name, "input"], sums.input_tokens)
        tokens.add_metric([name, "output"], sums.output_tokens)
    yield from (messages, tokens)


def _histogram(name: str, text: str, found: Iterable[tuple[str, Durations]]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["path"])
    for path, durations in found:
        buckets = list(zip(_BOUND_LABELS, map(float, accumulate(durations.counts)), strict=True))
        family.add_metric([path], buckets, durations.total)
    return family
