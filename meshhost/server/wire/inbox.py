"""Receives the messages of one connection within the limits of memory and time.

`Inbox` stands between transport and protocol. It takes each packet in the account of the connection (`quotas/in_flight.py`)
before it reads the next one, and reports with each message how many bytes it holds; the connection releases them when the
request is answered. Without room it does not read on, so TCP makes the sender wait. After ROOM_SECONDS it drops the message,
which is then answered with an error: else unfinished messages that together fill the budget would wait for each other.

Large packets hold their room already when they come, because `Arriving` has reserved it. `Arrivals` ends connections that begin
a message and do not finish it.
"""

import asyncio
from collections.abc import Callable

from meshhost.errors import LimitExceededError
from meshhost.protocol.connection import Event, RoomConnection
from meshhost.quotas.in_flight import Account
from meshhost.server.wire.arriving import LATE, Arrivals, Arriving
from meshhost.transport.base import Transport

__all__ = ["Inbox"]

ROOM_SECONDS = 10.0
_NO_ROOM = "and no room for it now: try again later"


class Inbox:
    """The messages that one connection receives.

    `late` is called with the reason when one does not arrive in time, or finds no room. `arriving` reserves room for packets.
    """

    def __init__(
        self,
        transport: Transport,
        protocol: RoomConnection,
        *,
        account: Account,
        arrivals: Arrivals,
        late: Callable[[str], None],
        arriving: Arriving | None = None,
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._account = account
        self._arrivals = arrivals
        self._late = late
        self._arriving = arriving
        if arriving is not None:
            arriving.attach(make_room=self._make_room, end=late)
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
        reserved = 0 if self._arriving is None else self._arriving.take()
        if self._is_dropping:
            self.release(reserved)
        else:
            if reserved:
                self._held += reserved
            elif self._account.take(size) or await self._find_room(size):
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
        self._late(LATE)

    def close(self) -> None:
        """The connection has ended. Idempotent."""
        self._arrivals.end(self)
        if self._arriving is not None:
            self._arriving.close()
        self._account.close()

    def _why(self) -> str:
        most = self._account.most
        return _NO_ROOM if self.arrived <= most else f"and at most {most} may be in flight"

    def _make_room(self) -> bool:
        if self.arrived == 0 or self._is_dropping or self.waits_for_room:
            return False
        self._drop(_NO_ROOM)
        return True

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
