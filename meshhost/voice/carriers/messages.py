"""`MessageCarrier`: a voice call by messages of the room, the way that needs nothing but a room (`meshhost.voice.messages`).

Two tasks touch a carrier: the room client's read loop calls `_on_message`, which never waits, and the thinker
plays. A third, `_send_all`, is the carrier's own: it takes what was played out of `_outgoing` and sends it, several frames to a
message, each when the one before has been passed on. Control messages go through the same queue, so that the caller gets
everything in the order in which it happened. The pace is that of `Playhead`.

Only messages of the caller itself count: another participant cannot speak in its call or end it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from meshhost.clock import Clock, SystemClock
from meshhost.errors import AccessDeniedError, InvalidRequestError, NotFoundError, RoomError
from meshhost.room.participants import RemoteParticipant
from meshhost.room.services.messaging import RoomMessage
from meshhost.tasks import LightEvent, TaskOwner, until
from meshhost.voice import messages
from meshhost.voice.absence import Absence
from meshhost.voice.audio import Sound, check_rate
from meshhost.voice.carrier import VoiceCall, VoiceState
from meshhost.voice.inbox import FrameInbox
from meshhost.voice.pacing import Playhead
from meshhost.voice.transcript import Line

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["MessageCarrier", "MessageConnector"]

logger = logging.getLogger(__name__)

DEFAULT_RATE = 16_000
# A caller sends at least a sign of life in this time; one whose connection is lost may come back within it.
IDLE_SECONDS = 30.0
# Sound is sent this far ahead of the caller's ear: enough for a network that stutters, and all that an interruption leaves over
# at a caller that does not know `voice_clear`.
LEAD_MS = 240
_CLOSE_SECONDS = 5.0
# Frames and messages that wait to be sent: half a minute of sound. A caller who takes none of it has no call any more.
_MAX_WAITING = 1_500


class MessageConnector:
    """Carries calls of `transport: "messages"`. `idle_seconds` without any sound from the caller end a call."""

    transport = "messages"

    def __init__(self, *, idle_seconds: float = IDLE_SECONDS, clock: Clock | None = None) -> None:
        self._idle_seconds = idle_seconds
        self._clock = clock or SystemClock()

    async def connect(self, call: VoiceCall) -> "MessageCarrier":
        """Answer the call. Raises InvalidRequestError, RoomError."""
        rate = check_rate(call.options.get("rate", DEFAULT_RATE))
        if call.options.get("participant_id") not in (None, call.caller.id):
            raise InvalidRequestError("participant_id", "a call by messages is with its sender")
        carrier = MessageCarrier(call.room, call.caller, call.id, rate, self._clock, self._idle_seconds)
        await carrier.open()
        return carrier


class MessageCarrier:
    """One voice call by messages of the room."""

    def __init__(
        self,
        room: "RoomClient",
        caller: RemoteParticipant,
        call_id: str,
        rate: int,
        clock: Clock,
        idle_seconds: float | None,
    ) -> None:
        self._room = room
        self._caller = caller
        self._call_id = call_id
        self._rate = rate
        self._clock = clock
        self._inbox = FrameInbox(rate, call_id=call_id, idle_seconds=idle_seconds)
        self._playhead = Playhead(clock, lead_ms=LEAD_MS)
        self._outgoing: deque[Sound | tuple[str, dict[str, Any]]] = deque()
        self._changed = asyncio.Event()
        self._cleared = LightEvent()  # set, and replaced, when what was played is dropped
        self._ended = LightEvent()
        self._sent = 0
        self._received = -1
        self._tasks = TaskOwner(f"voice call {call_id}")
        self._absence = Absence(room, caller.id, self._end)

    def __repr__(self) -> str:
        return f"<MessageCarrier {self._call_id!r} rate={self._rate} ended={self._ended.is_set()}>"

    @property
    def rate(self) -> int:
        """The rate that the caller asked for."""
        return self._rate

    @property
    def unheard_ms(self) -> float:
        """What was played and not heard, by the clock."""
        return self._playhead.unheard_ms

    async def open(self) -> None:
        """Begin the call. Raises RoomError when the caller cannot be reached."""
        self._room.messaging.on("message", self._on_message)
        self._absence.start()
        try:
            await self._send(messages.ANSWER, {"rate": self._rate})
        except BaseException:
            self._forget()
            raise
        self._tasks.spawn(self._send_all(), name="sender")

    def frames(self) -> AsyncIterator[Sound]:
        """Yield the caller's sound."""
        return aiter(self._inbox)

    async def play(self, frame: Sound) -> None:
        """Send a frame, not far ahead of the caller's ear."""
        if self._ended.is_set():
            return
        self._put(frame)
        self._playhead.sent(frame)
        if (seconds := self._playhead.seconds_to_wait) > 0:
            await until(self._cleared, self._clock.sleep(seconds))

    async def clear(self) -> float:
        """Stop the voice."""
        if self._ended.is_set():
            return self._playhead.drop()
        dropped = self._playhead.drop()
        kept = [item for item in self._outgoing if not isinstance(item, Sound)]
        self._outgoing.clear()
        self._outgoing.extend(kept)
        if dropped:
            self._control(messages.CLEAR, {})
        cleared, self._cleared = self._cleared, LightEvent()
        cleared.set()
        return dropped

    async def played(self) -> None:
        """Return when all was heard, was dropped, or the call is over."""
        while not self._ended.is_set() and (left := self._playhead.unheard_ms) > 0:
            await until(self._cleared, self._clock.sleep(left / 1000))

    async def show(self, state: VoiceState) -> None:
        """Send the state."""
        self._control(messages.STATE, {"state": state.value})

    async def caption(self, line: Line) -> None:
        """Send a line."""
        self._control(messages.LINE, messages.line_message(line))

    async def close(self, reason: str | None = None) -> None:
        """End the call, and tell the caller unless it has gone."""
        was_ended = self._ended.is_set()
        self._end()
        await self._tasks.stop(timeout=_CLOSE_SECONDS)
        if not was_ended:
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._send(messages.END, {} if reason is None else {"reason": reason})
            except (RoomError, TimeoutError) as error:
                logger.info(
                    "the end of a call was not reported to its caller",
                    extra={"voice_call": self._call_id, "reason": str(error)},
                )

    def _control(self, type: str, body: dict[str, Any]) -> None:
        if not self._ended.is_set():
            self._put((type, body))

    def _put(self, item: Sound | tuple[str, dict[str, Any]]) -> None:
        if len(self._outgoing) >= _MAX_WAITING:
            logger.warning("a caller takes nothing of its voice call", extra={"voice_call": self._call_id})
            self._outgoing.clear()
            self._end()
            return
        self._outgoing.append(item)
        self._changed.set()

    async def _send_all(self) -> None:
        while not self._ended.is_set():
            while self._outgoing:
                await self._send_next()
            self._changed.clear()
            await self._changed.wait()

    async def _send_next(self) -> None:
        item = self._outgoing.popleft()
        try:
            if isinstance(item, Sound):
                await self._send_audio(item)
            else:
                await self._send(*item)
        except NotFoundError:  # the caller has left the room
            self._end()
        except AccessDeniedError as error:
            logger.warning("a voice call is not allowed", extra={"voice_call": self._call_id, "reason": str(error)})
            self._end()
        except RoomError as error:
            # Lost with a connection that comes back; a caller who does not come back is missed by its silence.
            logger.info("a part of a voice call was lost", extra={"voice_call": self._call_id, "reason": str(error)})

    async def _send_audio(self, first: Sound) -> None:
        pcm, ms = bytearray(first.pcm), first.ms
        while self._outgoing and isinstance(following := self._outgoing[0], Sound) and ms < LEAD_MS:
            self._outgoing.popleft()
            pcm += following.pcm
            ms += following.ms
        body = {"seq": self._sent}
        self._sent += 1
        await self._send(messages.AUDIO, body, bytes(pcm))

    async def _send(self, type: str, body: dict[str, Any], attachment: bytes | None = None) -> None:
        body = {"call_id": self._call_id, **body}
        await self._room.messaging.send_message(to=self._caller, type=type, message=body, attachment=attachment)

    def _on_message(self, message: RoomMessage) -> None:
        if message.from_participant_id != self._caller.id or message.message.get("call_id") != self._call_id:
            return
        match message.type:
            case messages.AUDIO:
                self._take(message)
            case messages.END:
                self._end()
            case _:
                pass

    def _take(self, message: RoomMessage) -> None:
        seq = message.message.get("seq")
        if isinstance(seq, int):
            if seq <= self._received:
                return
            self._received = seq
        try:
            self._inbox.put(messages.audio_in(message, self._rate))
        except InvalidRequestError as error:
            logger.warning("sound of a caller refused", extra={"voice_call": self._call_id, "reason": str(error)})

    def _end(self) -> None:
        self._ended.set()
        self._inbox.close()
        self._changed.set()
        self._cleared.set()
        self._forget()

    def _forget(self) -> None:
        self._room.messaging.off("message", self._on_message)
        self._absence.stop()
