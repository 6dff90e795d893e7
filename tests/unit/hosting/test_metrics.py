from types import SimpleNamespace

import pytest

from meshhost.hosting.observe.metrics import HostMetrics
from meshhost.identity.tenant import AgentKey, RoomKey, TenantId
from meshhost.supervision.state import State

ROOM = RoomKey(TenantId("acme"), "room")


def spawn(state=State.RUNNING, *, path="/a", restarts=0, took=2.0):
    return SimpleNamespace(
        key=AgentKey(ROOM, path, "agent"), state=state, restarts=restarts, started_at=100.0, state_since=100.0 + took
    )


@pytest.fixture
def live():
    return []


@pytest.fixture
def metrics(live):
    return HostMetrics(lambda: live)


def lines(metrics):
    return [
        line for line in metrics.render().decode().splitlines() if not line.startswith("#") and "_created" not in line
    ]


def test_a_first_start_is_timed_and_a_restart_counted(metrics):
    metrics.changed(spawn(), State.STARTING, State.RUNNING)
    metrics.changed(spawn(), State.BACKING_OFF, State.STARTING)
    metrics.changed(spawn(restarts=1), State.STARTING, State.RUNNING)
    metrics.changed(spawn(took=-5.0, path="/b"), State.STARTING, State.RUNNING)
    shown = lines(metrics)
    assert 'meshhost_agent_starts_total{path="/a"} 2.0' in shown
    assert 'meshhost_agent_restarts_total{path="/a"} 1.0' in shown
    assert 'meshhost_agent_start_seconds_count{path="/a"} 1.0' in shown
    assert 'meshhost_agent_start_seconds_sum{path="/a"} 2.0' in shown
    assert 'meshhost_agent_start_seconds_sum{path="/b"} 0.0' in shown  # the wall clock was set back


def test_crashes_and_ends_are_counted(metrics):
    metrics.changed(spawn(), State.RUNNING, State.BACKING_OFF)
    metrics.changed(spawn(), State.STARTING, State.FAILED)
    metrics.changed(spawn(), State.RUNNING, State.DRAINING)
    metrics.changed(spawn(), State.DRAINING, State.STOPPED)
    shown = lines(metrics)
    assert 'meshhost_agent_crashes_total{path="/a"} 2.0' in shown
    assert 'meshhost_agent_ends_total{path="/a",state="failed"} 1.0' in shown
    assert 'meshhost_agent_ends_total{path="/a",state="stopped"} 1.0' in shown


def test_live_agents_are_counted_when_asked_for(metrics, live):
    live += [spawn(), spawn(), spawn(State.STARTING)]
    assert {'meshhost_agents{path="/a",state="running"} 2.0', 'meshhost_agents{path="/a",state="starting"} 1.0'} <= set(
        lines(metrics)
    )
    live.clear()
    assert not [line for line in lines(metrics) if line.startswith("meshhost_agents{")]


def test_calls_and_drains_are_counted(metrics):
    metrics.count_call("/a", 200)
    metrics.observe_drain(1.5)
    shown = lines(metrics)
    assert 'meshhost_calls_total{path="/a",status="200"} 1.0' in shown
    assert "meshhost_drain_seconds_sum 1.5" in shown


def test_each_host_has_numbers_of_its_own(metrics):
    metrics.count_call("/a", 200)
    assert not [line for line in lines(HostMetrics(list)) if "calls" in line]


def test_whether_the_host_takes_calls_is_shown_as_of_now(metrics):
    ready = [False]
    metrics.show_ready(lambda: ready[0])
    assert "meshhost_ready 0.0" in lines(metrics)
    ready[0] = True
    assert "meshhost_ready 1.0" in lines(metrics)


def test_agents_that_a_drain_aborted_are_counted(metrics):
    metrics.observe_drain(1.0)
    metrics.observe_drain(30.0, aborted=2)
    assert {"meshhost_drain_seconds_count 2.0", "meshhost_drain_aborted_agents_total 2.0"} <= set(lines(metrics))
