"""Calls whose contents stream: chunks go from the caller to the provider, from the provider to the caller, or both ways.

Clients of SDK 0.56 may send the arguments of a call as a stream of chunks and may get such a stream as its answer. A call that
may stream has a `ToolStream` as long as the caller's request is handled. The task of that request owns it: it asks the
provider, replies when the provider opens its stream, and then waits for the end (`wait_ended`). Chunks are requests of their
own and are passed on in their own tasks, one after the other for each direction.

Nothing is buffered here. A chunk stays a request in progress of its sender until the receiver's connection has room for it, so
the sender's budget holds it and its connection is not read when too many wait. A receiver that takes nothing for STALL_SECONDS
ends the stream, since all that its sender does waits with it.

A stream ends when the provider closes it, when a participant of the two loses its connection, when it stalls, or when the
provider owes a chunk and sends none for the time in which a call has to be answered. Whatever the reason, both sides are told.
The id by which the provider knows a stream is the server's own: nobody can guess it, and callers cannot collide.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from meshhost.errors import ConnectionLostError, InvalidRequestError, LimitExceededError, RoomError
from meshhost.protocol import contents
from meshhost.protocol.messages import EmptyResponse, Header
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Event, Peer
from meshhost.server.core.requests import Request
from meshhost.server.services.agents.calls import Call

__all__ = ["MAX_STREAMS", "ToolStream", "ToolStreams"]

MAX_STREAMS = 64
"""Streams that one connection may have open as a caller. Each is one of its requests in progress."""
STALL_SECONDS = 15.0
LEFT = "the participant that was called has left the room"


def _closing(problem: str | None) -> Sequence[Header]:
    return [contents.close(problem)]


class ToolStream:
    """One call. `key` is the caller's name of it. `farewell` makes the last chunks for the caller, given what is wrong."""

    def __init__(self, request: Request, key: str, *, has_input: bool) -> None:
        self.id = uuid.uuid4().hex
        self.key = key
        self.caller_peer: Peer = request.peer
        self.provider: Participant | None = None
        self.provider_peer: Peer | None = None
        self.farewell: Callable[[str | None], Sequence[Header]] = _closing
        # The end of its input is the end of the stream.
        self.ends_with_input = False
        # Resolved with the first chunk of the input, which is then not passed on.
        self.first: asyncio.Future[Header] | None = None
        self.has_input = has_input
        self.is_open = False
        self._request = request
        self._input_closed = not has_input
        self._toolkit = ""
        self._call: Call | None = None
        self._goes_on: Callable[[], None] = lambda: None
        self._moved = 0
        self._asked, self._opened, self._ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._inward, self._outward = asyncio.Lock(), asyncio.Lock()
        self._problem: str | None = None
        self._is_caller_told = False

    def asked(self, provider: Participant, toolkit: str, call: Call, goes_on: Callable[[], None]) -> None:
        """The provider was sent this call. `goes_on` is called when it gets a chunk: it needs more time to answer."""
        self.provider, self.provider_peer = provider, call.peer
        self._toolkit, self._call, self._goes_on = toolkit, call, goes_on
        self._asked.set()
        if self._problem is not None:  # it failed while the provider was looked for
            call.answer.set_exception(RoomError(self._problem))

    async def open(self, first: Sequence[Header] = ()) -> None:
        """The provider answers with a stream: reply so, and send these chunks before its own. Raises ConnectionLostError."""
        self.is_open = True
        await self._request.reply(EmptyResponse(), contents.OPEN)
        for chunk in first:
            self._tell_caller(chunk)
        self._opened.set()

    async def wait_ended(self, *, idle: float) -> None:
        """Wait for the end, and tell the caller. A provider that owes a chunk has `idle` seconds for it, or twice that."""
        while not self._ended.is_set():
            moved = self._moved
            try:
                async with asyncio.timeout(idle):
                    await self._ended.wait()
            except TimeoutError:
                if self._input_closed and moved == self._moved:
                    self.fail(f"the stream was idle for {idle:g} s")
        if not self._is_caller_told:
            self._is_caller_told = True
            for chunk in self.farewell(self._problem):
                self._tell_caller(chunk)

    async def take_input(self, chunk: Any, payload: bytes) -> None:
        """Pass a chunk of the caller on to the provider, when that was asked. One that is no content ends the stream."""
        if not isinstance(chunk, dict):
            self.fail("chunk: expected a content")
            return
        async with self._inward:
            if self._input_closed or self._ended.is_set():
                return
            closes = contents.closes(chunk)
            if self.first is not None and not self.first.done():
                self._take_first(chunk, closes=closes)
                return
            await self._asked.wait()
            if self._ended.is_set() or self.provider_peer is None:
                return
            self._input_closed = closes
            await self._send(self.provider_peer, self._input_event(chunk, payload), "the participant that was called")
            self._goes_on()
            if closes and self.ends_with_input:
                self.end()

    async def take_output(self, chunk: Any, payload: bytes) -> None:
        """Pass a chunk of the provider on to the caller, behind the answer if that was given."""
        if not isinstance(chunk, dict):
            self.fail("chunk: expected a content")
            return
        async with self._outward:
            if self._call is not None and self._call.answer.done():
                await self._opened.wait()
            if self._ended.is_set():
                return
            if contents.closes(chunk) and self.is_open:
                self._is_caller_told = True
            event = Event("agent.tool_call_response_chunk", {"tool_call_id": self.key, "chunk": chunk}, payload)
            await self._send(self.caller_peer, event, "the caller")
            if contents.closes(chunk) and self.is_open:
                self.end()

    def fail(self, problem: str) -> None:
        """Something went wrong: end the stream. Idempotent: the first problem counts."""
        if not self._ended.is_set():
            self._problem = problem
            self.end()
            if self._call is not None and not self._call.answer.done():
                self._call.answer.set_exception(RoomError(problem))
        if self.first is not None and not self.first.done():
            self.first.set_exception(RoomError(problem))

    def end(self) -> None:
        """The stream is over: nothing waits for it any more. Idempotent."""
        for event in (self._ended, self._asked, self._opened):
            event.set()

    def closed(self) -> None:
        """The request is done with, or its caller gave up: tell the provider that no more input comes. Idempotent."""
        self.end()
        provider, peer = self.provider, self.provider_peer
        if self._input_closed or provider is None or peer is None or provider.peer is not peer:
            return
        self._input_closed = True
        peer.tell(self._input_event(contents.close(self._problem), b""))

    def is_call(self, message_id: int) -> bool:
        """Whether the provider knows this call by a message id."""
        return self._call is not None and self._call.key == message_id

    def _take_first(self, chunk: Header, *, closes: bool) -> None:
        assert self.first is not None
        if closes:
            self.fail("the stream was closed before its first chunk")
        else:
            self.first.set_result(chunk)

    def _input_event(self, chunk: Header, payload: bytes) -> Event:
        body = {"toolkit": self._toolkit, "tool_call_id": self.id, "chunk": chunk}
        return Event("agent.tool_call_request_chunk", body, payload)

    def _tell_caller(self, chunk: Header) -> None:
        self.caller_peer.tell(Event("agent.tool_call_response_chunk", {"tool_call_id": self.key, "chunk": chunk}))

    async def _send(self, peer: Peer, event: Event, who: str) -> None:
        self._moved += 1
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await peer.send(event)
        except TimeoutError:
            self.fail(f"{who} took no chunk for {STALL_SECONDS:g} s")
        except ConnectionLostError:
            self.fail(f"{who} has left the room")
        except LimitExceededError as error:
            self.fail(f"a chunk is too large: {error}")


class ToolStreams:
    """The calls of one room that may stream."""

    def __init__(self) -> None:
        self._by_id: dict[str, ToolStream] = {}
        self._by_caller: dict[tuple[Peer, str], ToolStream] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def begin(self, request: Request, key: str, *, has_input: bool) -> ToolStream:
        """A call that may stream. Raises InvalidRequestError for a key that another one has, LimitExceededError."""
        if (request.peer, key) in self._by_caller:
            raise InvalidRequestError("tool_call_id", "expected one that names no other call of this connection")
        if has_input:
            self.check_room(request.peer)
        stream = ToolStream(request, key, has_input=has_input)
        self._by_id[stream.id] = self._by_caller[request.peer, key] = stream
        return stream

    def check_room(self, caller: Peer) -> None:
        """Raise LimitExceededError when a connection has too many streams open."""
        mine = [each for each in self._by_id.values() if each.caller_peer is caller]
        if sum(each.has_input or each.is_open for each in mine) >= MAX_STREAMS:
            raise LimitExceededError(f"over {MAX_STREAMS} streams are open: close some")

    def end(self, stream: ToolStream) -> None:
        """The request of a stream is done with. Idempotent."""
        if self._by_id.pop(stream.id, None) is not None:
            del self._by_caller[stream.caller_peer, stream.key]
            stream.closed()

    def of_caller(self, peer: Peer, key: str) -> ToolStream | None:
        """The stream that a caller knows by a key."""
        return self._by_caller.get((peer, key))

    def of_provider(self, peer: Peer, stream_id: str) -> ToolStream | None:
        """The stream that a provider knows by an id."""
        stream = self._by_id.get(stream_id)
        return stream if stream is not None and stream.provider_peer is peer else None

    def disconnected(self, peer: Peer) -> None:
        """A connection ended: end its streams."""
        for stream in list(self._by_id.values()):
            if stream.caller_peer is peer:
                self.end(stream)
            elif stream.provider_peer is peer:
                stream.fail(LEFT)

    def input_unreadable(self, peer: Peer, error: RoomError) -> None:
        """A chunk of a caller could not be read, and so it is not known of which stream it was: none of them is whole."""
        for stream in list(self._by_id.values()):
            if stream.caller_peer is peer and stream.has_input:
                stream.fail(f"a chunk could not be read: {error}")

    def output_unreadable(self, peer: Peer, message_id: int, error: RoomError) -> None:
        """A chunk of a provider could not be read; it has the message id of its call."""
        for stream in list(self._by_id.values()):
            if stream.provider_peer is peer and stream.is_call(message_id):
                stream.fail(f"a chunk could not be read: {error}")
