"""`LivekitCarrier`: a voice call through a LiveKit server, by WebRTC: the way of MeshAgent's clients, and of telephones.

The bot asks its room for the session of the call's breakout room (`livekit.connect`), joins it with `livekit.rtc`, publishes
one track, and hears the caller's. The caller is recognised by its participant id, which the room server signs into its token as
the identity: nobody else in the session is heard, or can end the call.

LiveKit's library has threads of its own; what they report arrives as callbacks in the event loop, which must not wait. The
library connects again by itself when its connection fails; "disconnected" is final. A caller that is gone may come back within
`leave_seconds`, unless it left on purpose.

`livekit.rtc` is imported when a call is joined. Its queue of sound is kept shorter by us than it could be, so that no frame
waits inside it when `clear` empties it.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from meshhost.errors import RoomError, SettingsError
from meshhost.tasks import LightEvent, TaskOwner, until
from meshhost.voice.audio import FRAME_MS, Sound, check_rate
from meshhost.voice.carrier import VoiceCall, VoiceState
from meshhost.voice.inbox import FrameInbox
from meshhost.voice.transcript import Line

__all__ = ["LivekitCarrier", "LivekitConnector"]

logger = logging.getLogger(__name__)

# What is ahead of the listener's ear, and what LiveKit's queue could take.
_LEAD_MS = 160
_QUEUE_MS = 500
_CLOSE_SECONDS = 5.0
_TELL_SECONDS = 5.0
# The names that LiveKit's own agents and components have for these.
_STATE_ATTRIBUTE = "lk.agent.state"
_CAPTION_TOPIC = "lk.transcription"


class LivekitConnector:
    """Carries calls of `transport: "livekit"`, with the extra `livekit`.

    `rate` is that of the sound in both directions; LiveKit converts. A caller has `join_seconds` to be there.
    """

    transport = "livekit"

    def __init__(self, *, rate: int = 24_000, join_seconds: float = 20.0, leave_seconds: float = 5.0) -> None:
        self._rate = check_rate(rate)
        self._join_seconds = join_seconds
        self._leave_seconds = leave_seconds

    async def connect(self, call: VoiceCall) -> "LivekitCarrier":
        """Join the session, and wait for the caller to join it.

        Raises SettingsError without the extra, AccessDeniedError without the grant, and RoomError when the room server has no
        LiveKit server, this one cannot be reached, or the caller does not come.
        """
        rtc = load_rtc()
        info = await call.room.livekit.get_connection_info(breakout_room=call.breakout_room or None)
        carrier = LivekitCarrier(rtc, call, self._rate, leave_seconds=self._leave_seconds)
        try:
            async with asyncio.timeout(self._join_seconds):
                await carrier.join(info.url, info.token)
        except TimeoutError:
            await carrier.close()
            raise RoomError("livekit: the caller did not join the session in time") from None
        except BaseException:
            await carrier.close()
            raise
        return carrier


def load_rtc() -> Any:
    """The module `livekit.rtc`. Raises SettingsError that says what to install."""
    if find_spec("livekit") is None:
        raise SettingsError("voice through LiveKit needs its library: pip install 'meshhost[livekit]'")
    return import_module("livekit.rtc")


class LivekitCarrier:
    """One voice call in a session of a LiveKit server. `rtc` is the module `livekit.rtc`."""

    def __init__(self, rtc: Any, call: VoiceCall, rate: int, *, leave_seconds: float) -> None:
        self._rtc = rtc
        self._call_id = call.id
        self._caller = call.caller.id
        self._rate = rate
        self._leave_seconds = leave_seconds
        self._room = rtc.Room()
        self._source: Any = None
        self._inbox = FrameInbox(rate, call_id=call.id)
        self._waiting_ms = 0.0  # of a frame that waits in `play`
        self._arrived = asyncio.Event()
        self._cleared = LightEvent()  # set, and replaced, when what was played is dropped
        self._ended = LightEvent()
        self._leaving: asyncio.TimerHandle | None = None
        self._tasks = TaskOwner(f"voice call {call.id}")

    def __repr__(self) -> str:
        return f"<LivekitCarrier {self._call_id!r} rate={self._rate} ended={self._ended.is_set()}>"

    @property
    def rate(self) -> int:
        """The rate of the frames."""
        return self._rate

    @property
    def unheard_ms(self) -> float:
        """What LiveKit's queue has, and what waits for it."""
        queued = 0.0 if self._source is None else self._source.queued_duration * 1000
        return float(queued + self._waiting_ms)

    async def join(self, url: str, token: str) -> None:
        """Join the session, and return when the caller is there. Raises RoomError."""
        rtc, room = self._rtc, self._room
        room.on("track_subscribed", self._on_track)
        room.on("participant_connected", self._on_arrival)
        room.on("participant_disconnected", self._on_departure)
        room.on("disconnected", self._on_disconnected)
        try:
            await room.connect(url, token, rtc.RoomOptions(auto_subscribe=True))
            self._source = rtc.AudioSource(self._rate, 1, queue_size_ms=_QUEUE_MS)
            track = rtc.LocalAudioTrack.create_audio_track("voice", self._source)
            options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
            await room.local_participant.publish_track(track, options)
        except Exception as error:  # the library raises its own, and plain ones
            raise RoomError(f"livekit: the session could not be joined: {error}") from error
        if self._caller not in room.remote_participants:
            await until(self._ended, self._arrived.wait())
        if self._ended.is_set():
            raise RoomError("livekit: the session ended before the caller joined it")

    def frames(self) -> AsyncIterator[Sound]:
        """Yield the caller's sound."""
        return aiter(self._inbox)

    async def play(self, frame: Sound) -> None:
        """Give LiveKit a frame when its queue is short."""
        cleared = self._cleared
        self._waiting_ms += FRAME_MS
        try:
            while not self._ended.is_set() and not cleared.is_set():
                ahead = self._source.queued_duration * 1000
                if ahead <= _LEAD_MS:
                    break
                await until(cleared, asyncio.sleep((ahead - _LEAD_MS / 2) / 1000))
        finally:
            self._waiting_ms = 0.0 if cleared.is_set() else self._waiting_ms - FRAME_MS
        if self._ended.is_set() or cleared.is_set():
            return
        try:
            await self._source.capture_frame(self._rtc.AudioFrame(frame.pcm, self._rate, 1, frame.samples))
        except Exception as error:  # noqa: BLE001 - plain ones of the library, when the session ends meanwhile
            logger.info("a frame was not played", extra={"voice_call": self._call_id, "reason": str(error)})

    async def clear(self) -> float:
        """Stop the voice."""
        dropped = self.unheard_ms
        cleared, self._cleared = self._cleared, LightEvent()
        self._waiting_ms = 0.0
        if self._source is not None and not self._ended.is_set():
            self._source.clear_queue()
        cleared.set()
        return dropped

    async def played(self) -> None:
        """Return when all was heard, was dropped, or the call is over."""
        while not self._ended.is_set() and (left := self.unheard_ms) > 0:
            await until(self._cleared, asyncio.sleep(left / 1000))

    async def show(self, state: VoiceState) -> None:
        """Show the state as an attribute of the bot's participant, as LiveKit's own agents do."""
        if not self._ended.is_set():
            attributes = {_STATE_ATTRIBUTE: state.value}
            self._tell(self._room.local_participant.set_attributes(attributes), "its state")

    async def caption(self, line: Line) -> None:
        """Send a line as a text stream of the topic that LiveKit's components show."""
        if self._ended.is_set():
            return
        attributes = {"lk.transcription_final": "true", "lk.segment_id": f"{line.speaker.value}-{line.began:.3f}"}
        sending = self._room.local_participant.send_text(line.text, topic=_CAPTION_TOPIC, attributes=attributes)
        self._tell(sending, "a line")

    async def close(self, reason: str | None = None) -> None:
        """Leave the session. LiveKit has no word for why: that is told by a message of the room."""
        self._end()
        await self._tasks.stop(timeout=_CLOSE_SECONDS)
        with contextlib.suppress(Exception):  # TimeoutError, and what the library raises
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._room.disconnect()
        if self._source is not None:
            await self._source.aclose()

    def _tell(self, doing: Awaitable[object], what: str) -> None:
        async def tell() -> None:
            try:
                async with asyncio.timeout(_TELL_SECONDS):
                    await doing
            except Exception as error:  # noqa: BLE001 - without the permission, or because the session ends
                fields = {"voice_call": self._call_id, "what": what, "reason": str(error)}
                logger.info("a caller was not shown something", extra=fields)

        self._tasks.spawn(tell(), name=f"show {what}")

    # Callbacks of LiveKit.

    def _on_track(self, track: Any, _: Any, participant: Any) -> None:
        if participant.identity == self._caller and track.kind == self._rtc.TrackKind.KIND_AUDIO:
            self._tasks.spawn(self._hear(track), name="track")

    def _on_arrival(self, participant: Any) -> None:
        if participant.identity == self._caller:
            self._arrived.set()
            if self._leaving is not None:
                self._leaving.cancel()

    def _on_departure(self, participant: Any) -> None:
        if participant.identity != self._caller or self._ended.is_set():
            return
        if participant.disconnect_reason == self._rtc.DisconnectReason.CLIENT_INITIATED:
            self._end()
        else:
            self._leaving = asyncio.get_running_loop().call_later(self._leave_seconds, self._end)

    def _on_disconnected(self, reason: Any = None) -> None:
        self._end()

    async def _hear(self, track: Any) -> None:
        stream = self._rtc.AudioStream(
            track, sample_rate=self._rate, num_channels=1, frame_size_ms=FRAME_MS, capacity=100
        )
        try:
            async for event in stream:
                self._inbox.put(Sound(bytes(event.frame.data), self._rate))
        finally:
            await stream.aclose()

    def _end(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
        self._ended.set()
        self._cleared.set()
        self._inbox.close()
