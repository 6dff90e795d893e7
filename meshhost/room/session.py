"""One connection to a room, from the open transport to its end.

`RoomSession` puts requests on the wire, matches each reply with its request by id, and passes all other messages to
`on_message` in order. `keeper.py` makes one per connection and runs `run()` as a task; requests come from any task.

Tasks: `run()` reads packets. A second task, the writer, exists only while the server reads more slowly than we send; when it
fails, it closes the connection, and so `run()` ends. Whatever ends the connection, `run()` returns the error and never raises
it (except its own cancellation).

A request that its caller gives up, because it was cancelled or its time is over, is also given up at the server, if the server
offers that (`can_cancel`): otherwise the server would go on, and hand what it finds to nobody.

Invariant: nothing waits for a reply for ever. Every request has a timeout, and when the connection ends every awaited reply
fails with the error that ended it.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable

from meshhost.errors import ConnectionLostError, LimitExceededError, RemoteProtocolError, RequestTimeoutError, RoomError
from meshhost.protocol.connection import MessageReceived, ReplyReceived, RoomConnection
from meshhost.protocol.frames import Limits, Packets
from meshhost.protocol.messages import ErrorResponse, Header, Response
from meshhost.room.link import Reply
from meshhost.room.replies import error_from
from meshhost.tasks import TaskOwner
from meshhost.transport.base import Transport
from meshhost.transport.outbox import Outbox

__all__ = ["RoomSession"]

logger = logging.getLogger(__name__)

# Bytes that may wait for a slow server before senders have to wait.
OUTBOX_BYTES = 8 * 1024 * 1024
# Seconds that `close()` gives the outbox to empty.
FLUSH_TIMEOUT = 5.0


class RoomSession:
    """Requests and messages over one transport. `on_message` gets every message that is not a reply, in order."""

    __slots__ = (
        "_connection",
        "_end",
        "_late_timer",
        "_on_message",
        "_outbox",
        "_replies",
        "_transport",
        "_writer",
        "_writing_error",
        "can_cancel",
    )

    def __init__(
        self,
        transport: Transport,
        on_message: Callable[[MessageReceived], None],
        *,
        limits: Limits,
        max_waiting_bytes: int = OUTBOX_BYTES,
    ) -> None:
        self._transport = transport
        self._on_message = on_message
        self._connection = RoomConnection(limits=limits)
        self._outbox = Outbox(transport, max_bytes=max_waiting_bytes)
        # With the moment, on the loop's clock, at which each is late.
        self._replies: dict[int, tuple[asyncio.Future[Reply], float]] = {}
        # One for all requests: a timer of its own for each costs more than the rest of the wait.
        self._late_timer: asyncio.TimerHandle | None = None
        self._end: ConnectionLostError | None = None
        self._writer: TaskOwner | None = None
        self._writing_error: Exception | None = None
        # Set by the keeper when the server has said what it offers.
        self.can_cancel = False

    def __repr__(self) -> str:
        return f"<RoomSession awaited={len(self._replies)} end={self._end!r}>"

    async def run(self) -> RoomError:
        """Read until the connection ends; return the error that ended it."""
        self._outbox.begin(self._start_writing)
        try:
            while True:
                self._take(await self._transport.receive())
        except asyncio.CancelledError:
            await self._end_with(ConnectionLostError("the room was left", clean=True, close_code=1000))
            raise
        except Exception as error:  # noqa: BLE001 - any error ends the connection and is reported as its reason
            await self._end_with(self._writing_error or error)
        finally:
            self._outbox.end()
            if self._writer is not None:
                await self._writer.stop()
        return self._end or ConnectionLostError()

    async def request(self, type: str, header: Header, data: bytes | None, *, timeout: float) -> Reply:
        """Send a request and return the body and the whole header of its reply. `timeout` is in seconds.

        Raises the error the server answered with, RequestTimeoutError, or ConnectionLostError when the connection ends first.
        """
        self._check_open()
        message_id, packets = self._connection.request(type, header, data, trace=_trace())
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        deadline = loop.time() + timeout
        self._replies[message_id] = reply, deadline
        is_awaited = False
        try:
            if not self._outbox.put_at_once(packets):
                async with asyncio.timeout(timeout):
                    await self._outbox.put(packets)
            is_awaited = True
            if self._late_timer is None or deadline < self._late_timer.when():
                self._watch_until(deadline)
            response, extra = await reply
            is_awaited = False
        except TimeoutError:
            raise RequestTimeoutError(f"no reply to {type} within {timeout:g} s") from None
        finally:
            # Also when the reply has come in the same turn of the loop as the cancellation: nobody will see it.
            if is_awaited and self.can_cancel and self._end is None:
                self._outbox.offer(self._connection.notify("request.cancel", {"id": message_id})[1], over_limit=True)
            del self._replies[message_id]
            self._connection.abandon(message_id)
            if not reply.cancel() and not reply.cancelled():
                reply.exception()  # retrieved, so that asyncio does not log it as lost
        if isinstance(response, ErrorResponse):
            raise error_from(response)
        return response, extra

    async def notify(self, type: str, header: Header, data: bytes | None = None) -> None:
        """Send a message that gets no reply. Raises ConnectionLostError."""
        self._check_open()
        await self._outbox.put(self._connection.notify(type, header, data, trace=_trace())[1])

    async def respond(self, message_id: int, type: str, response: Response) -> None:
        """Reply to a message of the server under its id. For a body over the size limit an error is sent instead."""
        self._check_open()
        try:
            packets: Packets = self._connection.respond(message_id, type, response)
        except LimitExceededError as error:
            packets = self._connection.respond(message_id, type, ErrorResponse(text=str(error), code=error.code))
        await self._outbox.put(packets)

    async def close(self, *, flush_timeout: float = FLUSH_TIMEOUT) -> None:
        """Send what is in the outbox, for at most `flush_timeout` seconds, and close the connection; `run()` then returns.

        Never raises.
        """
        if self._end is not None:
            return
        with contextlib.suppress(TimeoutError, ConnectionLostError):
            async with asyncio.timeout(flush_timeout):
                await self._outbox.wait_empty()
        await self._transport.close()

    def _take(self, packet: bytes) -> None:
        event = self._connection.receive(packet)
        if isinstance(event, ReplyReceived):
            awaited = self._replies.get(event.id)
            if awaited is not None and not awaited[0].done():
                awaited[0].set_result((event.response, event.extra))
        elif isinstance(event, MessageReceived):
            self._on_message(event)
        elif event is not None:
            logger.warning("unreadable message from the room server", extra={"message_type": event.type})

    def _watch_until(self, deadline: float) -> None:
        """Have the late requests end at this moment, instead of a later one."""
        if self._late_timer is not None:
            self._late_timer.cancel()
        self._late_timer = asyncio.get_running_loop().call_at(deadline, self._end_late)

    def _end_late(self) -> None:
        """End the requests that are late, and look again when the next one may be."""
        self._late_timer = None
        now = asyncio.get_running_loop().time()
        for reply, deadline in self._replies.values():
            if deadline <= now and not reply.done():
                reply.set_exception(TimeoutError())
        if left := [deadline for _, deadline in self._replies.values() if deadline > now]:
            self._watch_until(min(left))

    def _start_writing(self) -> None:
        if self._writer is None:
            self._writer = TaskOwner("room session")
        self._writer.spawn(self._write(), name="writer")

    async def _write(self) -> None:
        try:
            await self._outbox.write()
        except Exception as error:  # noqa: BLE001 - `run()` reports it when the connection ends
            self._writing_error = error
            await self._transport.close(1011)

    async def _end_with(self, error: BaseException) -> None:
        code = 1000
        if isinstance(error, ConnectionLostError):
            self._end = error.again()
        elif isinstance(error, RemoteProtocolError):
            code = error.close_code
            self._end = ConnectionLostError(f"the room server broke the protocol: {error}", close_code=code)
        else:
            logger.error("room session failed", exc_info=error)
            self._end = ConnectionLostError("the room session failed")
        if self._late_timer is not None:
            self._late_timer.cancel()
        for reply, _ in self._replies.values():
            if not reply.done():
                reply.set_exception(self._end.again())
        await self._transport.close(code)

    def _check_open(self) -> None:
        if self._end is not None:
            raise self._end.again()


def _trace() -> dict[str, str]:
    carrier: dict[str, str] = {}
    if "opentelemetry.trace" in sys.modules:  # else nobody traces, and a short command need not load it
        from opentelemetry import context, propagate

        if context.get_current():  # else there is nothing to carry
            propagate.inject(carrier)
    return carrier
