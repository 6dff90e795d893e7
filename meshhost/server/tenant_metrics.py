"""What tenants use of their quotas, as metrics: only where the operator chose so, because `/metrics` is open to everybody.

`tenant_labels` of the server's configuration is the number of tenants with a label of their own; with 0, the default, this
collector is not registered. All other tenants are added up under the label `other`, so the number of series is bounded. Values
are those known at the moment of a scrape: nothing is counted for it.
"""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from meshhost.quotas.counts import TenantCounts
from meshhost.tenant_names import TenantLabels

__all__ = ["TenantUseCollector"]


class TenantUseCollector(Collector):
    """Shows what is known of `counts`."""

    def __init__(self, counts: TenantCounts, labels: TenantLabels) -> None:
        self._counts = counts
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        used: Counter[tuple[str, str]] = Counter()
        for tenant, resources in sorted(self._counts.known().items()):
            for resource, number in resources.items():
                used[self._labels.of(tenant), resource.value] += number
        gauge = GaugeMetricFamily(
            "meshhost_tenant_used", "What tenants use of their quotas", labels=["tenant", "resource"]
        )
        for labels, number in used.items():
            gauge.add_metric(list(labels), number)
        yield gauge
