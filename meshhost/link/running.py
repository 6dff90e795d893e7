"""A link in an event loop: `Link` drives a `LinkCore` over one connection after the other, `LinkChannel` is a channel of it.

`Link.run` is awaited with each connection and returns when that has ended; between two connections the link and its channels
live on. A channel is a `Transport`, so what is written for a WebSocket works over it: a room client's session at one end, a
participant's connection at the other. While there is no connection, senders wait as they do for a slow reader, and receivers
for the next message.

Tasks: the caller's task reads in `run`. What is to be sent is collected for the rest of the turn of the event loop and then
written without a task; only while the connection takes nothing a task *writer* exists. No task per channel.

Invariants: a channel that is over says so to every waiter; what may wait to be sent on one channel is bounded, and what may
wait to be read is bounded by its credit.

Longer than 400 lines because a link and its channels call each other.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable

from meshhost.errors import (
    ConnectionLostError,
    LocalProtocolError,
    RemoteProtocolError,
    RoomRefusedError,
    TooLargeError,
)
from meshhost.link.core import GoodbyeCode, LinkCore, LinkState
from meshhost.link.events import (
    Accepted,
    Closed,
    Drained,
    Ended,
    Event,
    Greeted,
    Lost,
    MessageReceived,
    Offered,
    Refused,
)
from meshhost.link.greeting import Hello, LinkLimits
from meshhost.tasks import LightEvent, TaskOwner
from meshhost.transport.base import Transport

__all__ = ["ABORTED", "Link", "LinkChannel", "OnOffer"]

logger = logging.getLogger(__name__)

ABORTED = 1006
"""The code of a channel that was cut without a reason, as that of a WebSocket that ended without a close frame."""

# What may wait to be sent on one channel before its senders wait, and below which they go on.
_MOST_QUEUED = 128 * 1024
_LOW_QUEUED = 64 * 1024
SEND_TIMEOUT = 60.0
# How long what waits may take when a channel is closed; then it is dropped.
CLOSE_TIMEOUT = 5.0
# After so many messages of the connection, other tasks have a turn.
_MESSAGES_A_TURN = 16

OnOffer = Callable[["LinkChannel", bytes], None]
"""Called with a channel that the other side asks for, and what for. Must not block; answers with `accept` or `refuse`."""


class LinkChannel:
    """One channel. See `Transport`; one reader. It is made by `Link`."""

    __slots__ = ("_accepted", "_drained", "_end", "_inbox", "_link", "_refusal", "_sending", "_waiter", "id")

    def __init__(self, link: "Link", id: int) -> None:
        self.id = id
        self._link = link
        self._end: ConnectionLostError | None = None
        self._refusal: RoomRefusedError | None = None
        # Made when needed: there may be thousands of idle channels.
        self._accepted: LightEvent | None = None
        self._drained: LightEvent | None = None
        self._inbox: deque[tuple[bytes, int]] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sending: asyncio.Lock | None = None

    def __repr__(self) -> str:
        return f"<LinkChannel {self.id} end={self._end!r}>"

    @property
    def link(self) -> "Link":
        """The link that carries it."""
        return self._link

    @property
    def is_over(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._end is not None

    def accept(self, meta: bytes = b"") -> None:
        """Accept the channel, which the other side asked for. Raises ConnectionLostError when it gave up meanwhile."""
        self._check_open()
        self._link.core.accept(self.id, meta)
        self._link.wake()

    def refuse(self, status: int, text: str) -> None:
        """Refuse the channel, which the other side asked for; one that was accepted is closed. Ignored when it is over."""
        if self._end is None:
            self._link.core.close(self.id, status, text)
            self._ended(ConnectionLostError("refused", close_code=status))
            self._link.forget(self)

    async def receive(self) -> bytes:
        """See `Transport`."""
        while True:
            if self._inbox:
                data, cost = self._inbox.popleft()
                if not self._inbox:
                    self._inbox = None
                self._link.core.consumed(self.id, cost)
                self._link.wake()
                return data
            if self._end is not None:
                raise self._end.again()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def send(self, packets: Iterable[bytes]) -> None:
        """See `Transport`."""
        if self._sending is None:
            self._sending = asyncio.Lock()
        try:
            async with asyncio.timeout(SEND_TIMEOUT), self._sending:
                for packet in packets:
                    await self._wait_room()
                    self._send(packet)
        except TimeoutError:
            raise ConnectionLostError(f"the other side took no data for {SEND_TIMEOUT:g} s") from None

    def send_at_once(self, packets: Iterable[bytes]) -> bool:
        """See `Transport`."""
        self._check_open()
        if (self._sending is not None and self._sending.locked()) or self._queued() >= _LOW_QUEUED:
            return False
        for packet in packets:
            self._send(packet)
        return True

    def flush(self) -> None:
        """See `Transport`."""
        self._link.flush()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """See `Transport`: what waits to be sent goes first, for at most CLOSE_TIMEOUT."""
        if self._end is None:
            self._close(code, reason, drop=False)
            if self._queued():
                asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._drop, code, reason)

    def abort(self) -> None:
        """See `Transport`."""
        if self._end is None:
            self._close(ABORTED, "", drop=True)

    async def wait_accepted(self) -> None:
        """Wait until the other side has answered. The caller must set a timeout.

        Raises RoomRefusedError with the status of the refusal, ConnectionLostError when the link ends first.
        """
        if self._accepted is not None:
            await self._accepted.wait()
        if self._refusal is not None:
            raise self._refusal
        if self._end is not None:
            raise self._end.again()

    # For Link.

    def ask(self) -> None:
        """This side asked for it: there is an answer to wait for."""
        self._accepted = LightEvent()

    def handle(self, event: Event) -> None:
        """Something happened on this channel."""
        match event:
            case MessageReceived():
                if self._inbox is None:
                    self._inbox = deque()
                self._inbox.append((event.data, event.cost))
                self._wake()
            case Drained():
                if self._drained is not None:
                    self._drained.set()
            case Accepted():
                self._answered()
            case Refused():
                self._refusal = RoomRefusedError(
                    f"the room server refused the connection ({event.code}): {event.text}", status=event.code
                )
                self._ended(ConnectionLostError(event.text, close_code=event.code))
            case Closed():
                text = event.text or "the connection ended"
                self._ended(ConnectionLostError(text, clean=event.code != ABORTED, close_code=event.code))
            case _:
                self._ended(ConnectionLostError("the link was lost"))

    def _ended(self, end: ConnectionLostError) -> None:
        if self._end is None:
            self._end = end
        self._answered()
        if self._drained is not None:
            self._drained.set()
        self._wake()

    def _answered(self) -> None:
        if self._accepted is not None:
            self._accepted.set()
            self._accepted = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _send(self, packet: bytes) -> None:
        try:
            self._link.core.send(self.id, packet)
        except (LocalProtocolError, TooLargeError) as error:
            raise ConnectionLostError(str(error)) from None
        self._link.wake()

    async def _wait_room(self) -> None:
        while self._end is None and self._queued() >= _MOST_QUEUED:
            if self._drained is None:
                self._drained = LightEvent()
            self._drained.clear()
            await self._drained.wait()
        self._check_open()

    def _queued(self) -> int:
        return self._link.core.queued(self.id)

    def _check_open(self) -> None:
        if self._end is not None:
            raise self._end.again()

    def _close(self, code: int, reason: str, *, drop: bool) -> None:
        self._link.core.close(self.id, code, reason, drop=drop)
        self._inbox = None
        self._ended(ConnectionLostError("the connection was closed", clean=True, close_code=code))
        self._link.forget(self)

    def _drop(self, code: int, reason: str) -> None:
        self._link.core.close(self.id, code, reason, drop=True)
        self._link.wake()


class Link:
    """One side of a link. `on_offer` is called for each channel that the other side asks for.

    `closed` is set when the link has ended for good; `end` says why then.
    """

    def __init__(self, *, dials: bool, on_offer: OnOffer, limits: LinkLimits | None = None) -> None:
        self.core = LinkCore(dials=dials, limits=limits)
        self._on_offer = on_offer
        self._channels: dict[int, LinkChannel] = {}
        self._transport: Transport | None = None
        self._held = b""
        self._is_woken = False
        self._tasks = TaskOwner("link")
        self._writer: asyncio.Task[None] | None = None
        self._greeted = LightEvent()
        self.on_greeted: Callable[[bool], None] = lambda _: None
        self.closed = LightEvent()
        self.end: Ended | None = None
        self.heard_at = asyncio.get_running_loop().time()
        # How often a connection was greeted.
        self.greetings = 0

    def __repr__(self) -> str:
        return f"<Link {self.core!r}>"

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection that is greeted."""
        return self.core.state is LinkState.OPEN

    @property
    def channels(self) -> int:
        """How many channels are open or being opened."""
        return len(self._channels)

    async def run(
        self, transport: Transport, *, hello: Hello | None = None, token: str = "", seconds: float = 0.0
    ) -> None:
        """Use this connection until it ends. Never raises for its end; the link ends only when `closed` is set.

        The side that was dialled passes the `hello` that it read, the `token` that the other side is to show the next time, and
        for how many `seconds` it may. An earlier connection must have ended.
        """
        self._transport = transport
        try:
            self.core.attach()
            if hello is not None:
                self._handle(self.core.welcome(hello, token=token, resume_seconds=seconds))
            self.wake()
            turn = 0
            while self.core.state is not LinkState.ENDED:
                data = await transport.receive()
                self.heard_at = asyncio.get_running_loop().time()
                self._handle(self.core.receive(data))
                self.wake()
                turn = (turn + 1) % _MESSAGES_A_TURN
                if turn == 0:
                    await asyncio.sleep(0)
        except ConnectionLostError as error:
            logger.info("connection of a link ended", extra={"reason": str(error)})
        except RemoteProtocolError as error:
            logger.warning("the other side of a link broke the protocol", extra={"reason": str(error)})
            await transport.close(error.close_code, str(error))
        finally:
            await self._leave(transport)

    async def _leave(self, transport: Transport) -> None:
        if self.core.state is LinkState.ENDED:
            self.flush()
        self._transport = None
        self._held = b""
        if self._writer is not None:
            self._writer.cancel()
            self._writer = None
        self.core.detach()
        if self.core.state is LinkState.ENDED:
            await transport.close(1000)
        else:
            transport.abort()

    async def wait_greeted(self) -> None:
        """Wait for the greeting of the present or next connection. The caller must set a timeout."""
        if not self.is_connected:
            await self._greeted.wait()

    def open(self, meta: bytes) -> LinkChannel:
        """Ask for a channel; await its `wait_accepted`. Raises ConnectionLostError when the link has ended, TooLargeError."""
        try:
            channel = LinkChannel(self, self.core.open(meta))
        except LocalProtocolError as error:
            raise ConnectionLostError(str(error)) from None
        channel.ask()
        self._channels[channel.id] = channel
        self.wake()
        return channel

    def stop(self, code: int = GoodbyeCode.NORMAL, text: str = "") -> None:
        """End the link for good. The task that awaits `run` has to end the connection, or to be cancelled. Idempotent."""
        if self.end is None:
            self._handle([*self.core.end(code, text), Ended(code, text)])
            self.flush()
            if self._transport is not None and self._writer is None:
                self._transport.flush()
                self._transport.abort()

    def cut(self) -> None:
        """Drop the present connection without a word, as a broken cable does. The link goes on over the next one."""
        if self._transport is not None:
            self._transport.abort()

    def probe(self) -> None:
        """Ask the other side for a sign of life."""
        self.core.ping()
        self.wake()

    def wake(self) -> None:
        """There may be something to send: it is sent at the end of this turn of the event loop."""
        if not self._is_woken and self._transport is not None:
            self._is_woken = True
            asyncio.get_running_loop().call_soon(self._flush_later)

    def flush(self) -> None:
        """Send what can be sent without waiting, now."""
        transport = self._transport
        if transport is None or self._writer is not None:
            return
        try:
            for _ in range(_MESSAGES_A_TURN):
                data = self._held or self._next()
                if not data:
                    return
                if not transport.send_at_once((data,)):
                    self._held = data
                    self._writer = self._tasks.spawn(self._write(transport), name="writer")
                    return
                self._held = b""
        except ConnectionLostError:
            return  # `run` gets this error, too
        self.wake()

    def forget(self, channel: LinkChannel) -> None:
        """The channel is over at this side."""
        self._channels.pop(channel.id, None)
        self.wake()

    def _flush_later(self) -> None:
        self._is_woken = False
        self.flush()

    async def _write(self, transport: Transport) -> None:
        try:
            while data := self._held or self._next():
                self._held = data
                await transport.send((data,))
                self._held = b""
            if self.core.state is LinkState.ENDED:
                transport.abort()
        except ConnectionLostError:
            transport.abort()
        finally:
            if self._transport is transport:
                self._writer = None

    def _next(self) -> bytes:
        data, events = self.core.data_to_send(_LOW_QUEUED)
        if events:
            self._handle(events)
        return data

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Greeted):
                self.greetings += 1
                self._greeted.set()
                self._greeted.clear()
                self.on_greeted(event.resumed)
            elif isinstance(event, Offered):
                channel = self._channels[event.channel] = LinkChannel(self, event.channel)
                self._on_offer(channel, event.meta)
            elif isinstance(event, Ended):
                self._over(event)
            elif (found := self._channels.get(event.channel)) is not None:
                if isinstance(event, Closed | Refused | Lost):
                    del self._channels[event.channel]
                found.handle(event)

    def _over(self, event: Ended) -> None:
        if self.end is not None:
            return
        self.end = event
        if event.error is not None:
            logger.warning("a link ended: the other side broke the protocol", extra={"reason": event.text})
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.handle(Lost(channel.id))
        self.closed.set()
        self._greeted.set()

    async def aclose(self) -> None:
        """End the tasks of the link, after `stop`. Never raises."""
        with contextlib.suppress(asyncio.CancelledError):
            await self._tasks.stop(timeout=1.0)
