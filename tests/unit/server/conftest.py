"""A participant's connection without a network."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from doubles.memory_transport import MemoryTransport

from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.protocol.connection import Event, MessageReceived, ReplyReceived, RoomConnection
from meshhost.protocol.frames import Limits
from meshhost.protocol.messages import Header, Response
from meshhost.quotas.in_flight import InFlight
from meshhost.quotas.quota import ServerQuota
from meshhost.server.core.participants import Participant
from meshhost.server.core.room import Room
from meshhost.server.wire.arriving import Arrivals
from meshhost.server.wire.connection import Connection
from meshhost.server.wire.dialect import Handshake
from meshhost.server.wire.sdk06 import SDK_06

IN_FLIGHT = InFlight(1_000_000_000, lambda _: ServerQuota())


class Served:
    """A connection that is served, and the participant's end of it."""

    def __init__(self, dispatch: Any, scope: ApiScope, limits: Limits, **options: Any) -> None:
        self.near, self.far = MemoryTransport.pair()
        self.room = Room(key=RoomKey(TenantId("t"), "r"), url="ws://h/rooms/r")
        self.participant = Participant(name="p", role="user", scope=scope, key_id=None, expires_at=None)
        self.room.members[self.participant.id] = self.participant
        values: dict[str, Any] = {
            "max_requests": 4,
            "max_waiting_bytes": 100_000,
            "received": IN_FLIGHT.account("t", max_bytes=100_000_000),
            "sent": IN_FLIGHT.account("t", max_bytes=100_000_000),
            "arrivals": Arrivals(seconds=30, bytes_per_second=1000),
            "translator": SDK_06.translator(Handshake({}, {})),
        } | options
        self.connection = Connection(
            self.near, room=self.room, participant=self.participant, dispatch=dispatch, limits=limits, **values
        )
        self.participant.peer = self.connection
        self.client = RoomConnection()
        self.serving: asyncio.Task[Any]

    async def send(self, type: str, header: Header | None = None, payload: bytes = b"") -> int:
        message_id, packets = self.client.request(type, header or {}, payload)
        await self.far.send(packets)
        return message_id

    async def notify(self, type: str, header: Header | None = None) -> None:
        await self.far.send(self.client.notify(type, header or {})[1])

    async def next(self) -> Event:
        async with asyncio.timeout(5):
            while True:
                event = self.client.receive(await self.far.receive())
                if event is not None:
                    return event

    async def reply(self) -> Response:
        event = await self.next()
        assert isinstance(event, ReplyReceived)
        return event.response

    async def message(self) -> MessageReceived:
        event = await self.next()
        assert isinstance(event, MessageReceived)
        return event

    async def ask(self, type: str, header: Header | None = None) -> Response:
        await self.send(type, header)
        return await self.reply()


Serving = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serving() -> Serving:
    """Serve a connection with this dispatcher; keyword arguments are those of Connection."""

    @asynccontextmanager
    async def serve(
        dispatch: Any, *, scope: ApiScope | None = None, limits: Limits | None = None, **options: Any
    ) -> AsyncIterator[Served]:
        served = Served(dispatch, scope or ApiScope.full(), limits or Limits(), **options)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            served.serving = tasks.create_task(served.connection.serve())
            yield served
            served.near.break_connection()

    return serve


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Any]:
    """Wait for something that no event reports."""

    async def wait(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.005)

    return wait
