"""One participant's connection: reads requests, runs them, replies exactly once to each.

Which task runs when: `serve()` owns a reader, a writer (the outbox) and one task for each request that has to wait for
something. Requests that only touch memory are answered by the reader itself. When reader or writer ends, all end.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from meshhost.errors import ConnectionLostError, LimitExceededError, RemoteProtocolError, RoomError
from meshhost.protocol.connection import MalformedMessage, MessageReceived, RoomConnection
from meshhost.protocol.frames import SERVER_SLICE, Limits
from meshhost.protocol.messages import ErrorResponse, Header, Response, wire_safe
from meshhost.server.core.calls import ANSWERS
from meshhost.server.core.participants import Participant
from meshhost.server.core.room import Room
from meshhost.server.wire.dialect import SDK_06, Dialect
from meshhost.stores.queues import HolderId, Lease
from meshhost.transport.base import Transport
from meshhost.transport.outbox import Outbox

__all__ = ["Answer", "Connection", "Request"]

logger = logging.getLogger(__name__)

CLOSE_SLOW = 1013
FLUSH_TIMEOUT = 5.0
# A message that has arrived is read without a pause: after so many, everybody else has a turn.
MESSAGES_A_TURN = 16

E = TypeVar("E", bound=BaseException)

Answer = Response | tuple[Response, Header] | None


@dataclass(frozen=True, slots=True)
class Request:
    """A message of a participant: who asked what, in which room.

    `operation` is what is asked for, by the server's name; `message.type` is what the client calls it.
    """

    room: Room
    participant: Participant
    connection: Connection
    message: MessageReceived
    operation: str


# Answers at once, or with an awaitable that does. None: the message gets no reply.
Dispatch = Callable[[Request], Answer | Coroutine[Any, Any, Answer]]


class Connection:
    """A participant's open connection to its room."""

    def __init__(
        self,
        transport: Transport,
        *,
        room: Room,
        participant: Participant,
        dispatch: Dispatch,
        limits: Limits,
        max_requests: int,
        max_waiting_bytes: int,
        dialect: Dialect = SDK_06,
    ) -> None:
        self._dialect = dialect
        self._transport = transport
        self.room = room
        self.participant = participant
        # For queue clients without leases: who holds, what they have not settled yet, how many receives wait.
        self.holder = HolderId(uuid.uuid4().hex)
        self.unsettled: dict[str, list[Lease]] = {}
        self.parked = 0
        self._dispatch = dispatch
        self._protocol = RoomConnection(limits=limits, slice_bytes=SERVER_SLICE)
        self._outbox = Outbox(transport, max_bytes=max_waiting_bytes)
        self._slots = asyncio.Semaphore(max_requests)
        self._running: dict[asyncio.Task[None], int] = {}
        self._closing: tuple[int, str] | None = None
        self._closed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Connection of {self.participant.name!r} to {self.room.key}>"

    @property
    def is_closing(self) -> bool:
        """Whether this side ends the connection."""
        return self._closing is not None

    async def serve(self) -> ConnectionLostError:
        """Serve until the connection ends; returns how. Requests under way are cancelled then."""
        end = ConnectionLostError()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._outbox.run(), name="connection writer")
                tasks.create_task(self._wait_close(), name="connection close")
                await self._read(tasks)
        except* ConnectionLostError as group:
            end = _first(group)
        except* RemoteProtocolError as group:
            error = _first(group)
            logger.warning("participant broke the protocol", extra={"reason": str(error)})
            await self._transport.close(error.close_code, str(error))
            end = ConnectionLostError(str(error), close_code=error.close_code)
        return end

    def tell(self, type: str, header: Header, payload: bytes = b"", *, trace: dict[str, str] | None = None) -> int:
        """Send an event; returns its message's id. A participant that takes nothing any more is disconnected."""
        message_id, packets = self._protocol.notify(self._dialect.type_of(type), header, payload, trace=trace or None)
        try:
            self._outbox.offer(packets)
        except LimitExceededError:
            self.close(CLOSE_SLOW, "too slow: too many messages wait for this participant")
        return message_id

    def close(self, code: int, reason: str) -> None:
        """End the connection soon: requests under way are answered with an error, and what waits is sent.

        The first call counts.
        """
        if self._closing is None:
            self._closing = (code, reason)
            self._closed.set()

    async def reply(self, message_id: int, response: Response, extra: Header | None = None) -> None:
        """Answer a request. A body over the limit is answered as an error."""
        try:
            packets = self._protocol.reply(message_id, wire_safe(response), extra)
        except LimitExceededError as error:
            packets = self._protocol.reply(message_id, ErrorResponse(text=str(error), code=error.code))
        await self._outbox.put(packets)

    async def flush(self) -> None:
        """Return when all that was sent so far is handed to the operating system."""
        await self._outbox.wait_empty()

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        turn = 0
        while True:
            event = self._protocol.receive(await self._transport.receive())
            turn = (turn + 1) % MESSAGES_A_TURN
            if turn == 0:
                await asyncio.sleep(0)
            if isinstance(event, MessageReceived):
                await self._begin(tasks, event)
            elif isinstance(event, MalformedMessage):
                error = ErrorResponse(text=str(event.error), code=event.error.code)
                if event.type in ANSWERS:
                    self.room.calls.answer_unreadable(self.participant, event.id, error)
                else:
                    await self.reply(event.id, error)

    async def _begin(self, tasks: asyncio.TaskGroup, message: MessageReceived) -> None:
        operation = self._dialect.operation(message.type)
        try:
            answer = self._dispatch(Request(self.room, self.participant, self, message, operation))
        except Exception as error:  # noqa: BLE001 - a handler's bug must not end the connection
            answer = _error(error, message)
        if not isinstance(answer, Coroutine):
            await self._answer(message, answer)
            return
        try:
            await self._slots.acquire()
        except asyncio.CancelledError:
            answer.close()
            raise
        if self._closing is not None:
            answer.close()
            self._slots.release()
            await self._refuse(message.id)
            return
        task = tasks.create_task(self._finish(message, answer), name=f"request {message.type}")
        # When the connection ends before the task ran at all, nobody else closes the coroutine.
        task.add_done_callback(lambda _: answer.close())
        self._running[task] = message.id
        task.add_done_callback(self._running.pop)

    async def _finish(self, message: MessageReceived, answering: Coroutine[Any, Any, Answer]) -> None:
        try:
            answer = await answering
        except Exception as error:  # noqa: BLE001 - as above
            answer = _error(error, message)
        finally:
            self._slots.release()
        await self._answer(message, answer)

    async def _answer(self, message: MessageReceived, answer: Answer) -> None:
        if answer is None:
            return
        response, extra = answer if isinstance(answer, tuple) else (answer, None)
        await self.reply(message.id, response, extra)

    async def _wait_close(self) -> None:
        await self._closed.wait()
        code, reason = self._closing or (1000, "")
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                await self._end_requests()
                await self._outbox.wait_empty()
        except TimeoutError:
            logger.info("participant did not take its last messages", extra={"participant": self.participant.name})
        await self._transport.close(code, reason)
        raise ConnectionLostError(reason, clean=True, close_code=code)

    async def _end_requests(self) -> None:
        # A MeshAgent client waits for ever for an answer that the end of the connection swallowed.
        running = dict(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for task, message_id in running.items():
            if task.cancelled():
                await self._refuse(message_id)

    async def _refuse(self, message_id: int) -> None:
        _, reason = self._closing or (0, "the connection ends")
        await self.reply(message_id, ErrorResponse(text=reason, code=ConnectionLostError.code))


def _error(error: Exception, message: MessageReceived) -> Response:
    if isinstance(error, RoomError):
        return ErrorResponse(text=str(error) or type(error).__name__, code=error.code)
    logger.error("request failed", exc_info=error, extra={"message_type": message.type})
    return ErrorResponse(text=f"{message.type} failed inside the room server; its log says why")


def _first(group: BaseExceptionGroup[E]) -> E:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
