"""What a host shows of its agents' work, and of how many tenants."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.hosting.observe.metrics import HostMetrics
from meshhost.identity.tenant import AgentKey, RoomKey, TenantId
from meshhost.supervision.state import State
from meshhost.tenant_names import OTHER, TenantLabels
from meshhost.usage import report_message, report_tokens, reporting_to


def metrics(labels: int = 2, live: list[Any] | None = None) -> HostMetrics:
    return HostMetrics(lambda: live or [], tenant_labels=labels)


def spawn(tenant: str, state: State = State.RUNNING) -> Any:
    return SimpleNamespace(key=AgentKey(RoomKey(TenantId(tenant), "room"), "/a", "agent"), state=state, restarts=1)


def lines(shown: HostMetrics) -> list[str]:
    return [line for line in shown.render().decode().splitlines() if line[:1] != "#" and "_created" not in line]


def test_messages_and_tokens_are_shown_by_path_and_by_tenant() -> None:
    shown = metrics()
    with reporting_to(shown.usage_sink("/a", "acme")):
        report_message("done", waited=0.02, worked=2.0)
        report_message("dead", worked=7200.0)
        report_tokens("gpt", 10, 3)
    with reporting_to(shown.usage_sink("/b", "acme")):
        report_tokens("gpt", 1, 0)
    assert {
        'meshhost_messages_total{outcome="done",path="/a"} 1.0',
        'meshhost_messages_total{outcome="dead",path="/a"} 1.0',
        'meshhost_messages_total{outcome="failed",path="/a"} 0.0',
        'meshhost_message_wait_seconds_bucket{le="0.01",path="/a"} 0.0',
        'meshhost_message_wait_seconds_bucket{le="0.025",path="/a"} 1.0',
        'meshhost_message_wait_seconds_bucket{le="+Inf",path="/a"} 1.0',
        'meshhost_message_wait_seconds_count{path="/a"} 1.0',
        'meshhost_message_wait_seconds_sum{path="/a"} 0.02',
        'meshhost_message_work_seconds_bucket{le="3600.0",path="/a"} 1.0',
        'meshhost_message_work_seconds_bucket{le="+Inf",path="/a"} 2.0',
        'meshhost_message_work_seconds_sum{path="/a"} 7202.0',
        'meshhost_llm_tokens_total{kind="input",path="/a"} 10.0',
        'meshhost_llm_tokens_total{kind="output",path="/a"} 3.0',
        'meshhost_llm_tokens_total{kind="input",path="/b"} 1.0',
        'meshhost_tenant_messages_total{outcome="done",tenant="acme"} 1.0',
        'meshhost_tenant_llm_tokens_total{kind="input",tenant="acme"} 11.0',
    } <= {line.replace('path="/a",outcome="', 'outcome="') for line in map(_sorted, lines(shown))}


def _sorted(line: str) -> str:
    """The line with its labels by name."""
    name, _, rest = line.partition("{")
    labels, _, value = rest.partition("} ")
    return f"{name}{{{','.join(sorted(labels.split(',')))}}} {value}" if rest else line


def test_a_host_whose_agents_reported_nothing_shows_no_series_of_theirs() -> None:
    assert not [line for line in lines(metrics()) if "message" in line or "tokens" in line or "tenant" in line]


def test_agents_crashes_restarts_and_calls_are_shown_by_tenant() -> None:
    shown = metrics(live=[spawn("acme"), spawn("acme"), spawn("third"), spawn("beta")])
    shown.count_call("/a", 200, "acme")
    shown.count_call("/a", 429, "beta")
    shown.changed(spawn("acme"), State.RUNNING, State.BACKING_OFF)
    shown.changed(spawn("acme"), State.BACKING_OFF, State.STARTING)
    shown.changed(spawn("third"), State.STARTING, State.FAILED)
    assert {
        'meshhost_tenant_calls_total{status="200",tenant="acme"} 1.0',
        'meshhost_tenant_calls_total{status="429",tenant="beta"} 1.0',
        'meshhost_tenant_crashes_total{tenant="acme"} 1.0',
        'meshhost_tenant_crashes_total{tenant="other"} 1.0',
        'meshhost_tenant_restarts_total{tenant="acme"} 1.0',
        'meshhost_tenant_agents{tenant="acme"} 2.0',
        'meshhost_tenant_agents{tenant="beta"} 1.0',
        'meshhost_tenant_agents{tenant="other"} 1.0',
    } <= set(map(_sorted, lines(shown)))


def test_a_call_that_was_not_admitted_is_counted_for_no_tenant() -> None:
    shown = metrics()
    shown.count_call("/a", 401)
    assert not [line for line in lines(shown) if "tenant" in line]
    assert len(shown._labels) == 0


@pytest.mark.parametrize("tenant", ["", OTHER, "x" * 129, "two\nlines", "\ud800"])
def test_names_that_cannot_be_told_or_shown_have_no_label_of_their_own(tenant: str) -> None:
    labels = TenantLabels(2)
    assert labels.of(tenant) == OTHER
    assert len(labels) == 0


def test_without_labels_all_tenants_are_others() -> None:
    assert {TenantLabels(0).of(tenant) for tenant in ("a", "b")} == {OTHER}


@given(limit=st.integers(0, 4), tenants=st.lists(st.text(max_size=3) | st.sampled_from(["a", "b", "c", OTHER])))
def test_whatever_tenants_come_the_first_keep_their_labels_and_the_others_share_one(
    limit: int, tenants: list[str]
) -> None:
    shown = metrics(limit)
    given_out: dict[str, str] = {}
    for tenant in tenants:
        shown.count_call("/a", 200, tenant)
        shown.changed(spawn(tenant), State.RUNNING, State.FAILED)
        with reporting_to(shown.usage_sink("/a", tenant)):
            report_message("done", worked=0.1)
        label = shown._labels.of(tenant)
        assert label in (tenant, OTHER)
        assert given_out.setdefault(tenant, label) == label
    own = {label for label in given_out.values() if label != OTHER}
    assert len(own) <= limit
    text = shown.render().decode()
    # What is kept and shown is bounded by the limit, and loses nothing.
    assert text.count("meshhost_tenant_crashes_total{") == len(set(given_out.values())) <= limit + 1
    assert len(shown._usage._by_tenant) == len(shown._usage._sinks) <= limit + 1
    done = [line for line in text.splitlines() if "tenant_messages_total" in line and '"done"' in line]
    assert sum(float(line.rpartition(" ")[2]) for line in done) == len(tenants)
