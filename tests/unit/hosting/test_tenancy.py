import asyncio
from collections import Counter
from dataclasses import replace
from unittest.mock import AsyncMock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshhost.errors import CallRefusedError
from meshhost.hosting.agents.assignment import CallRequest
from meshhost.hosting.agents.process_memory import MEGABYTE, ProcessMemory
from meshhost.hosting.calls.hosted_agents import HostedAgents
from meshhost.hosting.calls.ledger import LedgerEntry
from meshhost.hosting.calls.route import Route, Routes
from meshhost.hosting.observe.load import LoadLimits, LoadMeter
from meshhost.hosting.tenants.quarantine import EVERY_PATH, QuarantinePolicy
from meshhost.hosting.tenants.quotas import Quotas, TenantQuota
from meshhost.hosting.tenants.tenancy import Tenancy, TenancyCollector
from meshhost.identity.tenant import AgentKey, RoomKey, TenantId
from meshhost.supervision.isolation import TaskChild
from meshhost.supervision.policy import RestartPolicy
from meshhost.supervision.state import State
from meshhost.supervision.supervisor import Supervisor
from meshhost.testing.agents import QuietAgent
from meshhost.testing.clock import FakeClock

POLICY = QuarantinePolicy(failures=2, crashes=3, window_seconds=1000, first_hold=100, healthy_seconds=10)
AT_ONCE = RestartPolicy(max_restarts=50, first_delay=1, max_delay=1, factor=1)


class Host:
    """HostedAgents whose agents are functions, by identity: no room, no socket."""

    def __init__(self, tmp_path, *, max_starts=32, quota=None, ledger=None, quarantine=POLICY):
        self.clock = FakeClock()
        self.routes = Routes()
        self.supervisor = Supervisor(clock=self.clock, random=lambda: 1.0)
        self.load = LoadMeter(
            clock=self.clock,
            live=lambda: self.tenancy.agents,
            max_agents=1000,
            limits=LoadLimits(per_core=1e9),
            cgroup=tmp_path,
            proc=tmp_path,
        )
        self.tenancy = Tenancy(
            clock=self.clock,
            live=lambda: self.supervisor.live,
            load=self.load,
            quotas=Quotas(clock=self.clock, default=quota),
            max_starts=max_starts,
            quarantine=quarantine,
            expected_memory=lambda: 50 * MEGABYTE,
        )
        self.supervisor.on_change.append(self.tenancy.changed)
        self.spawns = HostedAgents(
            self.supervisor,
            routes=self.routes,
            tenancy=self.tenancy,
            children={"task": self.child, "process": self.child},
            max_agents=1000,
            max_processes=100,
            ledger=ledger,
        )
        self.lives = Counter()
        self.living = Counter()
        self.is_broken = set()
        self.let_start = asyncio.Event()
        self.let_start.set()

    def child(self, _, assignment):
        return TaskChild(self.life(assignment.request), "agent")

    def life(self, request):
        key = (request.tenant, request.room_name, request.identity)

        async def run(child):
            self.lives[key] += 1
            self.living[key] += 1
            try:
                await self.let_start.wait()
                if request.tenant in self.is_broken or request.identity in self.is_broken:
                    raise RuntimeError("broken")
                child.started()
                await child.draining.wait()
            finally:
                self.living[key] -= 1

        return run

    async def call(self, tenant="acme", room="room", identity="worker", path="/worker", **route):
        request = CallRequest(TenantId(tenant), room, f"ws://127.0.0.1:1/rooms/{room}", identity, {}, None, "t")
        made = Route(**{"path": path, "cls": QuietAgent, "restart": AT_ONCE} | route)
        return await self.spawns.answer(made, request)

    async def refused(self, **call):
        with pytest.raises(CallRefusedError) as error:
            await self.call(**call)
        return error.value.status, str(error.value), error.value.retry_after

    async def settle(self):
        await self.clock.advance(0)

    async def seconds(self, number):
        """Time with its ticks."""
        for _ in range(number):
            await self.clock.advance(1)
            self.tenancy.tick()
            await self.settle()

    async def close(self):
        self.supervisor.abort_all()
        self.let_start.set()
        for spawn in self.supervisor.live:
            await spawn.wait_state(State.STOPPED, State.FAILED)
        await self.tenancy._tasks.stop()
        assert not +self.living
        assert not self.tenancy._turns
        assert not self.tenancy._agents
        assert not self.tenancy._held
        assert not self.tenancy.memory._accounts
        assert (self.tenancy.queue.starting, self.tenancy.queue.waiting()) == (0, 0)


@pytest.fixture
async def make(tmp_path):
    made = []

    def make(**options):
        made.append(Host(tmp_path, **options))
        return made[-1]

    yield make
    for host in made:
        await host.close()


# Quotas and turns


async def test_a_tenant_over_its_quota_is_refused_and_gets_room_when_an_agent_ends(make):
    host = make(quota=TenantQuota(max_agents=1))
    first = await host.call()
    assert await host.call() is first
    assert (await host.refused(identity="second"))[:2] == (
        429,
        "over the tenant's quota max_agents: 1 agents of this tenant may live here",
    )
    await host.call(tenant="other")
    await host.settle()
    await host.supervisor.stop(first, 5)
    await host.call(identity="second")


async def test_a_tenants_many_starts_delay_its_neighbour_by_its_share_only(make):
    host = make(max_starts=2)
    host.let_start.clear()
    many = [await host.call(tenant="many", identity=f"w{number}") for number in range(20)]
    await host.settle()
    assert sum(host.living.values()) == 1
    few = await host.call(tenant="few")
    assert host.tenancy.is_waiting(many[-1])
    await host.settle()
    assert host.living["few", "room", "worker"] == 1
    assert not host.tenancy.is_waiting(few)
    host.let_start.set()
    for spawn in [*many, few]:
        await spawn.wait_state(State.RUNNING)
    assert set(host.lives.values()) == {1}


async def test_too_many_waiting_are_refused_and_the_limit_is_named(make):
    host = make(max_starts=1, quota=TenantQuota(max_waiting=2))
    host.let_start.clear()
    for number in range(3):
        await host.call(identity=f"w{number}")
    status, text, retry_after = await host.refused(identity="late")
    assert (status, retry_after) == (429, 5.0)
    assert "max_waiting: 2" in text
    await host.call(tenant="other")


@pytest.mark.parametrize("how", ["stop", "abort"])
async def test_a_waiting_start_that_is_dismissed_leaves_the_queue_and_never_begins(make, how):
    host = make(max_starts=1)
    host.let_start.clear()
    await host.call()
    second = await host.call(identity="second")
    if how == "stop":
        await host.settle()
        report = await host.supervisor.stop(second, 5)
        assert report.finished == (second.name,)
    else:
        second.abort()
        await second.wait_state(State.STOPPED)
    assert host.tenancy.queue.waiting() == 0
    assert host.lives["acme", "room", "second"] == 0


async def test_waiting_for_ones_turn_does_not_count_as_starting_slowly(make):
    host = make(max_starts=1)
    host.let_start.clear()
    first = await host.call(start_timeout=600)
    second = await host.call(identity="second", start_timeout=5)
    await host.clock.advance(500)
    assert (first.state, second.state, second.restarts) == (State.STARTING, State.STARTING, 0)
    host.let_start.set()
    await second.wait_state(State.RUNNING)


async def test_an_overloaded_host_starts_nobody_and_joins_still(make):
    host = make()
    first = await host.call()
    host.load.observe_lag(2.0)
    status, text, retry_after = await host.refused(identity="second")
    assert (status, retry_after) == (503, 10.0)
    assert "the event loop is late" in text
    assert await host.call() is first


async def test_a_frozen_tenant_is_refused_until_it_is_thawed(make):
    host = make()
    await host.call()
    await host.tenancy.frozen.freeze("acme")
    assert (await host.refused())[0] == 429
    await host.call(tenant="other")
    [acme, other] = host.tenancy.facts()
    assert (acme.tenant, acme.agents, acme.is_frozen, other.is_frozen) == ("acme", 1, True, False)
    await host.tenancy.frozen.thaw("acme")
    await host.call()


async def test_a_draining_host_gives_the_turn_back(make):
    host = make()
    host.supervisor.abort_all()
    assert (await host.refused())[0] == 503
    assert host.tenancy.queue.starting == 0


# Quarantine


async def test_agents_that_crash_are_held_and_one_at_a_time_is_tried_again(make):
    host = make()
    host.is_broken.add("acme")
    spawns = [await host.call(room=f"r{number}") for number in range(3)]
    healthy = await host.call(tenant="neighbour")
    await host.settle()
    await host.settle()
    assert {spawn.state for spawn in spawns} == {State.QUARANTINED}
    assert spawns[0].reason == "3 crashes within 1000 s"
    status, text, retry_after = await host.refused(room="r0")
    assert (status, text) == (429, "this path is in quarantine: 3 crashes within 1000 s")
    assert 90 < retry_after <= 100
    assert (await host.refused(room="new"))[0] == 429
    await host.call(tenant="neighbour", room="new")
    assert healthy.state is State.RUNNING
    await host.settle()
    before = sum(host.lives.values())
    await host.seconds(101)
    assert sum(host.lives.values()) == before + 1
    assert {spawn.state for spawn in spawns} == {State.QUARANTINED}
    assert 190 < (await host.refused(room="new"))[2] <= 200
    host.is_broken.clear()
    await host.seconds(201)
    assert Counter(spawn.state for spawn in spawns) == {State.RUNNING: 1, State.QUARANTINED: 2}
    await host.seconds(11)
    assert {spawn.state for spawn in spawns} == {State.RUNNING}
    await host.call(room="new")
    assert not host.tenancy.quarantine.holds


async def test_a_call_is_the_probation_when_nobody_is_held(make):
    host = make()
    host.is_broken.add("acme")
    for number in range(2):
        await host.call(room=f"r{number}", restart=RestartPolicy(kind="temporary"))
        await host.settle()
    assert (await host.refused())[0] == 429
    await host.seconds(100)
    host.is_broken.clear()
    probe = await host.call()
    assert (await host.refused(room="other"))[2] == 10
    await probe.wait_state(State.RUNNING)
    await host.seconds(11)
    await host.call(room="other")


async def test_an_agent_on_probation_that_is_stopped_makes_room_for_another(make):
    host = make()
    host.is_broken.add("acme")
    for number in range(2):
        await host.call(room=f"r{number}", restart=RestartPolicy(kind="temporary"))
        await host.settle()
    await host.seconds(100)
    host.is_broken.clear()
    probe = await host.call()
    await probe.wait_state(State.RUNNING)
    await host.supervisor.stop(probe, 5)
    await host.call(room="other")


async def test_an_operator_may_end_the_quarantine(make):
    host = make()
    host.is_broken.add("acme")
    spawns = [await host.call(room=f"r{number}") for number in range(3)]
    await host.settle()
    await host.settle()
    host.is_broken.clear()
    [hold] = host.tenancy.release("acme")
    assert hold.path == "/worker"
    for spawn in spawns:
        await spawn.wait_state(State.RUNNING)
    assert host.tenancy.release("acme") == []


async def test_a_held_agent_can_be_dismissed(make):
    host = make()
    host.is_broken.add("acme")
    spawns = [await host.call(room=f"r{number}") for number in range(3)]
    await host.settle()
    await host.settle()
    await host.supervisor.stop(spawns[0], 5)
    assert spawns[0].state is State.STOPPED
    assert spawns[0].id not in host.tenancy._held


async def test_agents_that_fail_while_they_leave_are_no_reason_to_hold(make):
    host = make()
    for number in range(5):
        host.let_start.clear()
        spawn = await host.call(room=f"r{number}")
        await host.settle()
        host.is_broken.add("acme")
        spawn.begin_drain()
        host.let_start.set()
        await spawn.wait_state(State.FAILED)
        host.is_broken.clear()
    assert not host.tenancy.quarantine.holds


async def test_run_ticks_until_it_is_cancelled(make):
    host = make()
    from meshhost.tasks import TaskOwner

    tasks = TaskOwner("test")
    tasks.spawn(host.tenancy.run(), name="tenancy")
    await host.clock.advance(3)
    assert host.clock.sleepers == 1
    assert await tasks.stop() == []


async def test_the_numbers_are_shown(make):
    host = make(max_starts=1)
    host.let_start.clear()
    await host.call()
    await host.call(room="other")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in TenancyCollector(host.tenancy).collect()
        for sample in metric.samples
    }
    assert samples["meshhost_load",] == samples["meshhost_load_part", "agents"] == 0.002
    assert (samples["meshhost_starts_waiting",], samples["meshhost_starts_running",]) == (1, 1)
    assert samples["meshhost_start_wait_seconds_count",] == 1
    assert "queue=" in repr(host.tenancy)


async def test_a_tenant_whose_agents_crash_on_many_paths_is_held_as_a_whole_and_its_neighbour_is_not(make):
    host = make(quarantine=replace(POLICY, crashes=50, failures=50, tenant_crashes=6))
    host.is_broken.add("acme")
    spawns = [await host.call(room=f"r{number}", path=f"/p{number}") for number in range(3)]
    for _ in range(3):
        await host.clock.advance(1)
    assert {spawn.state for spawn in spawns} == {State.QUARANTINED}
    assert {spawn.reason for spawn in spawns} == {"6 crashes within 1000 s"}
    assert (await host.refused(path="/innocent"))[:2] == (
        429,
        "this tenant is in quarantine: 6 crashes within 1000 s",
    )
    await (await host.call(tenant="other", path="/p0")).wait_state(State.RUNNING)
    [hold] = host.tenancy.quarantine.holds
    assert (hold.tenant, hold.path) == ("acme", EVERY_PATH)


# Memory of agents in processes


def judged(host, **sizes):
    """The pool looked: agents take so many megabytes, by spawn id."""
    return host.tenancy.memory.judge(ProcessMemory(one, size * MEGABYTE) for one, size in sizes.items())


async def in_process(host, **call):
    return await host.call(isolation="process", **call)


async def test_a_burst_of_calls_gets_as_many_processes_as_the_quota_has_memory_for(make):
    host = make(quota=TenantQuota(memory_mb=120))
    first, second = [await in_process(host, identity=f"w{number}") for number in range(2)]
    status, text, _ = await host.refused(identity="late", isolation="process")
    assert (status, "its agents take 100 MB of 120 MB" in text) == (429, True)
    assert await in_process(host, identity="w0") is first
    await host.call(identity="in a task")
    await in_process(host, tenant="other")
    await second.wait_state(State.RUNNING)
    await host.supervisor.stop(second)
    await in_process(host, identity="late")


async def test_a_restart_waits_for_memory_and_has_not_failed(make):
    host = make(quota=TenantQuota(memory_mb=100))
    big, small = await in_process(host, identity="big"), await in_process(host, identity="small")
    await host.settle()
    judged(host, **{big.id: 70, small.id: 10})
    host.is_broken.add("crashes")
    crashes = await host.call(identity="crashes")
    await host.settle()
    host.routes.isolate("/worker")
    await host.seconds(2)
    assert (crashes.state, crashes.restarts) == (State.STARTING, 1)
    assert host.tenancy.waits_for(crashes) == "memory in its tenant's quota"
    assert host.lives["acme", "room", "crashes"] == 1
    host.is_broken.clear()
    await host.seconds(100)
    assert crashes.state is State.STARTING
    judged(host, **{big.id: 30, small.id: 10})
    await crashes.wait_state(State.RUNNING)
    assert host.tenancy.waits_for(crashes) is None
    [facts] = host.tenancy.facts()
    assert facts.memory_bytes == 40 * MEGABYTE


async def test_an_agent_that_waits_for_memory_can_be_dismissed(make):
    host = make(quota=TenantQuota(memory_mb=50), ledger=SlowLedger())
    await in_process(host, identity="first")
    entry = LedgerEntry("e", "/worker", CallRequest(TenantId("acme"), "r", "ws://x/rooms/r", "w", {}, None, "t"))
    assert host.spawns.resume(Route(path="/worker", cls=QuietAgent, isolation="process"), entry)
    await host.settle()
    waiting = next(spawn for spawn in host.supervisor.live if host.tenancy.is_waiting(spawn))
    assert (host.tenancy.queue.waiting(), host.tenancy.queue.starting) == (1, 0)
    await host.supervisor.stop(waiting)
    assert waiting.state is State.STOPPED
    assert host.tenancy.queue.waiting() == 0


async def test_one_that_replaces_another_takes_its_memory(make):
    host = make(quota=TenantQuota(memory_mb=50))
    first = await in_process(host, on_duplicate="replace")
    await first.wait_state(State.RUNNING)
    judged(host, **{first.id: 50})
    second = await in_process(host, on_duplicate="replace")
    assert first.state is State.STOPPED
    await second.wait_state(State.RUNNING)


async def test_how_many_tenants_are_over_is_shown(make):
    host = make(quota=TenantQuota(memory_mb=50))
    spawn = await in_process(host)
    await spawn.wait_state(State.RUNNING)
    assert set(judged(host, **{spawn.id: 51})) == {spawn.id}
    numbers = {metric.name: metric.samples for metric in TenancyCollector(host.tenancy).collect()}
    assert [sample.value for sample in numbers["meshhost_tenants_over_memory"]] == [1]


# Calls that are repeated, reordered, made at once

KEYS = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["r1", "r2"]), st.sampled_from(["x", "y"]))
CALLS = st.lists(st.tuples(KEYS, st.sampled_from(["join", "replace"]), st.integers(0, 3)), min_size=1, max_size=25)


class SlowLedger:
    """Records late and in its own time, as a disk does."""

    def __init__(self):
        self.recorded = []
        self.ended = lambda _: None
        self.resumed = lambda *_: None

    async def record(self, spawn_id, path, request, signature=None):
        await asyncio.sleep(0)
        self.recorded.append(spawn_id)


@settings(max_examples=60, deadline=None)
@given(calls=CALLS, max_starts=st.integers(1, 3), with_ledger=st.booleans())
def test_repeated_and_simultaneous_calls_never_start_a_second_agent(calls, max_starts, with_ledger, tmp_path_factory):
    async def run():
        ledger = SlowLedger() if with_ledger else None
        host = Host(tmp_path_factory.getbasetemp(), max_starts=max_starts, ledger=ledger)
        most, finished = Counter(), asyncio.Event()

        async def watch():
            while not finished.is_set():
                for key, number in host.living.items():
                    most[key] = max(most[key], number)
                await asyncio.sleep(0)

        async def one(key, on_duplicate, pause):
            for _ in range(pause):
                await asyncio.sleep(0)
            tenant, room, identity = key
            spawn = await host.call(tenant=tenant, room=room, identity=identity, on_duplicate=on_duplicate)
            assert not with_ledger or spawn.id in ledger.recorded
            return spawn

        async def work():
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    group.create_task(one(*call))
            await host.settle()
            finished.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(watch())
            group.create_task(work())
        assert all(number <= 1 for number in most.values())
        keys = {key for key, _, _ in calls}
        expected = {AgentKey(RoomKey(TenantId(t), r), "/worker", i): 1 for t, r, i in keys}
        assert Counter(agent.key for agent in host.supervisor.live) == expected
        await host.close()

    asyncio.run(run())


async def test_a_call_that_cannot_be_recorded_leaves_no_agent(make):
    ledger = SlowLedger()
    host = make(ledger=ledger)
    first = await host.call()
    ledger.record = AsyncMock(side_effect=CallRefusedError("cannot record", status=503))
    assert (await host.refused(identity="second"))[0] == 503
    assert (await host.refused())[0] == 503
    await host.settle()
    assert host.supervisor.live == (first,)


async def test_what_the_ledger_says_is_started_once_without_asking_the_quota(make):
    host = make(quota=TenantQuota(max_agents=1), ledger=SlowLedger())
    route = Route(path="/worker", cls=QuietAgent)
    entries = [
        LedgerEntry(f"e{n}", "/worker", CallRequest(TenantId("acme"), room, "ws://x/rooms/r", "w", {}, None, "t"))
        for n, room in enumerate(["r1", "r2", "r1"])
    ]
    assert [host.spawns.resume(route, entry) for entry in entries] == [True, True, False]
    await host.settle()
    assert sorted(host.lives.values()) == [1, 1]


async def test_an_agent_is_not_ended_for_one_that_may_not_start(make):
    host = make(quota=TenantQuota(max_agents=1, starts_per_second=0.5))
    first = await host.call(on_duplicate="replace")
    await first.wait_state(State.RUNNING)
    assert "starts_per_second" in (await host.refused(on_duplicate="replace"))[1]
    assert first.state is State.RUNNING
    await host.clock.advance(2)
    second = await host.call(on_duplicate="replace")
    assert (first.state, second is first) == (State.STOPPED, False)


async def test_an_agent_that_leaves_before_it_is_held_is_left_alone(make):
    host = make()
    host.is_broken.add("acme")
    [first, *_] = [await host.call(room=f"r{number}") for number in range(3)]
    # Told to leave in the moment in which the quarantine begins, before it is carried out.
    host.supervisor.on_change.append(
        lambda *_: host.tenancy._held and first.state is State.BACKING_OFF and first.abort()
    )
    await host.settle()
    await host.settle()
    assert first.state is State.STOPPED
    assert first.id not in host.tenancy._held


async def test_agents_of_another_supervisor_are_none_of_its_business(make):
    host, other = make(), make()
    spawn = await other.call()
    host.tenancy.changed(spawn, State.STARTING, State.FAILED)
    assert host.tenancy.facts() == []
    assert host.spawns.memory_of(spawn) is None
