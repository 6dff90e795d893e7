"""`WebCall`: one voice call between a web page and an agent, relayed.

The page's socket carries PCM16 as binary messages and everything else as JSON; to the agent its caller is a participant like
any other, a `Visitor`. Two tasks: `run` reads the socket and passes on what the page says, `_write` writes what waits in
`_outgoing`. `report` is called by the room with each event, and must not wait.

What comes in is taken at the pace of speech: a page that sends faster is not read, so that it can neither flood the agent nor
starve other callers. What goes out is bounded: a page that does not read loses its call. Whatever ends first (page, agent,
token, server) ends the call, and the other side is told the reason.
"""

import asyncio
import contextlib
import json
import time
import uuid
from collections import deque
from typing import Any

from aiohttp import WSMsgType, web

from meshhost.errors import InvalidRequestError, MeshhostError, NotFoundError, QuotaExceededError
from meshhost.protocol.voice_messages import AUDIO, CALL, END, MAX_AUDIO_MS, PREFIX
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Event
from meshhost.server.core.room import Room
from meshhost.server.core.visitor import Visitor
from meshhost.tasks import LightEvent, Stopped, TaskOwner, until

__all__ = ["WebCall"]

# An agent of a configured service may have to be called into the room first.
AGENT_SECONDS = 30.0
_LOOK_SECONDS = 0.1
# An agent whose connection was lost may come back within this time.
AGENT_LOST_SECONDS = 5.0
_LOST_LOOK_SECONDS = 1.0
# Sound that a page may send ahead of time, such as after its connection stood still.
_AHEAD_SECONDS = 2.0
# What may wait for the page: ten seconds of sound, or many small messages.
_MAX_WAITING = 500
_MAX_WAITING_BYTES = 2 * 1024 * 1024
_WRITE_SECONDS = 20.0
_QUOTA_PAUSE = 0.2
# After a text that is not understood: a page has no reason to send many.
_TEXT_PAUSE = 0.05
_MESSAGE = "messaging.message"


class WebCall:
    """A call of the page behind `socket` to the agent of this name."""

    def __init__(self, socket: web.WebSocketResponse, agent_name: str, rate: int, transcript_path: str | None) -> None:
        self._socket = socket
        self._agent_name = agent_name
        self._rate = rate
        self._transcript_path = transcript_path
        self._id = uuid.uuid4().hex
        self._agent_id: str | None = None
        self._outgoing: deque[bytes | str] = deque()
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self._over = LightEvent()
        self._reason: str | None = None
        self._is_agent_over = False
        self._sent = 0
        self._began = 0.0
        self._taken_seconds = 0.0
        self._agent_lost_at: float | None = None

    def report(self, event: Event) -> None:
        """Take an event of the room."""
        if event.name != _MESSAGE or event.body.get("from_participant_id") != self._agent_id:
            return
        kind, body = event.body.get("type", ""), event.body.get("message") or {}
        if kind == "participant.disabled":
            self._agent_lost_at = time.monotonic()
        elif kind == "participant.enabled":
            self._agent_lost_at = None
        elif kind.startswith(PREFIX) and body.get("call_id") == self._id:
            if kind == AUDIO:
                self._put(event.payload)
            elif kind == END:
                self._is_agent_over = True
                self._end(str(body.get("reason") or "the agent has ended the call"))
            else:
                told = {"type": kind.removeprefix(PREFIX), **{k: v for k, v in body.items() if k != "call_id"}}
                try:
                    self._put(json.dumps(told))
                except RecursionError:  # it is nested as deeply as could just be read
                    self._end("the agent sent what cannot be passed on")

    async def run(self, visitor: Visitor) -> None:
        """Hold the call. Raises MeshhostError when it cannot begin or may not go on."""
        await visitor.ask("messaging.enable", {})
        agent = await visitor.within(self._agent_in(visitor.room))
        self._agent_id = agent.id
        call = {"transport": "messages", "rate": self._rate, "breakout_room": ""}
        if self._transcript_path is not None:
            call["transcript_path"] = self._transcript_path
        await self._tell(visitor, CALL, call)
        self._began = time.monotonic()
        tasks = TaskOwner(f"voice call {self._id}")
        tasks.spawn(self._write(), name="writer")
        try:
            await visitor.within(self._listen(visitor))
        finally:
            await tasks.stop()
            if not self._is_agent_over:  # the page hung up or is gone, or its call is ended here
                with contextlib.suppress(MeshhostError):
                    await self._tell(visitor, END, {})

    async def close(self, reason: str | None = None) -> None:
        """Tell the page how the call ended, and close its socket."""
        body = {"type": "end", "reason": reason or self._reason}
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._write_waiting()
                await self._socket.send_str(json.dumps(body))
                await self._socket.close()
        except (ConnectionError, TimeoutError):  # the page is gone, or reads nothing
            return

    async def _agent_in(self, room: Room) -> Participant:
        try:
            async with asyncio.timeout(AGENT_SECONDS):
                while True:
                    for member in room.connected():
                        if member.name == self._agent_name and member.attributes.get("supports_voice"):
                            return member
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise NotFoundError(f"no agent {self._agent_name!r} with a voice is in this room") from None

    async def _listen(self, visitor: Visitor) -> None:
        while not self._over.is_set():
            received = await until(self._over, self._socket.receive())
            if isinstance(received, Stopped):
                return
            message = received.result
            if message.type is WSMsgType.BINARY:
                await self._take(visitor, message.data)
            elif message.type is not WSMsgType.TEXT or _is_end(message.data):
                return
            else:
                await until(self._over, asyncio.sleep(_TEXT_PAUSE))

    async def _take(self, visitor: Visitor, pcm: bytes) -> None:
        seconds = len(pcm) / 2 / self._rate
        if len(pcm) % 2 or seconds * 1000 > MAX_AUDIO_MS:
            raise InvalidRequestError(
                "sound", f"expected whole samples of 16 bits, at most {MAX_AUDIO_MS} ms in a message"
            )
        self._taken_seconds = max(self._taken_seconds, time.monotonic() - self._began - _AHEAD_SECONDS) + seconds
        ahead = self._taken_seconds - (time.monotonic() - self._began)
        if ahead > _AHEAD_SECONDS:
            await until(self._over, asyncio.sleep(ahead - _AHEAD_SECONDS))
        try:
            await self._tell(visitor, AUDIO, {"seq": self._sent}, pcm)
            self._sent += 1
        except QuotaExceededError:
            # A piece is lost: the tenant sends more than it may. To end the call would not make it less.
            await asyncio.sleep(_QUOTA_PAUSE)

    async def _tell(self, visitor: Visitor, type: str, body: dict[str, Any], payload: bytes = b"") -> None:
        message = {"call_id": self._id, **body}
        request = {"to_participant_id": self._agent_id, "type": type, "message": message}
        await visitor.ask("messaging.send", request, payload)

    def _put(self, item: bytes | str) -> None:
        if len(self._outgoing) >= _MAX_WAITING or self._waiting_bytes + len(item) > _MAX_WAITING_BYTES:
            self._end("the page does not read what it is sent")
            return
        self._outgoing.append(item)
        self._waiting_bytes += len(item)
        self._changed.set()

    def _end(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
        self._over.set()

    async def _write(self) -> None:
        try:
            while True:
                await self._write_waiting()
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOST_LOOK_SECONDS):
                        await self._changed.wait()
                if self._agent_lost_at is not None and time.monotonic() - self._agent_lost_at > AGENT_LOST_SECONDS:
                    self._end("the agent has left")
        except (ConnectionError, TimeoutError):
            self._end("the page does not read what it is sent")

    async def _write_waiting(self) -> None:
        while self._outgoing:
            item = self._outgoing.popleft()
            self._waiting_bytes -= len(item)
            async with asyncio.timeout(_WRITE_SECONDS):
                if isinstance(item, bytes):
                    await self._socket.send_bytes(item)
                else:
                    await self._socket.send_str(item)


def _is_end(text: str) -> bool:
    """Whether a message of the page says that it hangs up. Others are left for later versions."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequestError("message", "expected JSON") from None
    return isinstance(message, dict) and message.get("type") == "end"
