"""The reference of metrics, from the registries of a running room server and a running service host."""

from collections.abc import Mapping

from docs.generate.markdown import code, page, table
from docs.generate.served import Server

__all__ = ["pages"]

_INTRO = """
Room server and service host answer `GET /metrics` in Prometheus text format. A histogram has the series `_bucket`, `_sum`
and `_count`. No metric of the room server has a label with a room or a participant. With `tenant_labels` in the
[room server's file](server-file.md#server) it has one more gauge, with the labels `tenant` and `resource`: what tenants use of
their quotas. It also has, as `meshhost_tenant_queue_…` with the label `tenant`, what `meshhost_queue_name_…` has by the name of
queues: sent, started, retries, settled, and the times of waiting and work.

At a host, the first `MESHHOST_TENANT_LABELS` tenants have a label `tenant` of their own, all others share `other`; see
[Operate a host](../how-to/operate.md#metrics). `config/prometheus/alerts.yaml` has alerts, and
`config/grafana/meshhost-host.json` a dashboard.
"""


def pages(served: Mapping[str, Server]) -> dict[str, str]:
    """The page."""
    parts = [_INTRO]
    for name, title in (("service-host", "Service host"), ("room-server", "Room server")):
        rows = [
            (code(metric.name), metric.kind, ", ".join(map(code, metric.labels)), metric.text)
            for metric in served[name].metrics
        ]
        parts += [f"## {title}", table(("Metric", "Type", "Labels", "What it counts"), rows)]
    return {"reference/metrics.md": page("Metrics", *parts)}
