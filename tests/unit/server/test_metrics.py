"""The metrics of a room server: queues by name, with a bounded number of names."""

from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.server.metrics import ServerMetrics
from meshhost.stores.queues import QueueStats
from meshhost.tenant_names import TenantLabels

ROOM = RoomKey(TenantId("acme"), "room")


def stats(name: str, *, ready: int = 0, dead: int = 0, age: float | None = None) -> QueueStats:
    return QueueStats(name=name, ready=ready, leased=0, delayed=0, dead=dead, oldest_age=age)


def shown(metrics: ServerMetrics, *queues: QueueStats) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(
        metrics.render([], [(ROOM, queue) for queue in queues], stats("")).decode()
    )
    return {
        tuple(sample.labels.values()): sample.value
        for family in families
        if family.name.startswith(("meshhost_queue_name_messages", "meshhost_queue_name_oldest"))
        for sample in family.samples
        if sample.value
    }


def test_queues_are_counted_by_name_over_all_rooms() -> None:
    rooms = (stats("jobs", ready=2, age=3.0), stats("jobs", ready=1, dead=4, age=9.0), stats("mail", ready=5, age=1.0))

    assert shown(ServerMetrics(), *rooms) == {
        ("jobs", "ready"): 3,
        ("jobs", "dead"): 4,
        ("mail", "ready"): 5,
        ("jobs",): 9.0,
        ("mail",): 1.0,
    }


def test_names_beyond_the_limit_share_a_label_and_the_fullest_come_first() -> None:
    metrics = ServerMetrics(queue_labels=2)
    queues = [stats(f"q{number}", ready=number, age=float(number)) for number in range(1, 5)]

    expected = {
        ("q4", "ready"): 4,
        ("q3", "ready"): 3,
        ("other", "ready"): 3,
        ("q4",): 4.0,
        ("q3",): 3.0,
        ("other",): 2.0,
    }
    assert shown(metrics, *queues) == expected
    assert shown(metrics, stats("late", ready=9, age=1.0)) == {("other", "ready"): 9, ("other",): 1.0}


def test_a_name_that_cannot_be_shown_has_no_label() -> None:
    for name in ("a\nb", "x" * 129):
        assert shown(ServerMetrics(), stats(name, ready=1)) == {("other", "ready"): 1}


def test_blocked_messages_and_paused_queues_are_counted() -> None:
    metrics = ServerMetrics(queue_labels=1)
    blocked = replace(stats("jobs", ready=1), blocked=3, is_paused=True)
    queues = [(ROOM, queue) for queue in (blocked, blocked, replace(blocked, name="mail"))]
    text = metrics.render([], queues, blocked).decode()

    assert 'meshhost_queue_messages{state="blocked"} 3.0' in text
    assert 'meshhost_queue_name_messages{queue="jobs",state="blocked"} 6.0' in text
    assert 'meshhost_queue_name_paused{queue="jobs"} 2.0' in text
    assert 'meshhost_queue_name_paused{queue="other"} 1.0' in text

    resumed = metrics.render([], [(ROOM, stats("jobs", ready=1))], stats("")).decode()
    assert 'meshhost_queue_name_paused{queue="jobs"} 0.0' in resumed


def test_queues_are_counted_by_tenant_where_the_operator_chose_so() -> None:
    queues = [(ROOM, stats("jobs", ready=2, age=3.0)), (ROOM, stats("mail", ready=1, age=9.0))]
    queues += [(RoomKey(TenantId(name), "room"), stats("jobs", dead=1)) for name in ("rival", "third")]
    assert b"tenant" not in ServerMetrics().render([], queues, stats(""))

    text = ServerMetrics(tenants=TenantLabels(2)).render([], queues, stats("")).decode()

    assert 'meshhost_tenant_queue_messages{state="ready",tenant="acme"} 3.0' in text
    assert 'meshhost_tenant_queue_messages{state="dead",tenant="rival"} 1.0' in text
    assert 'meshhost_tenant_queue_messages{state="dead",tenant="other"} 1.0' in text
    assert 'meshhost_tenant_queue_oldest_age_seconds{tenant="acme"} 9.0' in text
