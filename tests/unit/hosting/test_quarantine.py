import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import CallRefusedError, SettingsError
from meshhost.hosting.tenants.quarantine import EVERY_PATH, Quarantine, QuarantinePolicy
from meshhost.testing.clock import FakeClock

POLICY = QuarantinePolicy(
    failures=2,
    crashes=4,
    tenant_failures=4,
    tenant_crashes=8,
    window_seconds=60,
    first_hold=10,
    max_hold=60,
    healthy_seconds=5,
)


@pytest.fixture
def clock():
    return FakeClock()


def is_held(quarantine, tenant, path):
    """Whether a hold covers the path, also while one agent may start on probation."""
    return any(hold.tenant == tenant and hold.path in (path, EVERY_PATH) for hold in quarantine.holds)


@pytest.fixture
def quarantine(clock):
    return Quarantine(POLICY, clock=clock)


def fail(quarantine, number, tenant="acme", path="/worker"):
    return [quarantine.crashed(tenant, path, f"s{i}", for_good=True) for i in range(number)]


def crash(quarantine, number, tenant="acme", path="/worker"):
    return [quarantine.crashed(tenant, path, f"s{i}", for_good=False) for i in range(number)]


def refused(quarantine, tenant="acme", path="/worker"):
    with pytest.raises(CallRefusedError) as error:
        quarantine.check(tenant, path)
    assert error.value.status == 429
    return str(error.value), error.value.retry_after


@pytest.mark.parametrize(
    "wrong",
    [{"failures": 0}, {"window_seconds": 0}, {"max_hold": float("inf")}, {"factor": 0.5}, {"healthy_seconds": -1}],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(SettingsError):
        QuarantinePolicy(**wrong)


def test_a_path_whose_agents_fail_is_held_and_its_neighbours_are_not(quarantine):
    assert fail(quarantine, 2) == [False, True]
    assert refused(quarantine) == ("this path is in quarantine: 2 agents failed for good within 60 s", 10)
    quarantine.check("acme", "/other")
    quarantine.check("neighbour", "/worker")
    assert [(hold.tenant, hold.path) for hold in quarantine.holds] == [("acme", "/worker")]
    assert (is_held(quarantine, "acme", "/worker"), is_held(quarantine, "acme", "/other")) == (True, False)


def test_crashes_hold_a_path_too(quarantine):
    assert crash(quarantine, 4) == [False, False, False, True]
    assert "4 crashes within 60 s" in refused(quarantine)[0]


async def test_crashes_of_long_ago_do_not_count(quarantine, clock):
    for _ in range(10):
        fail(quarantine, 1)
        await clock.advance(60)
    quarantine.check("acme", "/worker")


def test_a_tenant_that_fails_on_many_paths_is_held_as_a_whole(quarantine):
    for number in range(4):
        fail(quarantine, 1, path=f"/p{number}")
    assert refused(quarantine, path="/innocent")[0].startswith("this tenant is in quarantine: 4 agents failed")
    quarantine.check("neighbour", "/p0")


async def test_after_the_hold_one_may_start_on_probation_and_pass_it(quarantine, clock):
    fail(quarantine, 2)
    await clock.advance(10)
    quarantine.check("acme", "/worker")
    quarantine.starting("acme", "/worker", "probe")
    assert refused(quarantine)[1] == 5
    quarantine.starting("acme", "/worker", "somebody else")
    quarantine.running("acme", "/worker", "somebody else")
    await clock.advance(5)
    assert quarantine.tick() == []
    quarantine.running("acme", "/worker", "probe")
    await clock.advance(3)
    assert refused(quarantine)[1] == 2
    await clock.advance(2)
    [ended] = quarantine.tick()
    assert ended.path == "/worker"
    quarantine.check("acme", "/worker")
    assert not quarantine.holds
    assert fail(quarantine, 1) == [False]


async def test_each_probation_that_fails_makes_the_hold_longer_up_to_a_bound(quarantine, clock):
    fail(quarantine, 2)
    waits = []
    for _ in range(5):
        waits.append(refused(quarantine)[1])
        await clock.advance(waits[-1])
        quarantine.starting("acme", "/worker", "probe")
        quarantine.running("acme", "/worker", "probe")
        assert quarantine.crashed("acme", "/worker", "probe", for_good=False)
    assert waits == [10, 20, 40, 60, 60]


async def test_a_probation_that_is_called_off_makes_room_for_another(quarantine, clock):
    fail(quarantine, 2)
    await clock.advance(10)
    quarantine.starting("acme", "/worker", "probe")
    quarantine.gone("acme", "/worker", "other")
    refused(quarantine)
    quarantine.gone("acme", "/worker", "probe")
    quarantine.check("acme", "/worker")


def test_an_operator_releases_a_path_or_all_of_a_tenant(quarantine):
    fail(quarantine, 2)
    fail(quarantine, 2, path="/other")
    assert len(quarantine.holds) == 3
    assert quarantine.release("neighbour") == []
    assert [hold.path for hold in quarantine.release("acme", "/other")] == ["/other"]
    assert refused(quarantine)[1] == 10
    assert {hold.path for hold in quarantine.release("acme")} == {"/worker", EVERY_PATH}
    quarantine.check("acme", "/worker")


def test_what_is_remembered_is_bounded(clock):
    quarantine = Quarantine(POLICY, clock=clock, max_remembered=10)
    for number in range(100):
        fail(quarantine, 1, tenant=f"t{number}")
    for _ in range(1000):
        crash(quarantine, 1)
    assert len(quarantine._histories) == 10
    assert all(len(history.crashes) <= 8 for history in quarantine._histories.values())


@given(holds=st.integers(1, 10_000))
def test_holds_never_get_shorter_nor_pass_the_bound(holds):
    assert POLICY.hold_seconds(holds) <= POLICY.hold_seconds(holds + 1) <= POLICY.max_hold


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["crash", "fail", "start", "run", "gone", "wait", "tick", "release"]),
            st.sampled_from(["a", "b"]),
            st.sampled_from(["/x", "/y"]),
            st.sampled_from(["1", "2", "3"]),
        ),
        max_size=80,
    )
)
def test_a_tenant_that_never_crashes_is_never_held_and_one_on_probation_at_a_time(steps):
    clock = FakeClock()
    quarantine = Quarantine(POLICY, clock=clock)
    for what, tenant, path, spawn in steps:
        match what:
            case "crash" | "fail":
                quarantine.crashed(tenant, path, spawn, for_good=what == "fail")
            case "start":
                was_free = quarantine.hold_of(tenant, path) is None
                quarantine.starting(tenant, path, spawn)
                if was_free and is_held(quarantine, tenant, path):
                    assert quarantine.hold_of(tenant, path).probe == spawn
            case "run":
                quarantine.running(tenant, path, spawn)
            case "gone":
                quarantine.gone(tenant, path, spawn)
            case "wait":
                clock.skip(7)
            case "tick":
                quarantine.tick()
            case "release":
                quarantine.release(tenant, path)
        quarantine.check("innocent", path)
        assert all(quarantine.seconds_left(hold) <= POLICY.max_hold for hold in quarantine.holds)
