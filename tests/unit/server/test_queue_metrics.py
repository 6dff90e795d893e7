"""What happens in queues as metrics: by queue and by tenant, with a bounded number of labels."""

import pytest
from prometheus_client import CollectorRegistry

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.activity.observer import Outcome
from meshhost.server import queue_metrics
from meshhost.server.metrics import ServerMetrics
from meshhost.server.queue_metrics import QueueMeter
from meshhost.stores.queues import Delivery, HolderId, Lease, QueueKey
from meshhost.tenant_names import TenantLabels
from meshhost.testing.clock import FakeClock


class Shown:
    """A meter, and its numbers as they are read."""

    def __init__(self, *, tenants: int = 0, queues: int = 50) -> None:
        self.clock = FakeClock()
        labels = TenantLabels(tenants) if tenants else None
        self.meter = QueueMeter(ServerMetrics(queue_labels=queues).queue_label, tenants=labels, clock=self.clock)
        self.registry = CollectorRegistry()
        self.registry.register(self.meter)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def started(self, queue: QueueKey, number: int = 1, *, waited: float | None = 0.0, attempt: int = 1) -> Lease:
        lease = Lease(queue, number, attempt, HolderId("ann"), 0.0)
        self.meter.started(Delivery(lease, "1", {}, attempt, attempt, 0.0, waited=waited))
        return lease


def key(name: str, tenant: str = "acme") -> QueueKey:
    return QueueKey(RoomKey(TenantId(tenant), "lobby"), name)


def test_what_happens_is_counted_by_the_name_of_the_queue_over_all_rooms_and_tenants() -> None:
    shown = Shown()
    shown.meter.sent(key("jobs"), 3)
    shown.meter.sent(key("jobs", "other"), 1)
    for attempt, outcome in enumerate((Outcome.FAILED, Outcome.RETURNED, Outcome.DEAD), start=1):
        shown.meter.settled(shown.started(key("jobs"), attempt=attempt), outcome)
    assert shown("meshhost_queue_name_sent_total", queue="jobs") == 4
    assert shown("meshhost_queue_name_started_total", queue="jobs") == 3
    assert shown("meshhost_queue_name_retries_total", queue="jobs") == 2
    settled = {str(each): shown("meshhost_queue_name_settled_total", queue="jobs", outcome=each) for each in Outcome}
    assert settled == {"done": 0, "failed": 1, "dead": 1, "returned": 1}
    assert shown("meshhost_tenant_queue_sent_total", tenant="acme") is None


async def test_the_time_of_waiting_and_of_work_is_seen() -> None:
    shown = Shown()
    lease = shown.started(key("jobs"), 1, waited=0.3)
    shown.started(key("jobs"), 2, waited=None)
    await shown.clock.advance(4)
    shown.meter.settled(lease, Outcome.DONE)
    shown.meter.settled(lease, Outcome.DONE)  # twice, or started by another server
    wait, work = "meshhost_queue_name_wait_seconds", "meshhost_queue_name_work_seconds"
    assert shown(f"{wait}_count", queue="jobs") == 1
    assert shown(f"{wait}_sum", queue="jobs") == pytest.approx(0.3)
    assert [shown(f"{wait}_bucket", queue="jobs", le=end) for end in ("0.1", "0.5", "+Inf")] == [0, 1, 1]
    assert shown(f"{work}_sum", queue="jobs") == pytest.approx(4)
    assert [shown(f"{work}_bucket", queue="jobs", le=end) for end in ("2.5", "10.0", "7200.0")] == [0, 1, 1]


def test_queues_and_tenants_beyond_the_limit_share_a_label() -> None:
    shown = Shown(tenants=1, queues=2)
    for number in range(5):
        shown.meter.sent(key(f"q{number}", f"t{number}"), 1)
    assert [shown("meshhost_queue_name_sent_total", queue=name) for name in ("q0", "q1", "q2", "other")] == [
        1,
        1,
        None,
        3,
    ]
    assert [shown("meshhost_tenant_queue_sent_total", tenant=name) for name in ("t0", "other")] == [1, 4]
    shown.meter.forget(TenantId("t0"))
    assert shown("meshhost_tenant_queue_sent_total", tenant="t0") == 1


def test_what_was_started_and_never_settled_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_metrics, "_MOST_STARTED", 2)
    shown = Shown()
    leases = [shown.started(key("jobs"), number) for number in range(4)]
    for lease in leases:
        shown.meter.settled(lease, Outcome.DONE)
    assert shown("meshhost_queue_name_work_seconds_count", queue="jobs") == 2
    assert shown("meshhost_queue_name_settled_total", queue="jobs", outcome="done") == 4
