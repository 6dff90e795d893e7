"""Whether and when an agent is started again."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import SettingsError
from meshhost.supervision.policy import GiveUp, RestartAfter, RestartPolicy, decide, recent

policies = st.builds(
    RestartPolicy,
    kind=st.just("permanent"),
    max_restarts=st.integers(0, 8),
    window_seconds=st.floats(0.1, 1000),
    first_delay=st.floats(0, 10),
    max_delay=st.floats(0, 2000),
    factor=st.floats(1, 10),
)
chances = st.floats(0, 1)


@pytest.mark.parametrize(
    ("kind", "outcome", "again"),
    [
        ("permanent", "crash", True),
        ("permanent", "exit", True),
        ("transient", "crash", True),
        ("transient", "exit", False),
        ("temporary", "crash", False),
        ("temporary", "exit", False),
    ],
)
def test_each_kind_starts_again_what_it_promises(kind: Any, outcome: Any, again: bool) -> None:
    decision = decide(RestartPolicy(kind=kind), (), 0.0, outcome, lambda: 1.0)

    assert isinstance(decision, RestartAfter if again else GiveUp)


def test_an_end_in_order_that_is_enough_is_no_failure() -> None:
    policy = RestartPolicy(kind="temporary")

    assert decide(policy, (), 0.0, "exit", lambda: 1.0) == GiveUp("exit of a temporary agent", failed=False)
    assert decide(policy, (), 0.0, "crash", lambda: 1.0) == GiveUp("crash of a temporary agent", failed=True)


def test_too_many_restarts_are_given_up_with_the_reason() -> None:
    decision = decide(RestartPolicy(max_restarts=2), (1.0, 2.0), 3.0, "exit", lambda: 1.0)

    assert decision == GiveUp("2 restarts within 60 s did not help", failed=True)


def test_restarts_before_the_window_do_not_count_against_the_limit_but_for_the_wait() -> None:
    decision = decide(RestartPolicy(max_restarts=2), (1.0, 2.0), 70.0, "crash", lambda: 1.0)

    assert decision == RestartAfter(2.0)


@given(policies, st.integers(1, 500))
def test_the_bound_of_the_wait_never_falls_and_never_passes_the_cap(policy: RestartPolicy, failures: int) -> None:
    assert policy.longest(failures) <= policy.longest(failures + 1) <= policy.max_delay


@given(policies, st.lists(st.floats(0, 1e6), max_size=100), chances)
def test_a_wait_lies_between_nothing_and_its_bound(policy: RestartPolicy, history: list[float], chance: float) -> None:
    decision = decide(policy, history, 1e7, "crash", lambda: chance)

    if isinstance(decision, RestartAfter):
        assert 0 <= decision.delay <= policy.longest(len(history) + 1) <= policy.max_delay


@given(policies, st.lists(st.tuples(st.floats(0, 500), chances), max_size=60))
def test_there_are_never_more_than_n_restarts_in_t_seconds(
    policy: RestartPolicy, lives: list[tuple[float, float]]
) -> None:
    now, history, restarts = 0.0, (), []
    for ran, chance in lives:
        now += ran
        history = recent(policy, history, ran=ran)
        decision = decide(policy, history, now, "crash", lambda chance=chance: chance)
        if isinstance(decision, GiveUp):
            break
        now += decision.delay
        history = (*history, now)
        restarts.append(now)

    # A run of exactly the window may be a rounding shorter when it is computed from two times.
    rounding = 1e-6
    for last in restarts:
        assert sum(last - policy.window_seconds + rounding < time <= last for time in restarts) <= policy.max_restarts


def test_a_run_of_the_whole_window_forgets_what_was_before() -> None:
    policy = RestartPolicy(window_seconds=60)

    assert recent(policy, (1.0, 2.0), ran=59.9) == (1.0, 2.0)
    assert recent(policy, (1.0, 2.0), ran=60.0) == ()


def test_history_is_bounded_without_loss_for_the_limit() -> None:
    assert len(recent(RestartPolicy(max_restarts=3), range(1000), ran=1)) == 64
    assert len(recent(RestartPolicy(max_restarts=300), range(1000), ran=1)) == 300


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"kind": "sometimes"}, "kind"),
        ({"max_restarts": -1}, "max_restarts"),
        ({"first_delay": float("nan")}, "first_delay"),
        ({"max_delay": -0.1}, "max_delay"),
        ({"window_seconds": 0}, "window_seconds"),
        ({"factor": 0.5}, "factor"),
    ],
)
def test_a_wrong_policy_is_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        RestartPolicy(**wrong)
