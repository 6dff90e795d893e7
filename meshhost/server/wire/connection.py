"""One participant's connection: reads requests, runs them, and replies exactly once to each.

`Connection` implements `Peer` over a transport. It joins packets to messages (`protocol/connection.py`), lets the dialect's
translator name the operation, and hands the request to the dispatcher. The handshake (`http/sockets.py`) makes it and awaits
`serve()`, which returns when the connection has ended.

Tasks: `serve()` runs in the task of the HTTP request and reads. It owns a writer (the outbox), a task that waits for `close()`,
and one task for each request that has to wait, or for those that are answered together (`gathering.py`); requests that only
touch memory are answered by the reader itself. When the reader or the writer ends, all of them are cancelled. Events and
replies go through the outbox, so a message is never torn apart by the cancellation of the task that sent it.

A client that knows the extension "cancel_request" says which of its requests it gave up: `request.cancel {"id": message id}`.
The task of that request is then cancelled. If its answer is on the way already, the services take back what it handed over
(`GivenUp`), before the client's next request is read.

Invariant: a request whose handling has begun is answered, also when the connection is closed by this side meanwhile. A
MeshAgent client waits for ever for an answer that the end of the connection swallowed. Only a request that its client gave up
gets no answer.

Longer than 400 lines because reading, requests in progress and the end of a connection share their state.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from meshhost.errors import (
    ConnectionLostError,
    LimitExceededError,
    QuotaExceededError,
    RemoteProtocolError,
    RoomError,
)
from meshhost.protocol.connection import MalformedMessage, MessageReceived, RoomConnection, packed_notice
from meshhost.protocol.frames import SERVER_SLICE, Limits, Packets
from meshhost.protocol.messages import ErrorResponse, Header, Response
from meshhost.quotas.in_flight import Account
from meshhost.quotas.rates import MAX_PAUSE
from meshhost.server.core.dispatch import Dispatcher, Gatherable
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Capability, CloseReason, Event, Peer
from meshhost.server.core.requests import Answer, Request
from meshhost.server.core.room import Room
from meshhost.server.core.slots import Slots
from meshhost.server.wire.arriving import Arrivals, Arriving
from meshhost.server.wire.dialect import Translator, Welcome
from meshhost.server.wire.failures import error_answer, first_of
from meshhost.server.wire.gathering import Gathered
from meshhost.server.wire.inbox import Inbox
from meshhost.transport.base import Transport
from meshhost.transport.outbox import Outbox

__all__ = ["CANCEL_REQUEST", "Connection", "GivenUp", "Pulse"]

logger = logging.getLogger(__name__)

FLUSH_TIMEOUT = 5.0
# A message that has already arrived is read without a pause: after this many, other tasks get a turn.
MESSAGES_A_TURN = 64

CANCEL_REQUEST = "request.cancel"
"""The operation with which a client gives up one of its requests."""

GivenUp = Callable[[Room, Participant, Peer, int], None]
"""Called with the message id of a request that was given up after it was answered."""


class Pulse(Protocol):
    """How it is known that the client lives; see `Peer` for the first two. `transport.heartbeat.Heartbeat` is one."""

    @property
    def heard_at(self) -> float:
        """When anything came last, on the clock of the event loop."""
        ...

    def probe(self, *, patience: float) -> float:
        """Ask for a sign of life. Returns the present time."""
        ...

    def stop(self) -> None:
        """The connection has ended. Idempotent."""
        ...


class Connection:
    """See `Peer`. `max_requests` bounds the requests in progress, `max_waiting_bytes` what waits to be sent.

    `received` and `sent` are its accounts of bytes in flight, `arriving` reserves room in the former for what is being
    received, and `arrivals` watches that its messages arrive in time. `given_up` is called for a request that its client gave
    up too late: the answer has been sent. A participant that is disconnected has `flush_timeout` seconds to receive its last
    messages. `pause` says how many seconds the reader waits before the next message; it also waits after a request that was
    refused for the tenant's rate. Messages are sent in packets of at most `slice_bytes`.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        room: Room,
        participant: Participant,
        dispatch: Dispatcher,
        translator: Translator,
        limits: Limits,
        max_requests: int,
        max_waiting_bytes: int,
        received: Account,
        sent: Account,
        arrivals: Arrivals,
        arriving: Arriving | None = None,
        given_up: GivenUp = lambda *_: None,
        heartbeat: Pulse | None = None,
        flush_timeout: float = FLUSH_TIMEOUT,
        pause: Callable[[], float] = lambda: 0.0,
        slice_bytes: int = SERVER_SLICE,
    ) -> None:
        self._transport, self._heartbeat = transport, heartbeat
        self._room, self._participant = room, participant
        self._dispatch = dispatch
        self._translator = translator
        self._protocol = RoomConnection(limits=limits, slice_bytes=slice_bytes)
        self._inbox = Inbox(
            transport, self._protocol, account=received, arrivals=arrivals, late=self._end_late, arriving=arriving
        )
        self._sent = sent
        self._outbox = Outbox(transport, max_bytes=max_waiting_bytes, budget=sent)
        self._slots: Slots = {}
        self._free_requests = asyncio.Semaphore(max_requests)
        self._given_up = given_up
        self._flush_timeout = flush_timeout
        self._pause = pause
        self._refused_for = 0.0
        # With those of its requests that have no answer yet.
        self._running: dict[asyncio.Task[None], list[Request]] = {}
        # Takes the requests that are read before it begins.
        self._gathering: Gathered | None = None
        # Those whose handler has not returned yet, with the message id: the client may still cancel them.
        self._handling: dict[asyncio.Task[None], int] = {}
        self._closing: tuple[CloseReason, str] | None = None
        self._close_asked = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Connection of {self._participant.name!r} to {self._room.key}>"

    @property
    def slots(self) -> Slots:
        """See Peer."""
        return self._slots

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See Peer."""
        return self._translator.capabilities

    @property
    def closing(self) -> CloseReason | None:
        """See Peer."""
        return None if self._closing is None else self._closing[0]

    @property
    def heard_at(self) -> float:
        """See Peer."""
        return math.inf if self._heartbeat is None else self._heartbeat.heard_at

    def probe(self, *, patience: float) -> float:
        """See Peer."""
        return 0.0 if self._heartbeat is None else self._heartbeat.probe(patience=patience)

    async def serve(self) -> ConnectionLostError:
        """Serve until the connection ends, and return how it ended. Requests in progress are cancelled then."""
        end = ConnectionLostError()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._outbox.run(), name="connection writer")
                tasks.create_task(self._wait_close(), name="connection close")
                await self._read(tasks)
        except* ConnectionLostError as group:
            end = first_of(group)
        except* RemoteProtocolError as group:
            error = first_of(group)
            logger.warning("participant broke the protocol", extra={"reason": str(error)})
            await self._transport.close(error.close_code, str(error))
            end = ConnectionLostError(str(error), close_code=error.close_code)
        finally:
            if self._heartbeat is not None:  # its reader may have ended elsewhere than in reading
                self._heartbeat.stop()
            self._inbox.close()
            self._sent.close()
        return end

    def greet(self, welcome: Welcome) -> None:
        """Send the messages that greet a participant; before any event."""
        for message_type, header, payload in self._translator.greeting(welcome):
            self._send(message_type, header, payload)

    def tell(self, event: Event) -> int:
        """See Peer."""
        packed = event.packed.get(self._translator)
        if packed is None:
            packed = self._pack(event)
            event.packed[self._translator] = packed
        return self._offer(*self._protocol.notify_packed(*packed))

    async def send(self, event: Event) -> None:
        """See Peer."""
        _, packets = self._protocol.notify_packed(*self._pack(event))
        await self._outbox.put(packets)

    def _pack(self, event: Event) -> tuple[str, bytes, bytes]:
        message_type, header, payload = self._translator.event(event)
        return message_type, packed_notice(header, event.trace or None), payload

    def close(self, reason: CloseReason, text: str) -> None:
        """See Peer."""
        if self._closing is None:
            self._closing = (reason, text)
            self._close_asked.set()

    async def reply(
        self,
        message_id: int,
        operation: str,
        response: Response,
        extra: Header | None = None,
        *,
        reserved: int = 0,
    ) -> None:
        """See Peer. An answer over the limit becomes an error."""
        response, extra = self._translator.answer(operation, response, extra)
        try:
            packets = self._protocol.reply(message_id, response, extra)
            del response  # it may be large, and wait long
            reserved, held = 0, reserved
            await self._outbox.put(packets, reserved=held)
        except LimitExceededError as error:
            refusal, _ = self._translator.answer(operation, ErrorResponse(text=str(error), code=error.code), None)
            await self._outbox.put(self._protocol.reply(message_id, refusal))
        finally:
            self.give_back(reserved)

    async def reserve(self, size: int) -> None:
        """See Peer."""
        await self._sent.reserve(size)

    def give_back(self, size: int) -> None:
        """See Peer."""
        if size:
            self._sent.give_back(size)

    async def flush(self) -> None:
        """See Peer."""
        await self._outbox.wait_empty()

    def _send(self, type: str, header: Header, payload: bytes, trace: dict[str, str] | None = None) -> int:
        return self._offer(*self._protocol.notify(type, header, payload, trace=trace or None))

    def _offer(self, message_id: int, packets: Packets) -> int:
        try:
            self._outbox.offer(packets)
        except LimitExceededError:
            self.close(CloseReason.TOO_SLOW, "too slow: too many messages wait for this participant")
        return message_id

    def _end_late(self, why: str) -> None:
        self.close(CloseReason.TOO_SLOW, why)

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        turn = 0
        while True:
            if (seconds := max(self._pause(), self._refused_for)) > 0:
                self._refused_for = 0.0
                await asyncio.sleep(seconds)
            received, held = await self._inbox.receive()
            turn = (turn + 1) % MESSAGES_A_TURN
            if turn == 0:
                await asyncio.sleep(0)
            if received is None:
                continue
            is_in_progress = False
            try:
                if isinstance(received, MessageReceived):
                    request = await self._translate(received)
                    if request is not None:
                        is_in_progress = await self._begin(tasks, request, held)
                elif isinstance(received, MalformedMessage):
                    request = await self._translate(MessageReceived(received.id, received.type, {}, b"", {}))
                    if request is not None:
                        await self._answer(request, self._unreadable(request, received.error))
            finally:
                if not is_in_progress:
                    self._inbox.release(held)
                del received  # the next message may take long to come

    async def _translate(self, message: MessageReceived) -> Request | None:
        try:
            operation, translated = self._translator.request(message)
        except RoomError as error:
            await self.reply(message.id, message.type, error_answer(error, message))
            return None
        return Request(self._room, self._participant, self, translated, operation)

    def _unreadable(self, request: Request, error: RoomError) -> Answer:
        try:
            return self._dispatch.unreadable(request, error)
        except Exception as bug:  # noqa: BLE001 - as in _begin
            return error_answer(bug, request.message)

    async def _begin(self, tasks: asyncio.TaskGroup, request: Request, held: int) -> bool:
        """Answer the request, or begin to: True, and then the `held` bytes of its message are released at the end."""
        if request.operation == CANCEL_REQUEST:
            self._cancel(request.message.header.get("id"))
            return False
        try:
            answer = self._dispatch(request)
        except Exception as error:  # noqa: BLE001 - a handler's bug must not end the connection
            if isinstance(error, QuotaExceededError):
                self._refused_for = min(error.retry_after or 0.0, MAX_PAUSE)
            answer = error_answer(error, request.message)
        if isinstance(answer, Gatherable):
            return await self._gather(tasks, request, answer, held)
        self._gathering = None  # what comes after this one is not answered with what came before
        if not isinstance(answer, Coroutine):
            await self._answer(request, answer)
            return False
        with contextlib.ExitStack() as unless_begun:
            unless_begun.callback(answer.close)
            if not await self._find_place(request):
                return False
            unless_begun.pop_all()
        task = tasks.create_task(self._finish(request, answer), name=f"request {request.message.type}")

        def end(_: asyncio.Task[None]) -> None:
            answer.close()  # when the connection ends before the task has run at all, nobody else does
            self._inbox.release(held)
            del self._running[task]
            self._handled(task)  # a task that is cancelled before its first step never runs `_finish`

        task.add_done_callback(end)
        self._running[task] = [request]
        self._handling[task] = request.message.id
        return True

    async def _find_place(self, request: Request) -> bool:
        """Wait until one more request may be in progress. False: the connection is closing, and it was refused."""
        await self._free_requests.acquire()
        if self._closing is None:
            return True
        self._free_requests.release()
        await self._refuse(request)
        return False

    async def _finish(self, request: Request, answering: Coroutine[Any, Any, Answer]) -> None:
        try:
            answer = await answering
            self._dispatch.finished(request)
        except Exception as error:  # noqa: BLE001 - as above
            self._dispatch.finished(request, error)
            answer = error_answer(error, request.message)
        except asyncio.CancelledError as error:
            self._dispatch.finished(request, error)
            raise
        finally:
            self._handled(asyncio.current_task())
        await self._answer(request, answer)

    async def _gather(self, tasks: asyncio.TaskGroup, request: Request, found: Gatherable, held: int) -> bool:
        """Have the request answered together with those of this turn of the loop. Returns as `_begin` does."""
        if not await self._find_place(request):
            return False
        gathered = self._gathering
        if gathered is None or not gathered.takes(found):
            gathered = self._gathering = Gathered(found.operation, free=self._free_requests.release)
            task = tasks.create_task(self._finish_gathered(gathered), name=f"requests {request.message.type}")
            self._running[task] = gathered.requests
            task.add_done_callback(partial(self._end_gathered, gathered))
        gathered.add(request, found, held)
        return True

    async def _finish_gathered(self, gathered: Gathered) -> None:
        self._gathering = None
        for answer in await gathered.answers(self._dispatch):
            await self._answer(gathered.requests[0], answer)
            del gathered.requests[0]  # only now: an answer that waits for room may be cancelled

    def _end_gathered(self, gathered: Gathered, task: asyncio.Task[None]) -> None:
        gathered.release()
        self._inbox.release(gathered.held)
        del self._running[task]

    def _handled(self, task: asyncio.Task[None] | None) -> None:
        """The handler has returned: give its slot to another request. What remains is to send the answer."""
        if task is not None and self._handling.pop(task, None) is not None:
            self._free_requests.release()

    def _cancel(self, message_id: object) -> None:
        """The client gave up the request of this id. An id that no request has is ignored, as a late reply is by the client."""
        for task, handled_id in self._handling.items():
            if handled_id == message_id:
                task.cancel()
                return
        if isinstance(message_id, int):
            self._given_up(self._room, self._participant, self, message_id)

    async def _answer(self, request: Request, answer: Answer) -> None:
        if answer is None:
            return
        response, extra = answer if isinstance(answer, tuple) else (answer, None)
        await self.reply(request.message.id, request.operation, response, extra)

    async def _wait_close(self) -> None:
        await self._close_asked.wait()
        assert self._closing is not None
        reason, text = self._closing
        try:
            async with asyncio.timeout(self._flush_timeout):
                await self._end_requests()
                await self._outbox.wait_empty()
        except TimeoutError:
            logger.info("participant did not take its last messages", extra={"participant": self._participant.name})
        code = self._translator.close_code(reason)
        if code is None:
            self._transport.abort()
        else:
            await self._transport.close(code, text)
        raise ConnectionLostError(text, clean=True, close_code=code)

    async def _end_requests(self) -> None:
        running = dict(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for task, requests in running.items():
            for request in requests if task.cancelled() else ():
                await self._refuse(request)

    async def _refuse(self, request: Request) -> None:
        assert self._closing is not None
        await self._answer(request, ErrorResponse(text=self._closing[1], code=ConnectionLostError.code))
