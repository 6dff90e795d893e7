"""The lifecycle table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import LifecycleError
from meshhost.supervision import agent, deadlines, isolation, policy, state, supervisor
from meshhost.supervision.state import TERMINAL, TRANSITIONS, Signal, State, next_state

signals = st.lists(st.sampled_from(Signal), max_size=30)


def after(sequence: list[Signal]) -> State:
    """Where a sequence leads when refused signals change nothing."""
    present = State.STARTING
    for signal in sequence:
        try:
            present = next_state(present, signal)
        except LifecycleError:
            assert (present, signal) not in TRANSITIONS
    return present


@given(signals)
def test_any_sequence_of_signals_ends_in_a_known_state(sequence: list[Signal]) -> None:
    assert after(sequence) in State


@given(signals)
def test_what_has_not_ended_can_be_drained_to_its_end(sequence: list[Signal]) -> None:
    present = after(sequence)

    if present not in TERMINAL:
        assert next_state(next_state(present, Signal.DRAIN), Signal.DRAINED) is State.STOPPED


@given(signals, signals)
def test_an_end_is_for_good(before: list[Signal], more: list[Signal]) -> None:
    if (ended := after(before)) in TERMINAL:
        assert after(before + more) is ended


@pytest.mark.parametrize("present", sorted(set(State) - TERMINAL))
def test_what_has_not_ended_can_be_given_up(present: State) -> None:
    assert next_state(present, Signal.GAVE_UP) is State.FAILED


def test_what_drains_is_never_started_again() -> None:
    reachable = {target for (source, _), target in TRANSITIONS.items() if source is State.DRAINING}

    assert reachable == {State.DRAINING} | TERMINAL


def test_a_refused_signal_names_itself_and_the_state() -> None:
    with pytest.raises(LifecycleError, match="started is not allowed while stopped"):
        next_state(State.STOPPED, Signal.STARTED)


def test_public_names_are_there() -> None:
    for module in (deadlines, isolation, policy, agent, state, supervisor):
        assert all(hasattr(module, name) for name in module.__all__)
