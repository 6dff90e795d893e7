"""Streams of messages between two participants of SDK 0.56: the tool `stream` of the toolkit `messaging`.

The caller opens a stream and names the addressee in its first chunk. The addressee gets that chunk like a call of a tool of its
own, accepts it or not, and then both send messages until one closes, or leaves. The chunks are passed on as they are
(`tool_streams.py`); what only the server can say is said here: that the stream was accepted, and why it ended.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import Field, ValidationError

from meshhost.errors import InvalidRequestError, RequestTimeoutError
from meshhost.identity.grants import ApiScope
from meshhost.protocol import contents
from meshhost.protocol.messages import Header, unpack_response
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Capability, Event
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.services.agents.calls import Call, CallAnswer, PendingCalls
from meshhost.server.services.agents.in_room import Rooms
from meshhost.server.services.agents.tool_streams import ToolStream
from meshhost.server.services.asking import note_asked
from meshhost.validation import invalid_request

__all__ = ["MessageStreams"]

FIRST_SECONDS = 30.0
_RESERVED = ("messaging.", "participant.")

Wait = Callable[[PendingCalls, Call, str], Awaitable[CallAnswer]]


class _Stream(Body):
    stream: str = Field(min_length=1, max_length=128)


class _First(Body):
    to_participant_id: str
    type: str = Field(max_length=256)
    message_json: str
    attachment_base64: str | None = None


class MessageStreams:
    """The operation that opens a stream. `wait` waits for the answer to a call, at most `call_seconds`."""

    def __init__(self, rooms: Rooms, *, wait: Wait, call_seconds: float) -> None:
        self._rooms = rooms
        self._wait = wait
        self._call_seconds = call_seconds

    def operations(self) -> Operations:
        """The operations by name."""
        return {"messaging.stream": Operation(_Stream, self._stream, _may_send)}

    def _stream(self, request: Request, body: _Stream) -> Any:
        streams = self._rooms.of(request.room).streams
        stream = streams.begin(request, body.stream, has_input=True)
        stream.ends_with_input = True
        stream.first = asyncio.get_running_loop().create_future()
        return self._serve(request, stream)

    async def _serve(self, request: Request, stream: ToolStream) -> Answer:
        mine = self._rooms.of(request.room)
        try:
            first = await self._first(stream)
            target = request.room.member(first.to_participant_id)
            call = self._ask(request, stream, target, first)
            stream.asked(target, "messaging", call, lambda: mine.calls.extend(call, self._call_seconds))
            answer, payload = await self._wait(mine.calls, call, "the participant")
            if not contents.is_open(answer):
                return unpack_response(answer, payload)
            stream.farewell = _farewell_of(target)
            await stream.open([contents.json_content({"kind": "accepted", "stream_id": stream.id})])
            await stream.wait_ended(idle=self._call_seconds)
            return None
        finally:
            mine.streams.end(stream)

    async def _first(self, stream: ToolStream) -> _First:
        assert stream.first is not None
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                chunk = await stream.first
        except TimeoutError:
            raise RequestTimeoutError(f"no first message came within {FIRST_SECONDS:g} s") from None
        if chunk.get("type") != "json":
            raise InvalidRequestError("chunk", "expected JSON content")
        try:
            first = _First.model_validate(chunk.get("json"))
        except ValidationError as error:
            raise invalid_request(error, prefix="chunk.json") from None
        if first.type.startswith(_RESERVED):
            raise InvalidRequestError("type", "this message type is the room server's own")
        return first

    @staticmethod
    def _ask(request: Request, stream: ToolStream, target: Participant, first: _First) -> Call:
        peer = target.peer
        if peer is None or Capability.TOOL_STREAMS not in peer.capabilities:
            raise InvalidRequestError(
                "to_participant_id", "the client of this participant takes no streams of messages"
            )
        note_asked(target, request.participant.id)
        call: Header = {
            "toolkit": "messaging",
            "name": "stream",
            "arguments": {},
            "content": contents.OPEN,
            "caller_id": request.participant.id,
            "tool_call_id": stream.id,
        }
        message_id = peer.tell(Event("agent.tool_call", call, b"", request.message.trace))
        message = {**first.model_dump(), "from_participant_id": request.participant.id}
        chunk = {"toolkit": "messaging", "tool_call_id": stream.id, "chunk": contents.json_content(message)}
        peer.tell(Event("agent.tool_call_request_chunk", chunk))
        return Call(target, message_id, peer, request.participant)


def _farewell_of(target: Participant) -> Callable[[str | None], Sequence[Header]]:
    def farewell(problem: str | None) -> Sequence[Header]:
        if problem is None:
            return [contents.close()]
        left = {"kind": "client_disconnected", "participant_id": target.id}
        closed = {"kind": "closed", "reason": "client_disconnected", "message": problem}
        return [*map(contents.json_content, [left, closed]), contents.close()]

    return farewell


def _may_send(scope: ApiScope, _: Body) -> bool:
    return scope.messaging is not None and scope.messaging.send
