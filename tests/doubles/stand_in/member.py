"""One connection to a room of the stand-in: greets, reads requests one by one, and misbehaves when the script says so."""

import asyncio
import struct
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any

from aiohttp import web

from meshhost.errors import ConnectionLostError, ProtocolError, RoomError
from meshhost.protocol.connection import RESPONSE, MessageReceived, RoomConnection
from meshhost.protocol.frames import Message, packets
from meshhost.protocol.messages import (
    ErrorResponse,
    Header,
    JsonResponse,
    RawOutputs,
    Response,
    pack_message,
    pack_response,
)
from meshhost.tasks import TaskOwner
from meshhost.transport.websocket_server import AiohttpTransport

if TYPE_CHECKING:
    from doubles.stand_in.room import Room

__all__ = ["SLICE_BYTES", "Member", "Misbehaviour"]

SLICE_BYTES = 1024


class Misbehaviour(Enum):
    """What a request may get instead of its answer."""

    NEVER = "no answer"
    MALFORMED_HEADER = "a reply whose header is not JSON"
    UNKNOWN_BODY = "a reply with a type of body that does not exist"
    MISSING_MEMBER = "a reply that lacks the member its type needs"
    RAW_BODY = "a raw body, which only tools may give"
    OTHER_JSON = "a JSON reply that lacks what the request is about"
    INTERLEAVED = "a reply with another message between its packets"
    TEXT_FRAME = "a text frame"


class Member:
    """One connection to a room."""

    def __init__(
        self,
        room: "Room",
        socket: web.WebSocketResponse,
        request: web.Request,
        claims: dict[str, Any],
        next_step: Callable[["Member", MessageReceived], Misbehaviour | asyncio.Event | None],
    ) -> None:
        self.id = str(uuid.uuid4())
        self.name = str(claims["name"])
        roles = [grant["scope"] for grant in claims.get("grants", ()) if grant["name"] == "role"]
        self.role = next((role for role in roles if role != "user"), "user")
        self.attributes: dict[str, Any] = {"name": self.name}
        self.socket = socket
        self.is_enabled = False
        self.is_watching = False
        self.connection = RoomConnection(slice_bytes=SLICE_BYTES)
        self.tasks = TaskOwner(f"stand-in for {self.name}")
        self._request = request
        self._room = room
        self._next_step = next_step
        self._transport = AiohttpTransport(socket)

    @property
    def card(self) -> Header:
        """How others see it."""
        return {"id": self.id, "role": self.role, "attributes": self.attributes}

    async def take_part(self) -> None:
        """Greet, and answer until the connection ends."""
        self._room.members[self.id] = self
        try:
            await self._greet()
            while True:
                event = self.connection.receive(await self._transport.receive())
                if isinstance(event, MessageReceived):
                    await self._take(event)
                elif event is not None:
                    await self.reply(event.id, ErrorResponse(text="malformed message"))
        except (ConnectionLostError, ProtocolError):
            pass
        finally:
            del self._room.members[self.id]
            await self.tasks.stop()
            await self._room.left(self)
            await self._transport.close()

    async def end(self, code: int) -> None:
        """Close; what is asked and not answered stays so."""
        if code == 1006:
            if self._request.transport is not None:
                self._request.transport.abort()
            return
        await self._transport.close(code)

    async def tell(self, type: str, header: Header, payload: bytes | None = None) -> int:
        """Send a message that is no reply; returns its id."""
        message_id, cut = self.connection.notify(type, header, payload)
        await self.send(cut)
        return message_id

    async def reply(self, message_id: int, response: Response) -> None:
        """Answer a request."""
        await self.send(self.connection.reply(message_id, response))

    async def send(self, cut: Iterable[bytes]) -> None:
        """Send the packets of a message. Somebody who has left misses it."""
        with suppress(ConnectionLostError):
            await self._transport.send(cut)

    async def _greet(self) -> None:
        session = self._room.session_id
        ready = {"room_name": self._room.name, "room_url": str(self._request.url), "session_id": session}
        await self.tell("room.status", {"status": "starting", "message": "the room starts"})
        await self.tell(
            "connected", {"type": "init", "participantId": self.id, "attributes": self.attributes, "usage": None}
        )
        await self.tell("room_ready", ready)
        await self.tell("room_ready", ready)
        await self.tell("connected", {"type": "changed", "participantId": "somebody", "attributes": {}})
        await self.tell("room.status", {"status": "started", "message": "the room is there"})

    async def _take(self, message: MessageReceived) -> None:
        step = self._next_step(self, message)
        if isinstance(step, Misbehaviour):
            await self._misbehave(step, message.id)
        elif isinstance(step, asyncio.Event) or _is_parking(message):
            self.tasks.spawn(self._answer(message, step), name=message.type)
        else:
            await self._answer(message)

    async def _answer(self, message: MessageReceived, held: asyncio.Event | None = None) -> None:
        if held is not None:
            await held.wait()
        try:
            response = await self._room.answer(self, message)
        except RoomError as error:
            response = ErrorResponse(text=str(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            response = ErrorResponse(text=f"bad request: {error!r}")
        if response is not None:
            await self.reply(message.id, response)

    async def _misbehave(self, how: Misbehaviour, request_id: int) -> None:
        match how:
            case Misbehaviour.NEVER:
                pass
            case Misbehaviour.TEXT_FRAME:
                await self.socket.send_str("not a binary frame")
            case Misbehaviour.INTERLEAVED:
                first, *others = packets(Message(request_id, RESPONSE, bytes(3000)), slice_bytes=SLICE_BYTES)
                stranger = packets(Message(2**32, "room.status", pack_message({})), slice_bytes=SLICE_BYTES)
                await self.send([first, others[0], *stranger, *others[1:]])
            case _:
                await self.send(packets(Message(request_id, RESPONSE, _unreadable(how)), slice_bytes=SLICE_BYTES))


def _is_parking(message: MessageReceived) -> bool:
    return message.type == "queues.receive" and bool(message.header.get("wait", True))


def _unreadable(how: Misbehaviour) -> bytes:
    match how:
        case Misbehaviour.MALFORMED_HEADER:
            return struct.pack(">Q", 5) + b"{type"
        case Misbehaviour.UNKNOWN_BODY:
            return pack_message({"type": "hologram", "usage": None})
        case Misbehaviour.OTHER_JSON:
            return pack_response(JsonResponse(json={"other": True}))
        case Misbehaviour.RAW_BODY:
            return pack_response(RawOutputs(outputs=[{"n": 1}]))
        case _:
            return pack_message({"type": "json", "usage": None})
