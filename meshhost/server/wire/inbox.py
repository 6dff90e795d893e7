"""Receives the messages of one connection within the limits of memory and time.

`Inbox` stands between transport and protocol. It takes each packet in the account of the connection (`quotas/in_flight.py`)
before it reads the next one, and reports with each message how many bytes it holds; the connection releases them when the
request is answered. Without room it does not read on, so TCP makes the sender wait. After ROOM_SECONDS it drops the message,
which is then answered with an error: else unfinished messages that together fill the budget would wait for each other.

`Arrivals` ends connections that begin a message and do not finish it. One timer per server, which runs while there is such a
message; a message that arrives at once costs an entry in a dict.
"""

import asyncio
from collections.abc import Callable

from meshhost.errors import LimitExceededError
from meshhost.protocol.connection import Event, RoomConnection
from meshhost.quotas.in_flight import Account
from meshhost.transport.base import Transport

__all__ = ["Arrivals", "Inbox"]

ROOM_SECONDS = 10.0
_NO_ROOM = "and no room for it now: try again later"
_LOOK_SECONDS = 1.0


class Arrivals:
    """The messages that are being received by all connections of a server.

    Each has `seconds` to arrive, and another one for every `bytes_per_second` of it that came.
    """

    def __init__(self, *, seconds: float, bytes_per_second: float) -> None:
        self._seconds = seconds
        self._bytes_per_second = bytes_per_second
        self._since: dict[Inbox, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, inbox: "Inbox") -> None:
        """A message began."""
        loop = asyncio.get_running_loop()
        self._since[inbox] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(_LOOK_SECONDS, self._look, loop)

    def end(self, inbox: "Inbox") -> None:
        """It is complete, or its connection has ended. Idempotent."""
        self._since.pop(inbox, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(_LOOK_SECONDS, self._look, loop) if self._since else None
        now = loop.time()
        for inbox, since in list(self._since.items()):
            if inbox.waits_for_room:
                self._since[inbox] = since + _LOOK_SECONDS
            elif now - since > self._seconds + inbox.arrived / self._bytes_per_second:
                self.end(inbox)
                inbox.end_late()


class Inbox:
    """The messages that one connection receives; `late` is called when one does not arrive in time."""

    def __init__(
        self,
        transport: Transport,
        protocol: RoomConnection,
        *,
        account: Account,
        arrivals: Arrivals,
        late: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._account = account
        self._arrivals = arrivals
        self._late = late
        # Of the unfinished message: what it holds, and what has come of it.
        self._held = 0
        self.arrived = 0
        self._is_dropping = False
        self.waits_for_room = False

    async def receive(self) -> tuple[Event | None, int]:
        """Take the next packet. Return the event that it completes, and how many bytes that holds until they are released.

        Raises as `Transport.receive` and `RoomConnection.receive` do.
        """
        packet = await self._transport.receive()
        size, has_room, is_first = len(packet), True, self.arrived == 0
        if not self._is_dropping:
            if self._account.take(size) or await self._find_room(size):
                self._held += size
            else:
                has_room = False
                if not is_first:
                    self._drop(self._why())
        event = self._protocol.receive(packet)
        if event is None and self._protocol.is_receiving:
            if is_first:
                self._arrivals.begin(self)
            self.arrived += size
            if not has_room or (not self._is_dropping and self._protocol.is_dropping):
                self._drop(self._why())
            return None, 0
        if not is_first:
            self._arrivals.end(self)
        held, self._held, self.arrived, self._is_dropping = self._held, 0, 0, False
        if event is None:  # the answer to a request that was given up
            self.release(held)
            held = 0
        return event, held

    def release(self, size: int) -> None:
        """Give back the bytes of a message that is done with."""
        if size:
            self._account.give_back(size)

    def end_late(self) -> None:
        """The unfinished message did not arrive in time."""
        self._drop(_NO_ROOM)
        self._late()

    def close(self) -> None:
        """The connection has ended. Idempotent."""
        self._arrivals.end(self)
        self._account.close()

    def _why(self) -> str:
        most = self._account.most
        return _NO_ROOM if self.arrived <= most else f"and at most {most} may be in flight"

    def _drop(self, why: str) -> None:
        self._is_dropping = True
        self._protocol.drop_unfinished(why)
        self.release(self._held)
        self._held = 0

    async def _find_room(self, size: int) -> bool:
        if self._held + size > self._account.most:
            self.arrived += size  # for the text of the refusal
            return False  # nor would there be room if it were alone
        self.waits_for_room = True
        try:
            async with asyncio.timeout(ROOM_SECONDS):
                await self._account.reserve(size)
        except (TimeoutError, LimitExceededError):
            return False
        finally:
            self.waits_for_room = False
        return True
