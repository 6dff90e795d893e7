"""What happens in queues, as metrics: sent, started and settled, how long messages waited and were worked on.

`QueueService` reports every message of this process to `QueueMeter` (`meshhost.queues.activity.observer`), in rooms that are
open and in those that are not. It adds up by the queue's name and, where the operator chose so, by tenant. The labels are
those of the other metrics of queues and tenants: the first names have one of their own, and all that follow share `other`.
Adding up costs a few numbers per message; Prometheus' families are made when the metrics are read.

When a message was started is kept until it is settled here, for the newest `_MOST_STARTED` messages: no time of work is counted
of one whose lease expires, or that another server settles.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from meshhost.clock import Clock, SystemClock
from meshhost.identity.tenant import TenantId
from meshhost.queues.activity.observer import Outcome
from meshhost.stores.queues import Delivery, Lease, QueueKey
from meshhost.tenant_names import TenantLabels

__all__ = ["QueueMeter"]

_BUCKETS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 1800.0, 7200.0)
_MOST_STARTED = 50_000


@dataclass(slots=True)
class _Times:
    """A histogram: how many fell into each bucket, with one more for all that were longer."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS) + 1))
    sum: float = 0.0

    def add(self, seconds: float) -> None:
        self.buckets[bisect_left(_BUCKETS, seconds)] += 1
        self.sum += seconds

    def cumulated(self) -> list[tuple[str, float]]:
        total, found = 0, []
        for end, count in zip((*map(str, _BUCKETS), "+Inf"), self.buckets, strict=True):
            total += count
            found.append((end, float(total)))
        return found


@dataclass(slots=True)
class _Numbers:
    """Of one label."""

    sent: int = 0
    started: int = 0
    retries: int = 0
    settled: Counter[Outcome] = field(default_factory=Counter)
    waited: _Times = field(default_factory=_Times)
    worked: _Times = field(default_factory=_Times)


class QueueMeter(Collector):
    """Counts for the metrics of a room server. `label_of` gives a queue's name its label; without `tenants` none is named."""

    def __init__(
        self, label_of: Callable[[str], str], *, tenants: TenantLabels | None = None, clock: Clock | None = None
    ) -> None:
        self._label_of = label_of
        self._tenant_labels = tenants
        self._clock = clock or SystemClock()
        self._queues: dict[str, _Numbers] = {}
        self._tenants: dict[str, _Numbers] = {}
        self._started: dict[tuple[int, int], float] = {}

    def sent(self, queue: QueueKey, count: int) -> None:
        """See QueueObserver."""
        for numbers in self._numbers_of(queue):
            numbers.sent += count

    def started(self, delivery: Delivery) -> None:
        """See QueueObserver."""
        lease, waited = delivery.lease, delivery.waited
        self._started[lease.message_id, lease.token] = self._clock.monotonic()
        if len(self._started) > _MOST_STARTED:
            del self._started[next(iter(self._started))]
        for numbers in self._numbers_of(lease.queue):
            numbers.started += 1
            numbers.retries += delivery.attempt > 1
            if waited is not None:
                numbers.waited.add(waited)

    def settled(self, lease: Lease, outcome: Outcome) -> None:
        """See QueueObserver."""
        began = self._started.pop((lease.message_id, lease.token), None)
        for numbers in self._numbers_of(lease.queue):
            numbers.settled[outcome] += 1
            if began is not None:
                numbers.worked.add(self._clock.monotonic() - began)

    def forget(self, tenant: TenantId, room: str | None = None) -> None:
        """See QueueObserver. Counters do not go back."""

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        yield from _families("meshhost_queue_name", "by the queue's name", "queue", self._queues)
        if self._tenant_labels is not None:
            yield from _families("meshhost_tenant_queue", "of tenants", "tenant", self._tenants)

    def _numbers_of(self, queue: QueueKey) -> list[_Numbers]:
        label = self._label_of(queue.name)
        found = [self._queues.get(label) or self._queues.setdefault(label, _Numbers())]
        if self._tenant_labels is not None:
            tenant = self._tenant_labels.of(queue.room.tenant)
            found.append(self._tenants.get(tenant) or self._tenants.setdefault(tenant, _Numbers()))
        return found


def _families(prefix: str, whose: str, label: str, found: dict[str, _Numbers]) -> Iterator[Metric]:
    texts = {
        "sent": f"Messages sent, {whose}",
        "started": f"Messages handed over to receivers, {whose}",
        "retries": f"Of these, those that had failed before, {whose}",
    }
    for name, text in texts.items():
        family = CounterMetricFamily(f"{prefix}_{name}", text, labels=[label])
        for key, numbers in found.items():
            family.add_metric([key], getattr(numbers, name))
        yield family
    settled = CounterMetricFamily(
        f"{prefix}_settled", f"Deliveries settled by their holders, {whose}", labels=[label, "outcome"]
    )
    for key, numbers in found.items():
        for outcome in Outcome:
            settled.add_metric([key, outcome.value], numbers.settled[outcome])
    yield settled
    times = {
        "waited": ("wait", f"Time from when a message could be handed out until it was, {whose}"),
        "worked": ("work", f"Time from when a message was handed over until it was settled, {whose}"),
    }
    for name, (short, text) in times.items():
        histogram = HistogramMetricFamily(f"{prefix}_{short}_seconds", text, labels=[label])
        for key, numbers in found.items():
            seconds: _Times = getattr(numbers, name)
            histogram.add_metric([key], buckets=seconds.cumulated(), sum_value=seconds.sum)
        yield histogram
