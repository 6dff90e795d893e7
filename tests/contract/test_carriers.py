"""What every carrier of a voice call keeps: the rules in the docstring of `meshhost.voice.carrier`.

Each implementation has a `Line`: a carrier and the caller at its other end, who speaks and counts what reaches its ear.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest
from doubles.counted_carrier import CountedCarrier
from doubles.voice_stages import tone

from meshhost.room.events import EventEmitter
from meshhost.room.participants import RemoteParticipant
from meshhost.room.services.messaging import RoomMessage
from meshhost.testing.clock import FakeClock
from meshhost.voice import Line, Speaker, VoiceState
from meshhost.voice.audio import FRAME_MS, Sound, frame_bytes
from meshhost.voice.carrier import Carrier
from meshhost.voice.carriers.messages import MessageCarrier

RATE = 16_000


class Far(Protocol):
    """The caller at the other end."""

    carrier: Carrier

    async def say(self, sound: Sound) -> None:
        """Let the caller say this."""
        ...

    async def heard_ms(self) -> float:
        """How much of a voice has reached the caller's machine."""
        ...

    async def hang_up(self) -> None:
        """Let the caller end the call."""
        ...

    async def pass_time(self, ms: float) -> None:
        """Let so much time go by, in which the caller is silent."""
        ...


class CountedFar:
    def __init__(self) -> None:
        self.carrier = CountedCarrier(RATE, lead=12)

    async def say(self, sound: Sound) -> None:
        await self.carrier.say(sound)

    async def heard_ms(self) -> float:
        return float(self.carrier.heard_frames * FRAME_MS)

    async def hang_up(self) -> None:
        self.carrier.hang_up()

    async def pass_time(self, ms: float) -> None:
        await self.carrier.wait(ms)


class FakeRoom:
    """A room in which one participant is played by the test."""

    def __init__(self) -> None:
        self.messaging = self
        self.events = EventEmitter(lambda coroutine, name: coroutine.close())
        self.on, self.off = self.events.on, self.events.off
        self.sent: list[RoomMessage] = []

    async def send_message(self, *, to: Any, type: str, message: Any, attachment: bytes | None = None) -> None:
        self.sent.append(RoomMessage(to.id, type, message, attachment))
        await asyncio.sleep(0)


class MessageFar:
    def __init__(self) -> None:
        self.room = FakeRoom()
        caller = RemoteParticipant(id="ann")
        self.clock = FakeClock()
        self.carrier = MessageCarrier(self.room, caller, "c", RATE, self.clock, None)  # type: ignore[arg-type]

    async def say(self, sound: Sound) -> None:
        self._emit("voice_audio", sound.pcm)

    async def heard_ms(self) -> float:
        return sum(
            len(each.attachment or b"") / 2 * 1000 / RATE for each in self.room.sent if each.type == "voice_audio"
        )

    async def hang_up(self) -> None:
        self._emit("voice_end")

    async def pass_time(self, ms: float) -> None:
        for _ in range(round(ms / FRAME_MS)):
            await self.clock.advance(FRAME_MS / 1000)

    def _emit(self, type: str, attachment: bytes | None = None) -> None:
        self.room.events.emit("message", message=RoomMessage("ann", type, {"call_id": "c"}, attachment))


@asynccontextmanager
async def counted() -> AsyncIterator[Far]:
    yield CountedFar()


@asynccontextmanager
async def by_messages() -> AsyncIterator[Far]:
    far = MessageFar()
    await far.carrier.open()
    yield far
    await far.carrier.close()


@pytest.fixture(params=[counted, by_messages], ids=lambda one: one.__name__)
async def far(request: pytest.FixtureRequest) -> AsyncIterator[Far]:
    async with request.param() as made:
        yield made


async def taken(far: Far) -> list[Sound]:
    return [frame async for frame in far.carrier.frames()]


async def test_what_the_caller_says_comes_in_frames_until_it_hangs_up(far: Far) -> None:
    taking = asyncio.create_task(taken(far))
    await asyncio.sleep(0)
    sound = tone(0.5, 100, RATE)
    await far.say(sound)
    await far.hang_up()
    async with asyncio.timeout(5):
        frames = await taking
    assert [len(frame.pcm) for frame in frames] == [frame_bytes(RATE)] * 5
    assert b"".join(frame.pcm for frame in frames) == sound.pcm


async def test_frames_end_when_the_carrier_is_closed(far: Far) -> None:
    taking = asyncio.create_task(taken(far))
    await asyncio.sleep(0)
    await far.carrier.close("over")
    await far.carrier.close()
    async with asyncio.timeout(5):
        assert await taking == []


async def test_the_voice_is_not_far_ahead_of_the_ear(far: Far) -> None:
    played = 0

    async def play() -> None:
        nonlocal played
        for _ in range(100):
            await far.carrier.play(tone(0.5, FRAME_MS, RATE))
            played += 1

    listening = asyncio.create_task(taken(far))
    playing = asyncio.create_task(play())
    await far.pass_time(200)
    assert played * FRAME_MS <= 200 + 300
    assert 0 < far.carrier.unheard_ms <= 300
    playing.cancel()
    await far.hang_up()
    await asyncio.wait({playing, listening})


async def test_what_was_cleared_is_dropped_and_counted(far: Far) -> None:
    listening = asyncio.create_task(taken(far))
    for _ in range(5):
        await far.carrier.play(tone(0.5, FRAME_MS, RATE))
    assert far.carrier.unheard_ms > 0
    dropped = await far.carrier.clear()
    assert 0 < round(dropped) <= 5 * FRAME_MS
    assert far.carrier.unheard_ms == 0
    assert await far.carrier.clear() == 0
    before = await far.heard_ms()
    await far.pass_time(100)
    assert await far.heard_ms() == before
    await far.hang_up()
    await listening


async def test_a_play_that_waits_ends_when_it_is_cleared_and_its_frame_counts_as_dropped(far: Far) -> None:
    listening = asyncio.create_task(taken(far))
    given = 0

    async def play() -> None:
        nonlocal given
        while True:
            given += 1
            await far.carrier.play(tone(0.5, FRAME_MS, RATE))

    playing = asyncio.create_task(play())
    await asyncio.sleep(0.02)
    count = given
    playing.cancel()
    await asyncio.wait({playing})
    waiting = asyncio.create_task(far.carrier.play(tone(0.5, FRAME_MS, RATE)))
    await asyncio.sleep(0)
    assert not waiting.done()
    dropped = await far.carrier.clear()
    async with asyncio.timeout(5):
        await waiting
    assert dropped >= (count + 1) * FRAME_MS - 60  # what was heard meanwhile
    await far.hang_up()
    await listening


async def test_played_returns_when_all_was_heard(far: Far) -> None:
    listening = asyncio.create_task(taken(far))
    for _ in range(3):
        await far.carrier.play(tone(0.5, FRAME_MS, RATE))
    waiting = asyncio.create_task(far.carrier.played())
    await asyncio.sleep(0)
    assert not waiting.done()
    await far.pass_time(100)
    async with asyncio.timeout(5):
        await waiting
    assert far.carrier.unheard_ms == 0
    await far.hang_up()
    await listening


async def test_after_the_end_nothing_fails_or_waits(far: Far) -> None:
    await far.hang_up()
    assert await taken(far) == []
    await far.carrier.close()
    async with asyncio.timeout(5):
        for _ in range(3):
            await far.carrier.play(tone(0.5, FRAME_MS, RATE))
        await far.carrier.clear()
        await far.carrier.played()
        await far.carrier.show(VoiceState.SPEAKING)
        await far.carrier.caption(Line(Speaker.AGENT, "too late", 1.0, 2.0))


async def test_a_caller_by_messages_who_takes_nothing_has_no_call_any_more() -> None:
    far = MessageFar()
    await far.carrier.open()

    async def never(**_: Any) -> None:
        await asyncio.Event().wait()

    far.room.send_message = never  # type: ignore[method-assign]
    for _ in range(2_000):
        await far.carrier.show(VoiceState.THINKING)
    async with asyncio.timeout(5):
        assert await taken(far) == []
        await far.carrier.close()
