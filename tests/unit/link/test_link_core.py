"""The core of a link: channels, credit, and going on after a loss, at any point of which the connection may be cut."""

import random
from collections import defaultdict, deque

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshhost.errors import LocalProtocolError, RemoteProtocolError, TooLargeError
from meshhost.link.channels import PIECE_COST, RECEIVE, SEND, Channel, ChannelState
from meshhost.link.core import PIECE_BYTES, TRANSITIONS, GoodbyeCode, LinkCore, LinkSignal, LinkState
from meshhost.link.events import (
    Accepted,
    Closed,
    Drained,
    Ended,
    Event,
    Greeted,
    Lost,
    MessageReceived,
    Offered,
    Refused,
)
from meshhost.link.frames import (
    Kind,
    pack,
    pack_count,
    pack_credit,
    pack_reason,
    unpack,
    unpack_count,
    unpack_reason,
)
from meshhost.link.greeting import MAX_GREETING_BYTES, Hello, LinkLimits, Welcome, packed, read_hello, read_welcome

SMALL = LinkLimits(window=1024, message=512, channels=8, meta=64, replay=4096)


class Pair:
    """Two cores and the connection between them, which keeps what is under way and can be cut."""

    def __init__(self, limits: LinkLimits | None = None) -> None:
        self.dialler, self.other = LinkCore(dials=True, limits=limits), LinkCore(dials=False, limits=limits)
        self.under_way: dict[LinkCore, deque[bytes]] = {self.dialler: deque(), self.other: deque()}
        self.events: dict[LinkCore, list[Event]] = {self.dialler: [], self.other: []}
        self.has_greeted = False

    def peer(self, core: LinkCore) -> LinkCore:
        return self.other if core is self.dialler else self.dialler

    def connect(self) -> None:
        self.dialler.attach()
        self.has_greeted = False
        self.take(self.dialler)

    def cut(self) -> None:
        for core in (self.dialler, self.other):
            core.detach()
            self.under_way[core].clear()

    def take(self, core: LinkCore) -> bool:
        """Put the next message of this core under way."""
        data, events = core.data_to_send()
        self.events[core] += events
        if data:
            self.under_way[core].append(data)
        return bool(data)

    def deliver(self, core: LinkCore) -> bool:
        """Deliver the next message that this core sent."""
        if not self.under_way[core]:
            return False
        data, receiver = self.under_way[core].popleft(), self.peer(core)
        if receiver is self.other and not self.has_greeted:
            self.has_greeted = True
            self.other.attach()
            hello = read_hello(data)
            self.events[receiver] += self.other.welcome(hello, token="token", resume_seconds=10)
        else:
            self.events[receiver] += receiver.receive(data)
        return True

    def run(self) -> None:
        """Until nothing moves any more."""
        has_moved = True
        while has_moved:
            has_moved = False
            for core in (self.dialler, self.other):
                has_moved |= self.take(core)
                has_moved |= self.deliver(core)

    def seen(self, core: LinkCore) -> list[Event]:
        """The events of a core since the last look."""
        self.run()
        events, self.events[core] = self.events[core], []
        return events

    def channel(self) -> int:
        """Open a channel, and forget the events of it."""
        channel = self.dialler.open(b"{}")
        self.run()
        self.other.accept(channel)
        self.run()
        for events in self.events.values():
            events.clear()
        return channel


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.connect()
    pair.run()
    return pair


def small_pair() -> Pair:
    pair = Pair(SMALL)
    pair.connect()
    pair.run()
    return pair


def test_both_sides_are_greeted(pair: Pair) -> None:
    assert pair.seen(pair.dialler) == [Greeted(resumed=False)]
    assert pair.seen(pair.other) == [Greeted(resumed=False)]
    assert pair.dialler.state is pair.other.state is LinkState.OPEN
    assert pair.dialler.token == "token"
    assert "open channels=0" in repr(pair.dialler)


def test_a_channel_is_offered_accepted_used_and_closed(pair: Pair) -> None:
    channel = pair.dialler.open(b"what for")
    assert Offered(channel, b"what for") in pair.seen(pair.other)
    pair.other.accept(channel, b"welcome")
    assert pair.seen(pair.dialler)[-1] == Accepted(channel, b"welcome")
    pair.dialler.send(channel, b"hello")
    assert pair.seen(pair.other) == [MessageReceived(channel, b"hello", 5 + PIECE_COST)]
    pair.other.send(channel, b"")
    pair.other.close(channel, 1000, "done")
    assert pair.seen(pair.dialler) == [MessageReceived(channel, b"", PIECE_COST), Closed(channel, 1000, "done")]
    assert pair.dialler.channels == pair.other.channels == 0


def test_either_side_opens_channels(pair: Pair) -> None:
    ours, theirs = pair.dialler.open(), pair.other.open()
    assert (ours % 2, theirs % 2) == (1, 0)
    assert Offered(theirs, b"") in pair.seen(pair.dialler)
    assert Offered(ours, b"") in pair.seen(pair.other)


def test_a_refused_channel_says_why(pair: Pair) -> None:
    channel = pair.dialler.open()
    pair.run()
    pair.other.refuse(channel, 429, "too many")
    assert pair.seen(pair.dialler)[-1] == Refused(channel, 429, "too many")
    assert pair.dialler.channels == pair.other.channels == 0
    with pytest.raises(LocalProtocolError, match="over"):
        pair.dialler.send(channel, b"late")


def test_to_close_a_channel_that_was_offered_refuses_it(pair: Pair) -> None:
    channel = pair.dialler.open()
    pair.run()
    pair.other.close(channel, 503, "stopping")
    assert pair.seen(pair.dialler)[-1] == Refused(channel, 503, "stopping")


def test_a_close_that_crosses_a_refusal_is_ignored(pair: Pair) -> None:
    channel = pair.dialler.open()
    pair.run()
    pair.other.refuse(channel, 403, "no")
    pair.dialler.close(channel, 1000)
    assert pair.seen(pair.dialler) == [Greeted(resumed=False)]  # nobody waits for it any more
    assert pair.other.state is LinkState.OPEN
    assert pair.dialler.channels == pair.other.channels == 0


def test_a_close_that_crosses_an_acceptance_closes(pair: Pair) -> None:
    channel = pair.dialler.open()
    pair.run()
    pair.other.accept(channel)
    pair.other.send(channel, b"dropped")
    pair.dialler.close(channel, 1000, "changed my mind")
    assert pair.seen(pair.other)[-1] == Closed(channel, 1000, "changed my mind")
    assert pair.dialler.channels == pair.other.channels == 0


def test_both_sides_may_close_at_the_same_time(pair: Pair) -> None:
    channel = pair.channel()
    pair.dialler.close(channel, 1000)
    pair.other.close(channel, 1001)
    assert pair.seen(pair.dialler) == pair.seen(pair.other) == []
    assert pair.dialler.channels == pair.other.channels == 0
    pair.dialler.close(channel, 1000)  # idempotent


def test_a_channel_is_closed_after_what_waits_unless_it_is_dropped() -> None:
    pair = small_pair()
    kept, dropped = pair.channel(), pair.channel()
    for channel in (kept, dropped):
        for _ in range(4):  # more than the credit
            pair.dialler.send(channel, b"x" * 400)
    pair.run()
    pair.dialler.close(kept, 1000)
    pair.dialler.close(dropped, 1000, drop=True)
    with pytest.raises(LocalProtocolError, match="not open"):
        pair.dialler.send(kept, b"late")
    assert Closed(dropped, 1000, "") in pair.seen(pair.other)
    for _ in range(4):
        pair.other.consumed(kept, 400 + PIECE_COST)
        pair.run()
    assert pair.seen(pair.other)[-1] == Closed(kept, 1000, "")


def test_a_large_message_does_not_hold_up_another_channel(pair: Pair) -> None:
    large, small = pair.channel(), pair.channel()
    pair.dialler.send(large, b"x" * 100_000)
    pair.dialler.send(small, b"small")
    received = [event for event in pair.seen(pair.other) if isinstance(event, MessageReceived)]
    assert [event.channel for event in received] == [small, large]
    assert received[1].data == b"x" * 100_000
    assert received[1].cost == 100_000 + PIECE_COST * -(-100_000 // PIECE_BYTES)


def test_a_channel_that_is_not_read_stalls_alone() -> None:
    pair = small_pair()
    slow, quick = pair.channel(), pair.channel()
    for number in range(20):
        pair.dialler.send(slow, b"x" * 200)
        pair.dialler.send(quick, b"%d" % number)
    received = 0
    while True:
        events = [event for event in pair.seen(pair.other) if isinstance(event, MessageReceived)]
        if not events:
            break
        for event in events:
            if event.channel == quick:
                received += 1
                pair.other.consumed(quick, event.cost)
    assert received == 20
    assert pair.dialler.queued(slow) > 0
    assert pair.dialler.queued(quick) == 0


def test_the_driver_hears_when_little_waits() -> None:
    pair = small_pair()
    channel = pair.channel()
    for _ in range(2):
        pair.dialler.send(channel, b"x" * 100)
    _, events = pair.dialler.data_to_send(low=150)
    assert events == [Drained(channel)]


def test_what_is_too_large_is_refused_before_anything_is_sent() -> None:
    pair = small_pair()
    channel = pair.channel()
    with pytest.raises(TooLargeError, match="513"):
        pair.dialler.send(channel, b"x" * 513)
    with pytest.raises(TooLargeError, match="65"):
        pair.dialler.open(b"x" * 65)
    assert pair.dialler.max_message_bytes == 512
    assert not pair.take(pair.dialler)


def test_the_link_goes_on_after_a_loss(pair: Pair) -> None:
    channel = pair.channel()
    pair.dialler.send(channel, b"before")
    pair.take(pair.dialler)
    pair.cut()  # under way, and lost
    pair.dialler.send(channel, b"meanwhile")
    pair.connect()
    assert pair.seen(pair.dialler) == [Greeted(resumed=True)]
    assert [event.data for event in pair.seen(pair.other)[1:] if isinstance(event, MessageReceived)] == [
        b"before",
        b"meanwhile",
    ]
    pair.dialler.ping()
    pair.other.ping()
    pair.run()
    assert pair.dialler.unacknowledged == pair.other.unacknowledged == 0


def test_many_pings_of_a_side_that_reads_nothing_are_answered_once(pair: Pair) -> None:
    for _ in range(100):
        assert pair.other.receive(pack(Kind.PING, 0, pack_count(0)) * 100) == []
    assert pair.other.data_to_send()[0] == pack(Kind.PONG, 0, pack_count(0))
    assert pair.other.data_to_send()[0] == b""


def test_what_is_acknowledged_is_bounded_and_goes_on() -> None:
    pair = small_pair()
    channel = pair.channel()
    for _ in range(100):
        pair.dialler.send(channel, b"x" * 400)
    received = 0
    while events := [event for event in pair.seen(pair.other) if isinstance(event, MessageReceived)]:
        received += len(events)
        for event in events:
            pair.other.consumed(channel, event.cost)
        assert pair.dialler.unacknowledged < SMALL.replay + 600
    assert received == 100


def test_without_acknowledgement_nothing_more_is_sent() -> None:
    pair = small_pair()
    for _ in range(200):
        pair.dialler.open(b"x" * 60)
    while pair.take(pair.dialler):
        pass
    assert pair.dialler.unacknowledged < SMALL.replay + 100


def test_a_link_that_cannot_go_on_loses_its_channels(pair: Pair) -> None:
    channel = pair.channel()
    pair.cut()
    pair.other = LinkCore(dials=False)
    pair.under_way[pair.other], pair.events[pair.other] = deque(), []
    pair.connect()
    assert pair.seen(pair.dialler) == [Lost(channel), Greeted(resumed=False)]
    assert pair.channel() == 1


def test_a_channel_may_be_asked_for_before_the_first_greeting() -> None:
    pair = Pair(SMALL)
    channel = pair.dialler.open(b"early")
    pair.connect()
    assert pair.seen(pair.other) == [Greeted(resumed=False), Offered(channel, b"early")]
    pair.other.accept(channel)
    pair.run()
    pair.dialler.send(channel, b"x" * 512)
    pair.dialler.send(channel, b"x" * 512)
    pair.run()
    assert pair.dialler.queued(channel) == 512 + PIECE_COST  # the credit of the other side, not the usual one


def test_goodbye_ends_the_link_for_good(pair: Pair) -> None:
    channel = pair.channel()
    assert pair.other.end(GoodbyeCode.STOPPING, "stopping") == [Lost(channel)]
    assert pair.seen(pair.dialler) == [Lost(channel), Ended(GoodbyeCode.STOPPING, "stopping")]
    assert pair.other.end(GoodbyeCode.STOPPING, "again") == []
    pair.cut()
    with pytest.raises(LocalProtocolError, match="attach is not possible"):
        pair.dialler.attach()
    with pytest.raises(LocalProtocolError, match="ended"):
        pair.dialler.open()
    pair.dialler.ping()
    assert pair.dialler.data_to_send() == (b"", [])


def test_a_link_may_end_while_there_is_no_connection() -> None:
    core = LinkCore(dials=True)
    assert core.end(GoodbyeCode.NORMAL, "") == []
    assert core.data_to_send() == (b"", [])


def test_nothing_follows_goodbye_in_its_message(pair: Pair) -> None:
    data = pack(Kind.GOODBYE, 0, pack_reason(0, "bye")) + pack(Kind.OPEN, 1, b"")
    assert pair.other.receive(data) == [Ended(0, "bye")]


def test_without_a_common_version_there_is_no_link() -> None:
    core = LinkCore(dials=False)
    core.attach()
    (event,) = core.welcome(Hello(versions=[2, 3]), token="t", resume_seconds=1)
    assert isinstance(event, Ended)
    assert event.code == GoodbyeCode.VERSION
    assert b"version 1" in core.data_to_send()[0]


def test_a_hello_that_claims_too_much_ends_the_link(pair: Pair) -> None:
    pair.channel()
    pair.cut()
    pair.other.attach()
    (event,) = pair.other.welcome(Hello(token="token", received=99), token="t", resume_seconds=1)
    assert isinstance(event, Ended)
    assert "acknowledged" in event.text


def greeted(*, limits: LinkLimits | None = None) -> LinkCore:
    core = LinkCore(dials=False, limits=limits)
    core.attach()
    core.welcome(Hello(), token="t", resume_seconds=1)
    core.data_to_send()
    return core


OPEN = pack(Kind.OPEN, 1, b"")
ACCEPTED = OPEN


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "without a frame"),
        (b"\x10", "whole head"),
        (pack(Kind.OPEN, 1, b"abc")[:-1], "goes on after"),
        (b"\xff" + bytes(12), "unknown kind 255"),
        (pack(Kind.WELCOME, 0, b"{}"), "WELCOME while"),
        (pack(Kind.HELLO, 0, b"{}"), "HELLO while"),
        (pack(Kind.ACK, 0, pack_count(1)), "1 frames are acknowledged"),
        (pack(Kind.ACK, 0, b"\x00"), "payload of 1 bytes"),
        (pack(Kind.GOODBYE, 0, b"\x00"), "reason of 1 bytes"),
        (pack(Kind.OPEN, 2, b""), "id 2"),
        (pack(Kind.OPEN, 3, b"") + pack(Kind.OPEN, 1, b""), "id 1"),
        (pack(Kind.OPEN, 1, b"x" * 65), "65 bytes"),
        (pack(Kind.LAST, 1, b""), "not there"),
        (pack(Kind.CLOSE, 1, pack_reason(1000, "")), "not there"),
        (pack(Kind.CLOSE, 0, pack_reason(1000, "")), "not there"),
        (OPEN + pack(Kind.LAST, 1, b""), "offered"),
        (OPEN + pack(Kind.ACCEPT, 1, b""), "ACCEPT on channel 1"),
        (b"".join(pack(Kind.OPEN, number, b"") for number in range(1, 19, 2)), "more than 8 channels"),
    ],
)
def test_what_breaks_the_protocol_ends_the_link_and_the_other_side_is_told(data: bytes, text: str) -> None:
    core = greeted(limits=SMALL)
    ended = core.receive(data)[-1]
    assert isinstance(ended, Ended)
    assert isinstance(ended.error, RemoteProtocolError)
    assert text in ended.text
    ((kind, _, payload),) = unpack(core.data_to_send()[0])
    assert kind is Kind.GOODBYE
    assert unpack_reason(payload) == (GoodbyeCode.PROTOCOL, ended.text)
    assert core.state is LinkState.ENDED


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (pack(Kind.LAST, 1, b"x" * 1009), "more than its credit"),
        (pack(Kind.LAST, 1, b"x" * 513), "over 512"),
        (pack(Kind.PIECE, 1, b"x" * 400) + pack(Kind.LAST, 1, b"x" * 113), "over 512"),
        (pack(Kind.CREDIT, 1, pack_credit(1)), "more credit than its window"),
        (pack(Kind.CREDIT, 1, b""), "payload of 0 bytes"),
    ],
)
def test_what_breaks_the_rules_of_an_open_channel_ends_the_link(data: bytes, text: str) -> None:
    core = greeted(limits=SMALL)
    core.receive(OPEN)
    core.accept(1)
    ended = core.receive(data)[-1]
    assert isinstance(ended, Ended)
    assert text in ended.text


def test_the_side_that_dials_checks_the_welcome() -> None:
    for welcome, text in (
        (Welcome(version=2, token="t"), "version 2"),
        (Welcome(token="t", resumed=True), "is new"),
    ):
        core = LinkCore(dials=True)
        core.attach()
        ended = core.receive(packed(welcome))[-1]
        assert isinstance(ended, Ended)
        assert text in ended.text
    core = LinkCore(dials=True)
    core.attach()
    assert isinstance(core.receive(OPEN)[-1], Ended)


def test_who_asks_for_channels_and_takes_no_answers_is_cut_off() -> None:
    core = greeted(limits=SMALL)
    ended: Event | None = None
    for number in range(1, 5000, 2):
        event = core.receive(pack(Kind.OPEN, number, b""))[-1]
        if isinstance(event, Ended):
            ended = event
            break
        core.refuse(number, 429, "no")
        core.data_to_send()
    assert ended is not None
    assert "answers are not taken" in ended.text


def test_greetings_are_checked() -> None:
    with pytest.raises(RemoteProtocolError, match="HELLO first"):
        read_hello(OPEN)
    with pytest.raises(RemoteProtocolError, match="at most 4096"):
        read_hello(b"x" * (MAX_GREETING_BYTES + 1))
    with pytest.raises(RemoteProtocolError, match="at most 4096"):
        read_welcome(b"x" * (MAX_GREETING_BYTES + 1))
    with pytest.raises(RemoteProtocolError, match="received"):
        read_hello(pack(Kind.HELLO, 0, b'{"received": -1}'))
    with pytest.raises(RemoteProtocolError, match="twice the largest message"):
        read_hello(pack(Kind.HELLO, 0, b'{"limits": {"window": 1024, "message": 1024}}'))
    assert read_hello(pack(Kind.HELLO, 0, b'{"later": 1}')) == Hello()
    assert unpack_count(pack_count(7)) == 7


def test_the_tables_know_every_state_and_end() -> None:
    assert set(SEND) == set(RECEIVE) == set(ChannelState)
    assert not SEND[ChannelState.CLOSED]
    assert not RECEIVE[ChannelState.CLOSED]
    assert set(TRANSITIONS) == set(LinkState)
    assert set(TRANSITIONS[LinkState.ENDED].values()) == {LinkState.ENDED}
    assert all(LinkSignal.END in known for known in TRANSITIONS.values())


def test_what_the_tables_do_not_allow_changes_nothing() -> None:
    for state in ChannelState:
        for kind in Kind:
            channel = Channel(1, is_ours=True, credit=0, granted=0)
            channel.state = state
            if kind not in SEND[state]:
                with pytest.raises(LocalProtocolError):
                    channel.sending(kind)
            if kind not in RECEIVE[state]:
                with pytest.raises(RemoteProtocolError):
                    channel.receiving(kind)
            assert channel.state is state
            assert state.value in repr(channel)


class LinkUnderFire(RuleBasedStateMachine):
    """Both sides open, send, close and consume as they like, and the connection is cut at any point."""

    def __init__(self) -> None:
        super().__init__()
        # Greeted: without the token of a first WELCOME the other side would begin a new link.
        self.pair = small_pair()
        self.pair.events = {core: [] for core in self.pair.events}
        self.sides = (self.pair.dialler, self.pair.other)
        # By sender and channel: what was accepted to be sent, and what the other side received and has not consumed.
        self.sent: dict[tuple[LinkCore, int], list[bytes]] = defaultdict(list)
        self.received: dict[tuple[LinkCore, int], list[bytes]] = defaultdict(list)
        self.unconsumed: dict[tuple[LinkCore, int], list[int]] = defaultdict(list)
        self.open: dict[LinkCore, set[int]] = {core: set() for core in self.sides}
        self.offered: dict[LinkCore, set[int]] = {core: set() for core in self.sides}
        self.dropped: set[int] = set()
        self.counter = 0

    def core(self, side: int) -> LinkCore:
        return self.sides[side]

    def look(self) -> None:
        for core in self.sides:
            events, self.pair.events[core] = self.pair.events[core], []
            for event in events:
                assert not isinstance(event, Ended | Lost), event
                if isinstance(event, Offered):
                    self.offered[core].add(event.channel)
                elif isinstance(event, Accepted):
                    self.open[core].add(event.channel)
                elif isinstance(event, MessageReceived):
                    sender = self.pair.peer(core)
                    self.received[sender, event.channel].append(event.data)
                    self.unconsumed[sender, event.channel].append(event.cost)
                elif isinstance(event, Closed):
                    self.open[core].discard(event.channel)
                    self.offered[core].discard(event.channel)

    @rule(side=st.integers(0, 1))
    def ask(self, side: int) -> None:
        if self.core(side).channels < 7:
            self.core(side).open(b"x")

    @rule(side=st.integers(0, 1), accepts=st.booleans())
    def answer(self, side: int, accepts: bool) -> None:
        core = self.core(side)
        if self.offered[core]:
            channel = self.offered[core].pop()
            if accepts:
                core.accept(channel)
                self.open[core].add(channel)
            else:
                core.refuse(channel, 403, "no")

    @rule(side=st.integers(0, 1), pick=st.integers(0, 100), size=st.integers(0, 512))
    def send(self, side: int, pick: int, size: int) -> None:
        core = self.core(side)
        if self.open[core]:
            channel = sorted(self.open[core])[pick % len(self.open[core])]
            self.counter += 1
            message = (b"%d:" % self.counter).ljust(size, b".")[:512]
            core.send(channel, message)
            self.sent[core, channel].append(message)

    @rule(side=st.integers(0, 1), pick=st.integers(0, 100), drop=st.booleans())
    def close(self, side: int, pick: int, drop: bool) -> None:
        core = self.core(side)
        if self.open[core]:
            channel = sorted(self.open[core])[pick % len(self.open[core])]
            self.open[core].discard(channel)
            self.dropped.add(channel)
            core.close(channel, 1000, drop=drop)

    @rule(side=st.integers(0, 1), count=st.integers(1, 5))
    def consume(self, side: int, count: int) -> None:
        core = self.core(side)
        for (sender, channel), costs in self.unconsumed.items():
            if self.pair.peer(sender) is core:
                for _ in range(min(count, len(costs))):
                    core.consumed(channel, costs.pop(0))

    @rule(side=st.integers(0, 1), count=st.integers(1, 4))
    def take(self, side: int, count: int) -> None:
        for _ in range(count):
            self.pair.take(self.core(side))

    @rule(side=st.integers(0, 1), count=st.integers(1, 4))
    def deliver(self, side: int, count: int) -> None:
        for _ in range(count):
            self.pair.deliver(self.core(side))
        self.look()

    @rule(side=st.integers(0, 1))
    def ping(self, side: int) -> None:
        self.core(side).ping()

    @precondition(lambda self: self.pair.dialler.state is not LinkState.DETACHED)
    @rule()
    def cut(self) -> None:
        self.look()
        self.pair.cut()

    @precondition(lambda self: self.pair.dialler.state is LinkState.DETACHED)
    @rule()
    def connect(self) -> None:
        self.pair.connect()

    @invariant()
    def order_is_kept_and_nothing_comes_twice(self) -> None:
        for key, received in self.received.items():
            assert received == self.sent[key][: len(received)]

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        for core in self.sides:
            assert core.unacknowledged < SMALL.replay + 600

    def teardown(self) -> None:
        """In the end everything arrives on the channels that nobody closed."""
        self.look()
        if self.pair.dialler.state is LinkState.DETACHED:
            self.pair.connect()
        for _ in range(1000):
            self.pair.run()
            self.look()
            if not any(self.unconsumed.values()):
                break
            for side in (0, 1):
                self.consume(side, 1000)
        for (sender, channel), sent in self.sent.items():
            if channel not in self.dropped:
                assert self.received[sender, channel] == sent


LinkUnderFire.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLinkUnderFire = LinkUnderFire.TestCase


def test_ten_thousand_messages_arrive_over_many_cuts() -> None:
    chance = random.Random(14)
    pair = small_pair()
    channels = [pair.channel() for _ in range(5)]
    sent: dict[int, int] = dict.fromkeys(channels, 0)
    received: dict[int, list[bytes]] = {channel: [] for channel in channels}
    while any(len(got) < 2000 for got in received.values()):
        for channel in channels:
            while sent[channel] < 2000 and pair.dialler.queued(channel) < 2000:
                pair.dialler.send(channel, b"%d" % sent[channel] + b"." * chance.randrange(100))
                sent[channel] += 1
        for _ in range(chance.randrange(8)):
            pair.take(pair.dialler)
            pair.take(pair.other)
            pair.deliver(pair.dialler)
            pair.deliver(pair.other)
        if chance.random() < 0.1:
            pair.cut()
            pair.connect()
        for event in pair.events[pair.other]:
            if isinstance(event, MessageReceived):
                received[event.channel].append(event.data.rstrip(b"."))
                pair.other.consumed(event.channel, event.cost)
        pair.events[pair.other].clear()
    for got in received.values():
        assert got == [b"%d" % number for number in range(2000)]
