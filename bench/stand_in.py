"""A room server that does next to nothing, so that what is measured is the host: it lets everybody in, answers every
request with `empty`, and notes when each participant says that it has started, and when it leaves."""

import asyncio
import contextlib
import time

import jwt
from aiohttp import WSMsgType, web

from meshhost.protocol.connection import MessageReceived, RoomConnection
from meshhost.protocol.messages import EmptyResponse


class StandInRoom:
    """Serves `/rooms/{name}`; `started[name]` is the `perf_counter` at which that identity called `developer.log`."""

    def __init__(self) -> None:
        self.started: dict[str, float] = {}
        self._awaited: dict[str, asyncio.Event] = {}
        self._left: dict[str, asyncio.Event] = {}
        self._present: dict[str, tuple[RoomConnection, web.WebSocketResponse]] = {}
        app = web.Application()
        app.router.add_get("/rooms/{name}", self._join)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        self.url = ""

    async def __aenter__(self) -> "StandInRoom":
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        self.url = f"ws://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    @property
    def present(self) -> int:
        """How many participants are connected."""
        return len(self._present)

    async def wait_started(self, identity: str) -> float:
        """When this identity started, waiting for it if need be."""
        if identity not in self.started:
            async with asyncio.timeout(60):
                await self._awaited.setdefault(identity, asyncio.Event()).wait()
        return self.started[identity]

    async def dismiss(self, identity: str) -> None:
        """Send this participant away; return when it has left."""
        connection, socket = self._present[identity]
        header = {"from_participant_id": "bench", "type": "dismiss", "message": {}}
        _, packets = connection.notify("messaging.send", header)
        left = self._left[identity]
        for packet in packets:
            await socket.send_bytes(packet)
        async with asyncio.timeout(60):
            await left.wait()

    def forget(self, identity: str) -> None:
        """It is over."""
        self.started.pop(identity, None)
        self._awaited.pop(identity, None)

    async def _join(self, request: web.Request) -> web.WebSocketResponse:
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        token = bearer or request.query["token"]
        identity = str(jwt.decode(token, options={"verify_signature": False})["name"])
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        connection = RoomConnection()
        ready = {"room_name": request.match_info["name"], "room_url": str(request.url), "session_id": "s"}
        connected = {"type": "init", "participantId": identity, "attributes": {"name": identity}}
        for kind, header in (("room_ready", ready), ("connected", connected)):
            _, packets = connection.notify(kind, header)
            for packet in packets:
                await socket.send_bytes(packet)
        self._present[identity] = connection, socket
        left = self._left[identity] = asyncio.Event()
        try:
            async for frame in socket:
                if frame.type is WSMsgType.BINARY:
                    await self._answer(connection, socket, identity, frame.data)
        finally:
            del self._present[identity], self._left[identity]
            left.set()
        return socket

    async def _answer(
        self, connection: RoomConnection, socket: web.WebSocketResponse, identity: str, packet: bytes
    ) -> None:
        event = connection.receive(packet)
        if not isinstance(event, MessageReceived):
            return
        if event.type == "developer.log":
            self.started[identity] = time.perf_counter()
            self._awaited.setdefault(identity, asyncio.Event()).set()
        # Who leaves at once does not wait for the answer.
        with contextlib.suppress(ConnectionError):
            for reply in connection.reply(event.id, EmptyResponse()):
                await socket.send_bytes(reply)
