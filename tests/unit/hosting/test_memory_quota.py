import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshhost.errors import CallRefusedError
from meshhost.hosting.agents.process_memory import MEGABYTE, ProcessMemory
from meshhost.hosting.tenants.memory_quota import MemoryQuotas
from meshhost.testing.clock import FakeClock


class Sizes:
    """MemoryQuotas with processes whose sizes the test says, in megabytes."""

    def __init__(self, *, expected=50, clock=None, **allowed):
        self.expected = expected
        self.clock = clock or FakeClock()
        self.quotas = MemoryQuotas(clock=self.clock, allowed=allowed.get, expected=lambda: self.expected * MEGABYTE)
        self.granted = []

    def check(self, tenant, **options):
        self.quotas.check(tenant, **options)

    def refused(self, tenant, **options):
        with pytest.raises(CallRefusedError) as error:
            self.quotas.check(tenant, **options)
        assert (error.value.status, error.value.retry_after) == (429, 5.0)
        return str(error.value)

    def begin(self, tenant, *spawn_ids):
        for spawn_id in spawn_ids:
            self.quotas.begin(tenant, spawn_id)

    def run(self, tenant, *spawn_ids):
        self.begin(tenant, *spawn_ids)
        for spawn_id in spawn_ids:
            self.quotas.running(tenant, spawn_id)

    def ask(self, tenant, spawn_id):
        return self.quotas.ask(tenant, spawn_id, lambda: self.granted.append(spawn_id))

    def judge(self, ending=(), **sizes):
        looks = [ProcessMemory(one, round(size * MEGABYTE), is_ending=one in ending) for one, size in sizes.items()]
        return self.quotas.judge(looks)


def warnings(caplog, word):
    return [
        record
        for record in caplog.records
        if f"is {word} its memory quota" in record.msg and record.levelname == "WARNING"
    ]


# Calls


def test_a_burst_of_starts_counts_before_it_is_measured():
    sizes = Sizes(acme=120)
    for number in range(2):
        sizes.check("acme")
        sizes.begin("acme", f"s{number}")
    assert sizes.refused("acme") == (
        "over the tenant's quota memory_mb: its agents take 100 MB of 120 MB, and one more about 50 MB"
    )
    sizes.check("other")


def test_a_tenant_at_its_quota_is_refused_whatever_a_process_takes():
    sizes = Sizes(expected=0, acme=100)
    sizes.run("acme", "a")
    sizes.judge(a=100)
    sizes.refused("acme")
    sizes.judge(a=99)
    sizes.check("acme")


def test_a_quota_less_than_one_process_lets_nobody_start_and_says_why():
    assert Sizes(acme=12.5).refused("acme").endswith("its agents take 0 MB of 12.5 MB, and one more about 50 MB")


def test_a_start_counts_with_what_is_more_and_one_that_runs_with_what_it_takes():
    sizes = Sizes(acme=150)
    sizes.begin("acme", "a")
    sizes.judge(a=80)
    sizes.check("acme")
    sizes.begin("acme", "b")
    sizes.judge(a=80, b=1)
    sizes.refused("acme")
    sizes.quotas.running("acme", "a")
    sizes.quotas.running("acme", "b")
    sizes.refused("acme")
    sizes.judge(a=80, b=1)
    sizes.check("acme")
    assert sizes.quotas.used("acme") == 81 * MEGABYTE


def test_who_leaves_for_the_new_one_does_not_count():
    sizes = Sizes(acme=100)
    sizes.begin("acme", "a", "b")
    sizes.refused("acme")
    sizes.check("acme", leaving={"b"})


def test_an_agent_that_ended_makes_room_and_nothing_is_remembered_of_its_tenant():
    sizes = Sizes(acme=100)
    sizes.begin("acme", "a", "b")
    sizes.quotas.end("acme", "a")
    sizes.check("acme")
    sizes.quotas.end("acme", "b")
    sizes.quotas.end("acme", "b")
    sizes.quotas.running("acme", "b")
    assert repr(sizes.quotas) == "<MemoryQuotas tenants=0 over=0>"
    assert sizes.quotas.used("acme") == 0


def test_a_tenant_without_a_quota_is_measured_and_nothing_else():
    sizes = Sizes()
    sizes.run("free", "a")
    assert sizes.judge(a=10_000_000) == {}
    assert sizes.quotas.used("free") == 10_000_000 * MEGABYTE
    sizes.check("free")
    assert sizes.quotas.over == 0


# Restarts


def test_a_restart_waits_until_there_is_room_and_those_who_wait_come_before_calls():
    sizes = Sizes(acme=101)
    sizes.begin("acme", "a", "b")
    assert not sizes.ask("acme", "c")
    assert not sizes.ask("acme", "d")
    assert sizes.quotas.is_waiting("acme", "c")
    sizes.quotas.end("acme", "a")
    assert sizes.granted == ["c"]
    assert not sizes.quotas.is_waiting("acme", "c")
    sizes.refused("acme")
    sizes.expected = 0
    sizes.check("acme")
    assert sizes.granted == ["c", "d"]
    assert not sizes.quotas.is_waiting("nobody", "c")


def test_an_agent_that_was_admitted_does_not_wait_for_its_first_start_but_for_the_next():
    sizes = Sizes(acme=50)
    sizes.begin("acme", "a")
    assert sizes.ask("acme", "a")
    sizes.quotas.running("acme", "a")
    sizes.quotas.end("acme", "a")
    assert sizes.ask("acme", "a")
    assert not sizes.ask("acme", "b")
    sizes.quotas.end("acme", "b")
    sizes.quotas.end("acme", "a")
    assert sizes.granted == []


def test_a_restart_of_one_that_still_has_its_share_is_counted_once():
    sizes = Sizes(acme=100)
    sizes.run("acme", "a")
    sizes.judge(a=90)
    assert sizes.ask("acme", "a")
    sizes.check("acme")


def test_memory_that_is_given_back_lets_a_restart_go():
    sizes = Sizes(acme=100)
    sizes.run("acme", "a")
    sizes.judge(a=80)
    assert not sizes.ask("acme", "b")
    sizes.judge(a=50)
    assert sizes.granted == ["b"]


def test_who_waits_alone_below_a_quota_of_less_than_one_process_is_forgotten_with_its_end():
    sizes = Sizes(acme=100)
    sizes.run("acme", "a")
    sizes.judge(a=101)
    sizes.expected = 200
    assert not sizes.ask("acme", "b")
    sizes.quotas.end("acme", "a")
    assert sizes.quotas.over == 0
    assert sizes.quotas.is_waiting("acme", "b")
    sizes.quotas.end("acme", "b")
    assert "tenants=0" in repr(sizes.quotas)


# What runs


def test_the_biggest_agent_of_a_tenant_over_its_quota_is_ended_and_no_other(caplog):
    sizes = Sizes(acme=100, other=1000)
    sizes.run("acme", "a", "b", "c", "d")
    sizes.run("other", "huge")
    [(victim, reason)] = sizes.judge(a=20, b=60, c=25, d=10, huge=900).items()
    assert victim == "b"
    assert reason == (
        "the agent's tenant was over its memory quota, not the agent over a limit of its own: the tenant's agents used "
        "115 MB of 100 MB, and this one the most, 60 MB"
    )
    [warning] = warnings(caplog, "over")
    assert (warning.tenant, warning.used_mb, warning.allowed_mb) == ("acme", 115, 100)
    assert warning.biggest == "b (60 MB), c (25 MB), a (20 MB)"
    [ended] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (ended.spawn_id, ended.used_mb, ended.tenant_mb) == ("b", 60, 115)
    assert sizes.quotas.over == 1


def test_of_two_as_big_the_younger_is_ended():
    sizes = Sizes(acme=100)
    sizes.run("acme", "old", "young")
    assert set(sizes.judge(old=60, young=60)) == {"young"}


def test_the_next_one_waits_until_the_memory_of_the_first_is_back_and_it_is_measured_again(caplog):
    sizes = Sizes(acme=100)
    sizes.run("acme", "a", "b", "c")
    assert set(sizes.judge(a=90, b=70, c=50)) == {"a"}
    assert sizes.judge(a=90, b=70, c=50, ending={"a"}) == {}
    assert set(sizes.judge(a=0, b=70, c=50, ending={"a"})) == {"b"}
    sizes.quotas.end("acme", "a")
    sizes.quotas.end("acme", "b")
    assert sizes.judge(c=50) == {}
    assert sizes.quotas.over == 0
    assert len(warnings(caplog, "over")) == 1
    assert set(sizes.judge(c=101)) == {"c"}
    assert len(warnings(caplog, "over")) == 2


def test_one_that_was_ended_for_another_reason_is_waited_for_too():
    sizes = Sizes(acme=100)
    sizes.run("acme", "a", "b")
    assert sizes.judge(a=90, b=80, ending={"a"}) == {}


async def test_one_that_does_not_give_its_memory_back_is_not_waited_for_for_ever():
    sizes = Sizes(acme=100)
    sizes.run("acme", "a", "b", "c")
    assert set(sizes.judge(a=90, b=80, c=70)) == {"a"}
    assert sizes.judge(a=90, b=80, c=70, ending={"a"}) == {}
    await sizes.clock.advance(9)
    assert sizes.judge(a=90, b=80, c=70, ending={"a"}) == {}
    await sizes.clock.advance(1)
    assert set(sizes.judge(a=90, b=80, c=70, ending={"a"})) == {"b"}
    assert sizes.judge(a=90, b=80, c=70, ending={"a", "b"}) == {}
    await sizes.clock.advance(10)
    assert set(sizes.judge(a=90, b=80, c=70, ending={"a", "b"})) == {"c"}
    await sizes.clock.advance(10)
    assert sizes.judge(a=90, b=80, c=70, ending={"a", "b", "c"}) == {}
    await sizes.clock.advance(10)
    assert sizes.judge(a=90, b=80, c=70, ending={"a", "b", "c"}) == {}


def test_near_the_quota_is_warned_of_once_until_it_has_calmed_down(caplog):
    caplog.set_level(logging.INFO)
    sizes = Sizes(acme=100)
    sizes.run("acme", "a")
    for size in (80, 81, 79, 85, 71, 82):
        assert sizes.judge(a=size) == {}
    assert len(warnings(caplog, "near")) == 1
    sizes.judge(a=70)
    sizes.judge(a=80)
    assert len(warnings(caplog, "near")) == 1
    sizes.judge(a=81)
    assert len(warnings(caplog, "near")) == 2
    assert warnings(caplog, "over") == []


def test_at_the_quota_nobody_is_ended():
    sizes = Sizes(acme=100)
    sizes.run("acme", "a")
    assert sizes.judge(a=100, unknown=500) == {}


# Laws

TENANTS = ["a", "b", "c"]


@settings(max_examples=200)
@given(
    quota=st.integers(1, 1000),
    expected=st.integers(1, 200),
    steps=st.lists(
        st.tuples(st.sampled_from(["call", "restart", "run", "end", "look"]), st.integers(0, 9)), max_size=60
    ),
)
def test_what_is_let_start_never_passes_the_quota_when_sizes_are_as_expected(quota, expected, steps):
    sizes = Sizes(expected=expected, acme=quota)
    there, running, made = [], set(), 0
    for what, which in steps:
        match what:
            case "call":
                made += 1
                try:
                    sizes.check("acme")
                except CallRefusedError:
                    continue
                sizes.begin("acme", f"s{made}")
                there.append(f"s{made}")
            case "restart":
                made += 1
                if sizes.ask("acme", f"s{made}"):
                    there.append(f"s{made}")
            case "run" if there:
                spawn_id = there[which % len(there)]
                sizes.quotas.running("acme", spawn_id)
                running.add(spawn_id)
            case "end" if there:
                sizes.quotas.end("acme", there.pop(which % len(there)))
            case _:
                assert sizes.judge(**dict.fromkeys(there, expected)) == {}
        there += sizes.granted
        sizes.granted.clear()
        assert len(there) * expected <= quota
    # No one waits for what is there.
    if (len(there) + 1) * expected <= quota:
        sizes.check("acme")


@given(
    allowed=st.dictionaries(st.sampled_from(TENANTS), st.integers(1, 500)),
    agents=st.lists(st.tuples(st.sampled_from(TENANTS), st.integers(0, 300), st.booleans()), max_size=20),
)
def test_only_the_biggest_agent_of_a_tenant_over_its_quota_is_ever_chosen_and_one_at_a_time(allowed, agents):
    sizes = Sizes(**allowed)
    for number, (tenant, _, _) in enumerate(agents):
        sizes.run(tenant, f"s{number}")
    looks = {f"s{number}": size for number, (_, size, _) in enumerate(agents)}
    ending = {f"s{number}" for number, (_, _, is_ending) in enumerate(agents) if is_ending}
    chosen = [int(spawn_id[1:]) for spawn_id in sizes.judge(ending=ending, **looks)]
    for tenant in TENANTS:
        own = [size for other, size, _ in agents if other == tenant]
        waits = any(size and is_ending for other, size, is_ending in agents if other == tenant)
        is_over = sum(own) > allowed.get(tenant, 10**9)
        taken = [agents[number][1] for number in chosen if agents[number][0] == tenant]
        assert taken == ([max(own)] if is_over and not waits else [])


@given(
    quota=st.integers(1, 300),
    agents=st.lists(st.integers(1, 300), min_size=1, max_size=12),
)
def test_a_tenant_comes_below_its_quota_with_as_few_ended_as_possible(quota, agents):
    sizes = Sizes(acme=quota)
    looks = {f"s{number}": size for number, size in enumerate(agents)}
    sizes.run("acme", *looks)
    ended = 0
    while verdicts := sizes.judge(**looks):
        [victim] = verdicts
        del looks[victim]
        sizes.quotas.end("acme", victim)
        ended += 1
    left = sorted(agents)[: len(agents) - ended]
    assert sum(left) == sum(looks.values()) <= quota
    assert ended == 0 or sum(sorted(agents)[: len(left) + 1]) > quota
    assert sizes.quotas.over == 0
