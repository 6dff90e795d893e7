"""`OutgoingCall`: the caller's side of a voice call by messages of the room, for programs, demos and tests.

    async with OutgoingCall(room=room, agent=await voice_agent(room)) as call:
        await call.send(sound)
        async for happened in call:   # Sound, VoiceState, Line, Cleared
            ...

The program gives sound of any length and gets what the agent says. It plays the sound itself; at `Cleared` it drops what it has
not played yet. `send` paces nothing: a program that reads a file sends it as fast as it would be spoken.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from meshhost.errors import InvalidRequestError, NotFoundError, RoomError
from meshhost.room.participants import Participant, RemoteParticipant
from meshhost.room.services.messaging import RoomMessage
from meshhost.voice import messages
from meshhost.voice.absence import Absence
from meshhost.voice.audio import SAMPLE_BYTES, Sound, check_rate
from meshhost.voice.carrier import VoiceState
from meshhost.voice.transcript import Line

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["Cleared", "Happened", "OutgoingCall", "voice_agent"]

ANSWER_SECONDS = 30.0
# Sound that may wait for a program that does not take it: a minute.
_MAX_WAITING = 3_000


@dataclass(frozen=True, slots=True)
class Cleared:
    """The agent stopped speaking: what was received and not played is dropped."""


Happened: TypeAlias = Sound | VoiceState | Line | Cleared


async def voice_agent(
    room: "RoomClient", name: str | None = None, *, timeout: float = ANSWER_SECONDS
) -> RemoteParticipant:
    """Return the participant with this name that supports voice (None: any), as soon as it is in the room.

    The room's messaging must be enabled. Raises NotFoundError after `timeout` seconds.
    """
    changed = asyncio.Event()

    def on_change(participant: Participant) -> None:
        changed.set()

    events = ("participant_added", "participant_attributes_updated")
    for event in events:
        room.messaging.on(event, on_change)
    try:
        async with asyncio.timeout(timeout):
            while True:
                changed.clear()
                for each in room.messaging.remote_participants:
                    if each.get_attribute("supports_voice") and name in (None, each.get_attribute("name")):
                        return each
                await changed.wait()
    except TimeoutError:
        who = "no agent" if name is None else f"no agent {name!r}"
        raise NotFoundError(f"{who} with a voice is in this room") from None
    finally:
        for event in events:
            room.messaging.off(event, on_change)


class OutgoingCall:
    """Calls a voice bot. `rate` is that of the sound in both directions, `transcript_path` a thread for the transcript.

    Entering it raises RoomError when the agent does not answer or refuses. `end_reason` is set when the agent ended the call.
    """

    def __init__(
        self,
        *,
        room: "RoomClient",
        agent: Participant,
        rate: int = 16_000,
        transcript_path: str | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.rate = check_rate(rate)
        self.end_reason: str | None = None
        self._room = room
        self._agent = agent
        self._transcript_path = transcript_path
        self._answer_seconds = answer_seconds
        self._happened: deque[Happened] = deque(maxlen=_MAX_WAITING)
        self._changed = asyncio.Event()
        self._is_answered = False
        self._is_over = False
        self._sent = 0
        self._absence = Absence(room, agent.id, lambda: self._end("the agent has left"))

    def __repr__(self) -> str:
        return f"<OutgoingCall {self.id} answered={self._is_answered} over={self._is_over}>"

    async def __aenter__(self) -> Self:
        self._room.messaging.on("message", self._on_message)
        self._absence.start()
        try:
            await self._call()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._room.messaging.off("message", self._on_message)
        self._absence.stop()
        await self.hang_up()

    async def send(self, sound: Sound) -> None:
        """Say this. Raises RoomError when the agent cannot be reached, ValueError for another rate."""
        if sound.rate != self.rate:
            raise ValueError(f"expected sound at {self.rate} Hz, got {sound.rate} Hz")
        most = self.rate * messages.MAX_AUDIO_MS // 1000 * SAMPLE_BYTES
        for begin in range(0, len(sound.pcm), most):
            if self._is_over:
                return
            body = {"call_id": self.id, "seq": self._sent}
            self._sent += 1
            await self._tell(messages.AUDIO, body, sound.pcm[begin : begin + most])

    async def hang_up(self) -> None:
        """End the call. Idempotent."""
        if not self._is_over:
            self._end(None)
            try:
                await self._tell(messages.END, {"call_id": self.id})
            except RoomError:  # the agent, or we, have left: that ends the call as well
                return

    async def __aiter__(self) -> AsyncIterator[Happened]:
        """Yield what happens, until the call is over."""
        while True:
            while self._happened:
                yield self._happened.popleft()
            if self._is_over:
                return
            await self._wait()

    async def _call(self) -> None:
        body = {"call_id": self.id, "transport": "messages", "rate": self.rate, "breakout_room": ""}
        if self._transcript_path is not None:
            body["transcript_path"] = self._transcript_path
        try:
            async with asyncio.timeout(self._answer_seconds):
                await self._tell(messages.CALL, body)
                while not self._is_answered and not self._is_over:
                    await self._wait()
        except TimeoutError:
            name = self._agent.get_attribute("name") or self._agent.id
            raise RoomError(f"agent {name!r} did not answer the call: is it a voice bot?") from None
        if self._is_over:
            raise RoomError(self.end_reason or "the agent has left")

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _tell(self, type: str, body: dict[str, object], attachment: bytes | None = None) -> None:
        await self._room.messaging.send_message(to=self._agent, type=type, message=body, attachment=attachment)

    def _on_message(self, message: RoomMessage) -> None:
        if message.from_participant_id != self._agent.id or message.message.get("call_id") != self.id:
            return
        try:
            self._take(message)
        except (InvalidRequestError, ValueError) as error:
            self._end(f"the agent sent what is no voice call: {error}")

    def _take(self, message: RoomMessage) -> None:
        body = message.message
        match message.type:
            case messages.ANSWER:
                self._is_answered = True
            case messages.AUDIO:
                self._happened.append(messages.audio_in(message, self.rate))
            case messages.CLEAR:
                self._happened.append(Cleared())
            case messages.STATE:
                self._happened.append(VoiceState(body.get("state", "")))
            case messages.LINE:
                self._happened.append(messages.line_in(body))
            case messages.END:
                self._end(str(body.get("reason") or "the agent has ended the call"))
            case _:
                return
        self._changed.set()

    def _end(self, reason: str | None) -> None:
        if not self._is_over:
            self._is_over, self.end_reason = True, reason
        self._changed.set()
