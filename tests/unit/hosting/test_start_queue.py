import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshhost.errors import SettingsError
from meshhost.hosting.tenants.start_queue import MAX_WAIT_SECONDS, QueuedChild, StartQueue
from meshhost.supervision.isolation import Aborted, Crashed, Exited, TaskChild
from meshhost.tasks import TaskOwner
from meshhost.testing.clock import FakeClock


def queue(limit=1, **options):
    return StartQueue(clock=FakeClock(), limit=limit, **options)


def served(of, tickets, steps=None):
    """The tenants in the order in which they start, each start being over before the next."""
    order, left = [], list(tickets)
    while left and (steps is None or len(order) < steps):
        granted = [ticket for ticket in left if ticket.granted_at is not None]
        assert granted, "nobody's turn"
        ticket = granted[0]
        order.append(ticket.tenant)
        left.remove(ticket)
        ticket.leave()
    return order


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"tenant_limit": 0}])
def test_a_queue_lets_at_least_one_start(wrong):
    with pytest.raises(SettingsError):
        queue(**wrong)


async def test_up_to_the_limit_start_at_once_and_the_next_when_one_is_over():
    starts = queue(limit=2, tenant_limit=2)
    first, second, third = (starts.enter("a") for _ in range(3))
    assert [ticket.is_waiting for ticket in (first, second, third)] == [False, False, True]
    assert (starts.starting, starts.waiting(), starts.waiting("a"), starts.waiting("b")) == (2, 1, 1, 0)
    first.leave()
    first.leave()
    assert await third.wait()
    assert (starts.starting, starts.waiting()) == (2, 0)
    second.leave()
    third.leave()
    assert starts.starting == 0
    assert not starts._waiting


def test_a_parked_start_holds_nobody_up_and_gets_the_last_place_when_it_may():
    starts = queue(limit=1)
    parked, first, second = starts.enter("a", is_parked=True), starts.enter("a"), starts.enter("b")
    assert (parked.is_waiting, first.is_waiting, starts.waiting("a")) == (True, False, 1)
    assert repr(parked) == "<Ticket 'a' parked>"
    parked.unpark()
    parked.unpark()
    assert repr(parked) == "<Ticket 'a' waiting>"
    first.leave()
    assert not second.is_waiting
    second.leave()
    assert not parked.is_waiting
    parked.leave()
    assert (starts.starting, starts.waiting()) == (0, 0)


def test_a_parked_start_that_is_given_up_leaves_nothing():
    starts = queue()
    parked = starts.enter("a", is_parked=True)
    parked.leave()
    parked.unpark()
    assert (starts.starting, starts.waiting()) == (0, 0)
    assert not starts._waiting


def test_a_thousand_of_one_tenant_delay_another_by_one():
    starts = queue()
    many = [starts.enter("many") for _ in range(1000)]
    few = [starts.enter("few") for _ in range(3)]
    assert served(starts, many + few, 7) == ["many", "many", "few", "many", "few", "many", "few"]


def test_turns_are_as_long_as_the_weights():
    starts = queue(weight={"a": 3, "b": 1}.__getitem__)
    tickets = [starts.enter(tenant) for tenant in "aaaaaaaaaabbb"]
    assert "".join(served(starts, tickets)[1:9]) == "aaabaaab"


def test_a_tenant_whose_starts_hang_leaves_room_for_others():
    starts = queue(limit=4)
    hanging = [starts.enter("hanging") for _ in range(10)]
    assert sum(not ticket.is_waiting for ticket in hanging) == 3
    assert not starts.enter("other").is_waiting
    assert starts.enter("other").is_waiting


async def test_who_leaves_while_waiting_is_told_and_skipped():
    starts = queue()
    first, second, third = (starts.enter(tenant) for tenant in "aab")
    tasks = TaskOwner("test")
    waiting = tasks.spawn(second.wait(), name="waits")
    await asyncio.sleep(0)
    second.leave()
    assert await waiting is False
    assert repr(second) == "<Ticket 'a' left>"
    first.leave()
    assert await third.wait()


async def test_cancelling_a_wait_keeps_the_place():
    starts = queue()
    first, second = starts.enter("a"), starts.enter("b")
    waiting = TaskOwner("test").spawn(second.wait(), name="waits")
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert second.is_waiting
    first.leave()
    assert await second.wait()


async def test_how_long_a_start_waited_is_told():
    clock, waits = FakeClock(), []
    starts = StartQueue(clock=clock, limit=1, on_grant=waits.append)
    first, _ = starts.enter("a"), starts.enter("b")
    await clock.advance(3)
    first.leave()
    assert waits == [0, 3]


@settings(max_examples=200)
@given(
    weights=st.lists(st.integers(1, 4), min_size=2, max_size=5),
    limit=st.integers(1, 4),
    crowds=st.lists(st.integers(1, 60), min_size=5, max_size=5),
    wanted=st.integers(1, 10),
)
def test_nobody_waits_longer_than_the_weights_of_the_others_say(weights, limit, crowds, wanted):
    names = [f"t{number}" for number in range(len(weights))]
    starts = queue(limit=limit, tenant_limit=limit, weight=lambda tenant: weights[names.index(tenant)])
    granted = []
    tickets = [starts.enter(name) for name, crowd in zip(names[1:], crowds, strict=False) for _ in range(crowd)]
    running = [ticket for ticket in tickets if not ticket.is_waiting]
    own = [starts.enter(names[0]) for _ in range(wanted)]
    while own[-1].is_waiting:
        ticket = running.pop(0)
        before = {id(one) for one in tickets + own if not one.is_waiting}
        ticket.leave()
        news = [one for one in tickets + own if not one.is_waiting and id(one) not in before]
        assert len(news) <= 1
        running += news
        granted += [one.tenant for one in news]
    turns = -(-wanted // weights[0])
    assert len(granted) <= turns * sum(weights[1:]) + wanted


class Model(RuleBasedStateMachine):
    """Whatever enters and leaves: never too many, never idle with somebody waiting, everybody counted."""

    def __init__(self):
        super().__init__()
        self.starts = queue(limit=4, tenant_limit=3, weight=lambda tenant: ord(tenant) - ord("a") + 1)
        self.tickets = []

    @rule(tenant=st.sampled_from("abcd"))
    def enter(self, tenant):
        self.tickets.append(self.starts.enter(tenant))

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def leave(self, data):
        ticket = data.draw(st.sampled_from(self.tickets))
        self.tickets.remove(ticket)
        ticket.leave()
        ticket.leave()

    @invariant()
    def counts_are_right(self):
        waiting = [ticket for ticket in self.tickets if ticket.is_waiting]
        starting = Counter(ticket.tenant for ticket in self.tickets if not ticket.is_waiting)
        assert self.starts.waiting() == len(waiting)
        assert self.starts.starting == starting.total() <= 4
        assert all(number <= 3 for number in starting.values())
        assert all(self.starts.waiting(t) == sum(w.tenant == t for w in waiting) for t in "abcd")
        assert set(self.starts._waiting) == {ticket.tenant for ticket in waiting}

    @invariant()
    def nobody_waits_for_nothing(self):
        starting = Counter(ticket.tenant for ticket in self.tickets if not ticket.is_waiting)
        if starting.total() < 4:
            assert all(starting[ticket.tenant] >= 3 for ticket in self.tickets if ticket.is_waiting)


TestModel = Model.TestCase


# A child that waits for its turn


class Life:
    """An agent's code that runs when it is let."""

    def __init__(self, *, may_start=True):
        self.began = asyncio.Event()
        self.may_start = asyncio.Event()
        if may_start:
            self.may_start.set()

    async def __call__(self, child):
        self.began.set()
        await self.may_start.wait()
        child.started()
        await child.draining.wait()


def child_of(starts, life, *, timeout=5.0, clock=None):
    return QueuedChild(TaskChild(life, "agent"), starts.enter("a"), start_timeout=timeout, clock=clock or FakeClock())


async def test_a_child_begins_when_its_turn_has_come_and_then_makes_room():
    starts, life = queue(), Life()
    blocker = starts.enter("b")
    child = child_of(starts, life)
    tasks = TaskOwner("test")
    start = tasks.spawn(child.start(), name="start")
    await asyncio.sleep(0.01)
    assert not life.began.is_set()
    blocker.leave()
    await start
    assert life.began.is_set()
    assert (starts.starting, starts.waiting()) == (0, 0)
    await child.drain()
    assert await child.wait() == Exited()


@pytest.mark.parametrize(("end", "ending"), [("abort", Aborted()), ("drain", Exited())])
async def test_a_child_told_to_go_before_its_turn_never_begins(end, ending):
    starts, life = queue(), Life()
    starts.enter("b")
    child = child_of(starts, life)
    tasks = TaskOwner("test")
    start = tasks.spawn(child.start(), name="start")
    waits = tasks.spawn(child.wait(), name="wait")
    await asyncio.sleep(0)
    if end == "abort":
        child.abort()
    else:
        await child.drain()
    await start
    assert await waits == await child.wait() == ending
    assert not life.began.is_set()
    assert starts.waiting() == 0


async def test_a_child_told_to_go_in_the_moment_of_its_turn_never_begins():
    starts, life = queue(), Life()
    blocker = starts.enter("b")
    child = child_of(starts, life)
    start = TaskOwner("test").spawn(child.start(), name="start")
    await asyncio.sleep(0)
    blocker.leave()
    child.abort()
    await start
    assert await child.wait() == Aborted()
    assert not life.began.is_set()
    assert starts.starting == 0


async def test_the_time_to_start_begins_with_the_turn():
    starts, clock, life = queue(), FakeClock(), Life(may_start=False)
    blocker = starts.enter("b")
    child = child_of(starts, life, clock=clock)
    start = TaskOwner("test").spawn(child.start(), name="start")
    await clock.advance(100)
    assert not start.done()
    blocker.leave()
    await life.began.wait()
    await clock.advance(5)
    with pytest.raises(TimeoutError, match="the agent did not report running within 5 s"):
        await start
    assert starts.starting == 0
    child.abort()
    assert await child.wait() == Aborted()


async def test_a_turn_that_does_not_come_is_a_failed_start():
    starts, clock, life = queue(), FakeClock(), Life()
    starts.enter("b")
    child = child_of(starts, life, clock=clock)
    start = TaskOwner("test").spawn(child.start(), name="start")
    await clock.advance(MAX_WAIT_SECONDS - 1)
    assert not start.done()
    await clock.advance(1)
    with pytest.raises(TimeoutError, match="its turn to start did not come within 3600 s"):
        await start
    assert (starts.waiting(), life.began.is_set()) == (0, False)


async def test_a_start_that_crashes_or_is_cancelled_makes_room():
    starts = queue()

    async def crash(_):
        raise ValueError("no")

    child = child_of(starts, crash)
    with pytest.raises(ValueError, match="no"):
        await child.start()
    assert isinstance(await child.wait(), Crashed)
    blocker = starts.enter("b")
    child = child_of(starts, Life())
    start = TaskOwner("test").spawn(child.start(), name="start")
    await asyncio.sleep(0)
    start.cancel()
    await asyncio.wait({start})
    assert starts.waiting() == 0
    child.abort()
    assert await child.wait() == Aborted()
    blocker.leave()
