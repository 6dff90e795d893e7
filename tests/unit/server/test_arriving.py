"""Large messages of a WebSocket: their room is reserved before they are read."""

import asyncio

import pytest

from meshhost.quotas.in_flight import FREE_BYTES, Account, InFlight
from meshhost.quotas.quota import ServerQuota
from meshhost.server.wire.arriving import IDLE_FRAMES, LATE, Arrivals, Arriving
from tests.unit.transport.test_frame_sizes import frame

ROOM = 1_000_000
LARGE = 700_000


class Wire:
    """A connection that is read or not, and the message that arrives on it."""

    def __init__(self, everything: InFlight, *, most: int = 2 * ROOM, room_seconds: float = 10.0) -> None:
        self.account: Account = everything.account("acme", max_bytes=2 * ROOM)
        self.is_held_back = False
        self.can_make_room = False
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.reads_on = asyncio.Event()
        self.arrivals = Arrivals(seconds=30.0, bytes_per_second=1000.0)
        self.arriving = Arriving(self, self.account, self.arrivals, most=most, room_seconds=room_seconds)
        self.arriving.attach(make_room=self._make_room, end=self.ended.put_nowait)

    def hold_back(self, is_held_back: bool) -> None:
        self.is_held_back = is_held_back
        self.reads_on.set() if not is_held_back else self.reads_on.clear()

    def is_reading(self) -> bool:
        return not self.is_held_back

    def _make_room(self) -> bool:
        if self.can_make_room:
            self.account.give_back(LARGE)
        return self.can_make_room


@pytest.fixture
def everything() -> InFlight:
    return InFlight(ROOM, lambda _: ServerQuota(max_in_flight_bytes=None))


async def test_a_large_message_is_reserved_when_its_header_has_come(everything: InFlight) -> None:
    wire = Wire(everything)
    wire.arriving.feed(frame(LARGE)[:20])
    assert wire.account.held == LARGE
    wire.arriving.feed(frame(LARGE)[20:])
    assert wire.arriving.take() == LARGE  # it is the taker's now
    assert wire.account.held == LARGE
    assert not wire.arriving.waits_for_room


async def test_a_small_message_is_not_reserved_and_neither_is_one_that_came_at_once(everything: InFlight) -> None:
    wire = Wire(everything)
    wire.arriving.feed(frame(FREE_BYTES)[:-1])
    assert wire.account.held == 0
    wire.arriving.feed(frame(FREE_BYTES)[-1:] + frame(LARGE))
    assert (wire.arriving.take(), wire.arriving.take(), wire.account.held) == (0, 0, 0)
    wire.arriving.feed(frame(3) + frame(LARGE)[:20])
    wire.arriving.feed(frame(LARGE)[20:] + frame(5))
    assert [wire.arriving.take() for _ in range(3)] == [0, LARGE, 0]


async def test_one_that_the_library_refuses_is_not_reserved(everything: InFlight) -> None:
    wire = Wire(everything, most=LARGE)
    wire.arriving.feed(frame(LARGE + 1)[:20])
    assert (wire.account.held, wire.is_held_back) == (0, False)


async def test_fragments_are_reserved_as_they_are_announced(everything: InFlight) -> None:
    wire = Wire(everything)
    wire.arriving.feed(frame(FREE_BYTES, final=False))
    assert wire.account.held == 0
    wire.arriving.feed(frame(1000, opcode=0, final=False))
    assert wire.account.held == FREE_BYTES + 1000
    wire.arriving.feed(frame(500_000, opcode=0, final=False)[:-1])
    assert wire.account.held == FREE_BYTES + 501_000
    wire.arriving.feed(b"\xff" + frame(0, opcode=0))
    assert wire.arriving.take() == FREE_BYTES + 501_000


async def test_without_room_nothing_is_read_until_there_is_some(everything: InFlight) -> None:
    first, second = Wire(everything), Wire(everything)
    first.arriving.feed(frame(LARGE)[:20])
    second.arriving.feed(frame(LARGE, final=False)[:20])
    assert second.is_held_back
    assert second.arriving.waits_for_room
    second.arriving.feed(b"\xff" * 10)  # was on the way
    first.account.close()
    async with asyncio.timeout(5):
        await second.reads_on.wait()
    assert second.account.held == LARGE
    assert not second.arriving.waits_for_room


async def test_one_whose_rest_came_meanwhile_waits_no_more(everything: InFlight) -> None:
    first, second = Wire(everything), Wire(everything)
    first.arriving.feed(frame(LARGE)[:20])
    second.arriving.feed(frame(LARGE)[:20])
    second.arriving.feed(frame(LARGE)[20:])
    async with asyncio.timeout(5):
        await second.reads_on.wait()
    assert (second.arriving.take(), second.account.held) == (0, 0)
    first.account.close()
    assert everything.total == 0


async def test_one_that_finds_no_room_in_time_takes_that_of_its_request_and_else_ends_its_connection(
    everything: InFlight,
) -> None:
    wire = Wire(everything, room_seconds=0.01)
    wire.account.hold(LARGE)  # of the request that the message belongs to
    wire.arriving.feed(frame(LARGE)[:20])
    assert "no room" in await wire.ended.get()
    assert wire.account.held == LARGE
    other = Wire(everything, room_seconds=0.01)
    wire.account.close()
    other.account.hold(LARGE)
    other.can_make_room = True
    other.arriving.feed(frame(LARGE)[:20])
    async with asyncio.timeout(5):
        await other.reads_on.wait()
    assert other.account.held == LARGE
    assert other.ended.empty()


async def test_one_that_can_never_have_room_ends_its_connection_at_once(everything: InFlight) -> None:
    wire = Wire(everything)
    wire.arriving.feed(frame(2 * ROOM)[:20])
    async with asyncio.timeout(5):
        assert "no room" in await wire.ended.get()


async def test_the_end_of_the_connection_ends_its_wait(everything: InFlight) -> None:
    for closes_account in (False, True):
        wire = Wire(everything)
        wire.account.hold(LARGE)
        wire.arriving.feed(frame(LARGE)[:20])
        wire.account.close() if closes_account else wire.arriving.close()
        async with asyncio.timeout(5):
            await wire.reads_on.wait()
        assert wire.ended.empty()
        wire.account.close()
    assert everything.total == 0


@pytest.mark.parametrize("size", [1, 2, LARGE], ids=["a part of a header", "a control frame", "a large frame"])
async def test_an_unfinished_frame_has_a_deadline(
    everything: InFlight, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("meshhost.server.wire.arriving._LOOK_SECONDS", 0.005)
    wire = Wire(everything)
    wire.arriving._arrivals = Arrivals(seconds=0.02, bytes_per_second=1e9)
    wire.arriving.feed(frame(LARGE)[:1] if size == 1 else frame(9, opcode=9)[:-1] if size == 2 else frame(LARGE)[:-1])
    async with asyncio.timeout(5):
        assert await wire.ended.get() == LATE


async def test_a_finished_one_has_none(everything: InFlight, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshhost.server.wire.arriving._LOOK_SECONDS", 0.005)
    wire, late = Wire(everything), Wire(everything)
    wire.arriving._arrivals = late.arriving._arrivals = Arrivals(seconds=0.02, bytes_per_second=1e9)
    wire.arriving.feed(frame(9, opcode=9)[:-1])
    wire.arriving.feed(b"\xff")
    late.arriving.feed(b"\x82")
    async with asyncio.timeout(5):
        await late.ended.get()
    assert wire.ended.empty()


@pytest.mark.parametrize(
    "idle",
    [frame(0, opcode=9), frame(125, opcode=10), frame(0, opcode=0, final=False)],
    ids=["pings", "pongs", "pieces"],
)
async def test_too_many_frames_that_carry_nothing_end_the_connection_and_the_rest_is_dropped(
    everything: InFlight, idle: bytes
) -> None:
    wire = Wire(everything)
    assert wire.arriving.feed(frame(1, final=False))
    assert not wire.arriving.feed(idle * 10_000)
    assert "too many" in wire.ended.get_nowait()
    assert not wire.arriving.feed(frame(LARGE))
    assert wire.account.held == 0


async def test_who_sends_too_many_before_it_is_served_is_ended_when_it_is(everything: InFlight) -> None:
    wire = Wire(everything)
    wire.arriving.attach(make_room=lambda: False, end=lambda _: None)
    assert not wire.arriving.feed(frame(0, opcode=9) * 10_000)
    wire.arriving.attach(make_room=lambda: False, end=wire.ended.put_nowait)
    assert "too many" in wire.ended.get_nowait()


async def test_a_few_pings_a_second_may_be_sent_for_ever(everything: InFlight, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("meshhost.server.wire.arriving.time.monotonic", lambda: now[0])
    wire = Wire(everything)
    for _ in range(1000):
        assert wire.arriving.feed(frame(0, opcode=9) * 10)
        now[0] += 1.0
    assert not wire.arriving.feed(frame(0, opcode=9) * (IDLE_FRAMES + 20))
