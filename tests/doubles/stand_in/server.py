"""The server: accepts participants, notes their requests, and holds the script of what happens to them."""

import asyncio
from collections import defaultdict, deque
from types import TracebackType
from typing import Any, Self

import jwt
from aiohttp import web

from doubles.stand_in.member import Member, Misbehaviour
from doubles.stand_in.room import Room
from meshhost.identity.grants import ApiScope
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import Header
from meshhost.room.client import RoomClient
from meshhost.transport.websocket_client import WebSocketClientProtocol

__all__ = ["StandInServer"]

RECEIVE_SECONDS = 20.0
_SECRET = "no-secret-since-nobody-verifies-it"


class StandInServer:
    """Serves `/rooms/{name}` on a loopback port inside `async with`.

    `requests` is what came in: (name of the participant, type, header). `receive_seconds` is how long a receive is parked.
    A script makes it misbehave: `misbehave`, `hold`, `drop`, `send_text`.
    """

    def __init__(self, *, receive_seconds: float = RECEIVE_SECONDS) -> None:
        self.requests: list[tuple[str, str, Header]] = []
        self.url = ""
        self.receive_seconds = receive_seconds
        self._script: defaultdict[str, deque[Misbehaviour | asyncio.Event]] = defaultdict(deque)
        self._rooms: dict[str, Room] = {}
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    def __repr__(self) -> str:
        return f"<StandInServer {self.url} rooms={list(self._rooms)}>"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/rooms/{name}", self._join)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.drop(code=1001)
        if self._runner is not None:
            await self._runner.cleanup()

    def room_url(self, room: str = "room") -> str:
        """Where a room is joined."""
        return f"{self.url.replace('http', 'ws', 1)}/rooms/{room}"

    def token(self, room: str = "room", *, name: str = "tester", role: str = "user") -> str:
        """A token for a room, with all rights."""
        grants = [ParticipantGrant(name="room", scope=room), ParticipantGrant(name="role", scope=role)]
        api = ParticipantGrant(name="api", scope=ApiScope.full())
        return ParticipantToken(name=name, grants=[*grants, api]).to_jwt(token=_SECRET)

    def client(self, room: str = "room", *, name: str = "tester", role: str = "user", **client: Any) -> RoomClient:
        """A client for a room, not connected yet; further arguments are RoomClient's."""
        protocol = WebSocketClientProtocol(url=self.room_url(room), token=self.token(room, name=name, role=role))
        return RoomClient(protocol=protocol, **client)

    # The script

    def misbehave(self, type: str, *how: Misbehaviour) -> None:
        """Misbehave in these ways at the next requests of this type, one after the other."""
        self._script[type].extend(how)

    def hold(self, type: str) -> asyncio.Event:
        """Answer the next request of this type only once the event is set."""
        event = asyncio.Event()
        self._script[type].append(event)
        return event

    async def drop(self, name: str | None = None, *, code: int = 1006) -> None:
        """End the connections of this participant (None: of all) with a close code; 1006 is without a close frame."""
        for member in self._members(name):
            await member.end(code)

    async def send_text(self, name: str) -> None:
        """Send a text frame to this participant."""
        for member in self._members(name):
            await member.socket.send_str("not a binary frame")

    async def tell(self, name: str, type: str, header: Header) -> None:
        """Send a message that is no reply to this participant."""
        for member in self._members(name):
            await member.tell(type, header)

    async def saw(self, type: str, *, times: int = 1, name: str | None = None) -> Header:
        """Wait until this many such requests came; returns the header of the last one. The caller must set a timeout."""
        while len(found := [request for request in self.requests if _matches(request, type, name)]) < times:
            self._changed.clear()
            await self._changed.wait()
        return found[times - 1][2]

    # For its connections

    def next_step(self, member: "Member", message: MessageReceived) -> Misbehaviour | asyncio.Event | None:
        """Note a request; returns what the script does with it, None when it is answered as usual."""
        self.requests.append((member.name, message.type, message.header))
        self._changed.set()
        steps = self._script[message.type]
        return steps.popleft() if steps else None

    def _members(self, name: str | None) -> list["Member"]:
        all_members = [member for room in self._rooms.values() for member in room.members.values()]
        return [member for member in all_members if name in (None, member.name)]

    async def _join(self, request: web.Request) -> web.StreamResponse:
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            claims = jwt.decode(bearer or request.query.get("token", ""), options={"verify_signature": False})
        except jwt.InvalidTokenError:
            return web.Response(status=401)
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        name = request.match_info["name"]
        room = self._rooms.setdefault(name, Room(name, receive_seconds=self.receive_seconds))
        await Member(room, socket, request, claims, self.next_step).take_part()
        return socket


def _matches(request: tuple[str, str, Header], type: str, name: str | None) -> bool:
    return request[1] == type and name in (None, request[0])
