"""A room server in memory that says what the test wants it to say."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from doubles.memory_transport import MemoryTransport

from meshhost.errors import RoomError
from meshhost.protocol.connection import MessageReceived, RoomConnection
from meshhost.protocol.messages import EmptyResponse, Header, Response
from meshhost.room.client import RoomClient
from meshhost.room.reconnect import ReconnectPolicy


class FakeRoom:
    """Keeps the contract of ClientProtocol. `failures` are what the next dials raise; `hello` is said to each new one."""

    def __init__(self) -> None:
        self.url, self.token = "ws://h/rooms/r", "token"
        self.failures: list[RoomError] = []
        self.resumed: list[str | None] = []
        self.near: MemoryTransport
        self.far: MemoryTransport
        self.protocol = RoomConnection()
        self.hello: list[tuple[str, Header]] = [
            ("room_ready", {"room_name": "r", "room_url": "ws://h/rooms/r", "session_id": "s"}),
            ("connected", {"type": "other"}),
            ("connected", {"type": "init", "participantId": "p", "attributes": {"name": "me"}}),
        ]

    async def connect(self, *, resume: str | None = None) -> MemoryTransport:
        self.resumed.append(resume)
        if self.failures:
            raise self.failures.pop(0)
        self.near, self.far = MemoryTransport.pair()
        self.protocol = RoomConnection()
        for kind, header in self.hello:
            await self.tell(kind, header)
        return self.near

    async def tell(self, type: str, header: Header, payload: bytes = b"") -> int:
        message_id, packets = self.protocol.notify(type, header, payload)
        await self.far.send(packets)
        return message_id

    async def next(self) -> MessageReceived:
        """The client's next message."""
        async with asyncio.timeout(5):
            while True:
                event = self.protocol.receive(await self.far.receive())
                if isinstance(event, MessageReceived):
                    return event

    async def answer(self, response: Response | None = None, type: str | None = None) -> MessageReceived:
        """Answer the client's next message, which must be of this type."""
        message = await self.next()
        assert type in {None, message.type}
        await self.far.send(self.protocol.reply(message.id, response or EmptyResponse()))
        return message


@pytest.fixture
def fake() -> FakeRoom:
    return FakeRoom()


@pytest.fixture
def joined(fake: FakeRoom) -> Callable[..., AbstractAsyncContextManager[RoomClient]]:
    """Join the fake room; keyword arguments are those of RoomClient."""

    @asynccontextmanager
    async def join(**options: Any) -> AsyncIterator[RoomClient]:
        client = RoomClient(protocol=fake, **{"reconnect": ReconnectPolicy(first_delay=0.0)} | options)  # type: ignore[arg-type]
        async with asyncio.timeout(20), client:
            yield client

    return join


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    """Let the loop turn until something holds that no event tells of."""

    async def wait(holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(5):
            while not holds():  # noqa: ASYNC110 - see above
                await asyncio.sleep(0)

    return wait
