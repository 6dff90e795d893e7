"""The metrics of the process pool: how many processes there are and how much memory they use.

A collector that `HostMetrics` registers; it reads the pool when /metrics is requested and keeps nothing.
"""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from meshhost.hosting.processes.pool import ProcessPool

__all__ = ["ProcessMetrics"]


class ProcessMetrics(Collector):
    """Number and resident memory of a pool's processes, by use: `idle`, `agent`, `template`. Uses with none are left out."""

    def __init__(self, pool: ProcessPool) -> None:
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        """The current values."""
        count = GaugeMetricFamily("meshhost_processes", "Processes by use", labels=["use"])
        memory = GaugeMetricFamily(
            "meshhost_process_memory_bytes", "Resident memory of processes by use", labels=["use"]
        )
        template = self._pool.template
        uses = {
            "idle": self._pool.idle,
            "agent": self._pool.running,
            "template": () if template is None else (template,),
        }
        for use, processes in uses.items():
            if processes:
                count.add_metric([use], len(processes))
                memory.add_metric([use], sum(process.memory() for process in processes))
        yield count
        yield memory
