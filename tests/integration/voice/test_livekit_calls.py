"""Voice calls through LiveKit: the room's tokens, the real media of `livekit.rtc`, and sessions without a server.

What is not shown here is the way over a LiveKit server: there is none to be had as a package (`doubles/livekit_session.py`).
"""

import array
import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doubles.voice_stages import LoudActivity, ToneText, ToneVoice

from meshhost.errors import AccessDeniedError, RoomError, SettingsError
from meshhost.identity.grants import AgentsGrant, ApiScope, MessagingGrant
from meshhost.room.client import RoomClient
from meshhost.room.participants import RemoteParticipant
from meshhost.testing.scripted_llm import ScriptedLLM
from meshhost.testing.server import RunningServer, running_server
from meshhost.voice import Cascade, Line, Sound, Speaker, VoiceBot, VoiceCall, VoiceState
from meshhost.voice.carriers import livekit
from meshhost.voice.carriers.livekit import LivekitCarrier, LivekitConnector

rtc = pytest.importorskip("livekit.rtc")
RATE = 24_000
SECRET = "a-secret-of-thirty-two-characters"


@pytest.fixture
def media(monkeypatch: pytest.MonkeyPatch) -> Any:
    from doubles.livekit_session import livekit_without_server

    for name, value in (("URL", "ws://livekit.example"), ("API_KEY", "key"), ("API_SECRET", SECRET)):
        monkeypatch.setenv(f"LIVEKIT_{name}", value)
    module = livekit_without_server(SECRET)
    monkeypatch.setattr(livekit, "load_rtc", lambda: module)
    return module


@pytest.fixture
async def server(media: Any, tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "data") as running:
        yield running


class Phone:
    """A caller's client: joins the session as MeshAgent's clients do, speaks and hears."""

    def __init__(self, media: Any, room: RoomClient) -> None:
        self._media = media
        self._room = room
        self.session = media.Room()  # of `livekit.rtc`
        self.heard: list[int] = []
        self._source = rtc.AudioSource(RATE, 1, queue_size_ms=5_000)
        self._tasks: list[asyncio.Task[None]] = []

    async def join(self, breakout_room: str) -> None:
        self.session = self._media.Room()
        info = await self._room.livekit.get_connection_info(breakout_room=breakout_room)
        self.session.on("track_subscribed", self._on_track)
        await self.session.connect(info.url, info.token)
        track = rtc.LocalAudioTrack.create_audio_track("mic", self._source)
        await self.session.local_participant.publish_track(track, None)

    def _on_track(self, track: Any, _: Any, participant: Any) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(self._hear(track)))

    async def _hear(self, track: Any) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=20)
        try:
            async for event in stream:
                self.heard.append(max(map(abs, array.array("h", bytes(event.frame.data)))))
        finally:
            await stream.aclose()

    async def say(self, sound: Sound) -> None:
        for begin in range(0, len(sound.pcm), 960):
            pcm = sound.pcm[begin : begin + 960].ljust(960, b"\0")
            await self._source.capture_frame(rtc.AudioFrame(pcm, RATE, 1, 480))

    @property
    def loud(self) -> int:
        """Frames of a voice that were heard."""
        return sum(level > 500 for level in self.heard)

    async def close(self) -> None:
        await self.session.disconnect()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._source.aclose()


@asynccontextmanager
async def phone(media: Any, room: RoomClient) -> AsyncIterator[Phone]:
    own = Phone(media, room)
    try:
        yield own
    finally:
        await own.close()


async def until(holds: Callable[[], Any], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what media of another thread did
            await asyncio.sleep(0.005)


TEXT = ToneText(["hello there", "tell me more"])


def make_bot(*script: Any, **options: Any) -> VoiceBot:
    cascade = Cascade(
        llm_adapter=ScriptedLLM(script), speech_to_text=TEXT, text_to_speech=ToneVoice(), voice_activity=LoudActivity()
    )
    return VoiceBot(name="bot", thinker=cascade, connectors=[LivekitConnector(**options)])


@asynccontextmanager
async def at_work(server: RunningServer, bot: VoiceBot) -> AsyncIterator[RoomClient]:
    """The bot in its room, with a caller."""
    async with server.client(name="bot", role="agent") as room, server.client(name="ann") as ann:
        await bot.start(room=room)
        await ann.messaging.enable()
        yield ann
        await bot.stop()


def bot_of(ann: RoomClient) -> Any:
    return next(each for each in ann.messaging.remote_participants if each.get_attribute("supports_voice"))


async def test_a_caller_of_meshagent_is_answered(server: RunningServer, media: Any) -> None:
    async with at_work(server, make_bot("Good day to you.")) as ann, phone(media, ann) as own:
        await ann.messaging.send_message(to=bot_of(ann), type="voice_call", message={"breakout_room": "b"})
        await own.join("b")
        await until(lambda: own.session.remote_participants)
        await own.say(TEXT.spoken("hello there", RATE))
        await own.say(Sound(bytes(RATE), RATE))
        await until(lambda: own.loud >= 4 * 200 / 20 - 2)
        [bot] = own.session.remote_participants.values()
        await until(lambda: len(bot.texts) == 2 and bot.attributes["lk.agent.state"] == "listening")
        assert [(text, topic) for text, topic, _ in bot.texts] == [
            ("hello there", "lk.transcription"),
            ("Good day to you.", "lk.transcription"),
        ]
        await own.session.disconnect()
        await until(lambda: not any(media.sessions.values()))


async def test_a_bot_leaves_when_livekit_ends_its_connection(server: RunningServer, media: Any) -> None:
    bot = make_bot("Good day.")
    async with at_work(server, bot) as ann, phone(media, ann) as own:
        await ann.messaging.send_message(to=bot_of(ann), type="voice_call", message={"breakout_room": "b"})
        await own.join("b")
        await until(lambda: own.session.remote_participants and bot.activity)
        [session] = media.sessions.values()
        next(each for each in session.values() if each is not own.session).lose()
        await until(lambda: bot.activity is None)


async def test_a_caller_who_does_not_come_is_not_waited_for(server: RunningServer, media: Any) -> None:
    bot = make_bot("Good day.", join_seconds=0.2)
    async with at_work(server, bot) as ann:
        told: asyncio.Queue[Any] = asyncio.Queue()
        ann.messaging.on("message", lambda message: told.put_nowait(message.message))
        await ann.messaging.send_message(to=bot_of(ann), type="voice_call", message={"breakout_room": "b"})
        async with asyncio.timeout(10):
            assert "did not join the session in time" in (await told.get())["reason"]
        await until(lambda: not any(media.sessions.values()))


def call_of(room: Any, caller: str = "ann") -> VoiceCall:
    return VoiceCall("c", room, RemoteParticipant(id=caller), "b", None, None, {})


@pytest.fixture
async def joined(server: RunningServer, media: Any) -> AsyncIterator[tuple[LivekitCarrier, Phone]]:
    """A carrier in a session with its caller."""
    async with (
        server.client(name="bot", role="agent") as room,
        server.client(name="ann") as ann,
        phone(media, ann) as own,
    ):
        await own.join("b")
        connector = LivekitConnector(leave_seconds=0.2)
        carrier = await connector.connect(call_of(room, ann.local_participant.id))
        yield carrier, own
        await carrier.close()


async def test_the_voice_is_not_far_ahead_of_the_ear_and_stops_at_once(joined: tuple[LivekitCarrier, Phone]) -> None:
    carrier, own = joined
    frame = Sound(TEXT.spoken("hello there", RATE).pcm[:960], RATE)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for _ in range(40):
        await carrier.play(frame)
        assert carrier.unheard_ms <= 200
    assert loop.time() - begin == pytest.approx(0.8 - 0.16, abs=0.15)
    playing = asyncio.create_task(carrier.play(frame))
    await asyncio.sleep(0)
    before = carrier.unheard_ms
    assert await carrier.clear() == pytest.approx(before, abs=10)
    await asyncio.wait_for(playing, 1)
    assert carrier.unheard_ms == 0
    await asyncio.sleep(0.1)  # what was on its way in the library
    heard = own.loud
    await asyncio.sleep(0.2)
    assert own.loud == heard
    assert heard <= 41


async def test_what_was_played_is_waited_for(joined: tuple[LivekitCarrier, Phone]) -> None:
    carrier, _ = joined
    frame = Sound(bytes(960), RATE)
    for _ in range(5):
        await carrier.play(frame)
    await asyncio.wait_for(carrier.played(), 2)
    assert carrier.unheard_ms == pytest.approx(0, abs=1)


async def test_a_caller_is_heard_and_nobody_else(
    joined: tuple[LivekitCarrier, Phone], server: RunningServer, media: Any
) -> None:
    carrier, own = joined
    frames: list[Sound] = []

    async def hear() -> None:
        frames.extend([frame async for frame in carrier.frames()])

    hearing = asyncio.create_task(hear())
    async with server.client(name="bob") as bob, phone(media, bob) as other:
        await other.join("b")
        await other.say(TEXT.spoken("tell me more", RATE))
        await own.say(TEXT.spoken("hello there", RATE))
        await asyncio.sleep(0.4)
    await own.session.disconnect()
    await asyncio.wait_for(hearing, 5)
    loud = {round(frame.level / 0.05) for frame in frames if frame.level > 0.02}
    assert loud == {1}
    assert {(frame.rate, frame.ms) for frame in frames} == {(RATE, 20)}


async def test_a_caller_whose_connection_fails_may_come_back(joined: tuple[LivekitCarrier, Phone]) -> None:
    carrier, own = joined
    own.session.lose()
    await own.join("b")
    await asyncio.sleep(0.3)
    assert "ended=False" in repr(carrier)
    own.session.lose()
    await until(lambda: "ended=True" in repr(carrier), 2)


async def test_nothing_fails_after_the_end(joined: tuple[LivekitCarrier, Phone]) -> None:
    carrier, _ = joined
    await carrier.close("bye")
    await carrier.close()
    await carrier.play(Sound(bytes(960), RATE))
    await carrier.clear()
    await carrier.played()
    await carrier.show(VoiceState.SPEAKING)
    await carrier.caption(Line(Speaker.AGENT, "x", 0.0, 0.0))
    assert [frame async for frame in carrier.frames()] == []


async def test_a_bot_without_the_grant_is_told_so(server: RunningServer) -> None:
    scope = ApiScope(messaging=MessagingGrant(), agents=AgentsGrant())
    async with server.client(name="bot", role="agent", scope=scope) as room:
        with pytest.raises(AccessDeniedError, match=r"livekit\.connect"):
            await LivekitConnector().connect(call_of(room))


@pytest.mark.parametrize(("url", "text"), [("http://x", "could not be joined"), ("ws://hangs", "in time")])
async def test_a_session_that_cannot_be_joined_is_an_error(media: Any, url: str, text: str) -> None:
    async def get_connection_info(breakout_room: str | None) -> Any:
        return SimpleNamespace(url=url, token="t")

    room = SimpleNamespace(livekit=SimpleNamespace(get_connection_info=get_connection_info))
    with pytest.raises(RoomError, match=text):
        await LivekitConnector(join_seconds=0.2).connect(call_of(room))


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livekit, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install 'meshhost\[livekit\]'"):
        livekit.load_rtc()
