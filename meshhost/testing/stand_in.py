"""A room server that behaves as MeshAgent's reference does, its faults included: a double, named for what it is.

It speaks the bare protocol (room-protocol §1-§13), with nothing of ours: no extensions, no resuming, no leases, 1 KiB packets,
replies with `usage: null`. A message of a queue is gone once it was handed out, and a request that is under way when a
connection ends is never answered. Everything is kept in memory, and tokens are read, not verified: for tests only.

Which task runs when: each connection has one task that reads it and answers in order. Parked receives and held answers are
tasks of their connection, and end with it.
"""

import asyncio
import base64
import json
import struct
import uuid
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, Self

import jwt
from aiohttp import web

from meshhost.documents.crdt import SharedDocument
from meshhost.documents.document import MeshDocument
from meshhost.documents.schema import MeshSchema
from meshhost.errors import ConnectionLostError, ProtocolError, RoomError
from meshhost.identity.grants import ApiScope
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.protocol.connection import RESPONSE, MessageReceived, RoomConnection
from meshhost.protocol.frames import Message, packets
from meshhost.protocol.messages import (
    EmptyResponse,
    ErrorResponse,
    FileResponse,
    Header,
    JsonResponse,
    RawOutputs,
    Response,
    TextResponse,
    pack_message,
    pack_response,
)
from meshhost.room.client import RoomClient
from meshhost.tasks import TaskOwner
from meshhost.transport.websocket_client import WebSocketClientProtocol
from meshhost.transport.websocket_server import AiohttpTransport

__all__ = ["Misbehaviour", "StandInServer"]

SLICE_BYTES = 1024
RECEIVE_SECONDS = 20.0
_SECRET = "no-secret-since-nobody-verifies-it"  # noqa: S105 - guards nothing


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
        self._rooms: dict[str, _Room] = {}
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
        """Treat the next requests of this type so, one after the other."""
        self._script[type].extend(how)

    def hold(self, type: str) -> asyncio.Event:
        """Answer the next request of this type only once the event is set."""
        event = asyncio.Event()
        self._script[type].append(event)
        return event

    async def drop(self, name: str | None = None, *, code: int = 1006) -> None:
        """End the connections of this participant (None: of all) with a close code; 1006 is without a word."""
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
        """Wait until so many such requests came; returns the header of the last one. Whoever calls bounds the wait."""
        while len(found := [request for request in self.requests if _matches(request, type, name)]) < times:
            self._changed.clear()
            await self._changed.wait()
        return found[times - 1][2]

    # For its connections

    def next_step(self, member: "_Member", message: MessageReceived) -> Misbehaviour | asyncio.Event | None:
        """Note a request; how the script wants it treated, if otherwise than usual."""
        self.requests.append((member.name, message.type, message.header))
        self._changed.set()
        steps = self._script[message.type]
        return steps.popleft() if steps else None

    def _members(self, name: str | None) -> list["_Member"]:
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
        room = self._rooms.setdefault(name, _Room(name, self))
        await _Member(room, socket, request, claims).take_part()
        return socket


def _matches(request: tuple[str, str, Header], type: str, name: str | None) -> bool:
    return request[1] == type and name in (None, request[0])


class _Member:
    """One connection to a room."""

    def __init__(
        self, room: "_Room", socket: web.WebSocketResponse, request: web.Request, claims: dict[str, Any]
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
        step = self._room.server.next_step(self, message)
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


@dataclass(slots=True)
class _Queue:
    messages: deque[Any] = field(default_factory=deque)
    waiters: deque[asyncio.Future[Any]] = field(default_factory=deque)

    def put(self, message: Any) -> None:
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(message)
                return
        self.messages.append(message)


@dataclass(slots=True)
class _Registration:
    kind: str  # agent or toolkit
    member: _Member
    header: Header


@dataclass(slots=True)
class _Document:
    schema: MeshSchema
    content: SharedDocument
    readers: set[str] = field(default_factory=set)


_Handler = Callable[[_Member, MessageReceived], Awaitable[Response | None]]


class _Room:
    """What a room knows. A handler returns the answer, or None when there is none, or none yet."""

    def __init__(self, name: str, server: StandInServer) -> None:
        self.name = name
        self.server = server
        self.session_id = str(uuid.uuid4())
        self.members: dict[str, _Member] = {}
        self.queues: dict[str, _Queue] = {}
        self.files: dict[str, bytes] = {}
        self.documents: dict[str, _Document] = {}
        self._handles: dict[str, tuple[_Member, str, bytearray]] = {}
        self._registrations: dict[str, _Registration] = {}
        # Who asked, under which id, and who shall answer: by task id, and by message id of the provider.
        self._asked: dict[str, tuple[_Member, int, _Member]] = {}
        self._called: dict[tuple[str, int], tuple[_Member, int]] = {}
        self._handlers: dict[str, _Handler] = {
            "set_attributes": self._set_attributes,
            "messaging.enable": self._enable,
            "messaging.disable": self._disable,
            "messaging.send": self._send,
            "messaging.broadcast": self._broadcast,
            "queues.list": self._list_queues,
            "queues.open": self._open_queue,
            "queues.send": self._enqueue,
            "queues.receive": self._receive,
            "queues.drain": self._drain_queue,
            "queues.close": self._close_queue,
            "storage.exists": self._exists,
            "storage.stat": self._stat,
            "storage.list": self._list_files,
            "storage.open": self._open_file,
            "storage.write": self._write,
            "storage.close": self._close_file,
            "storage.download": self._download,
            "storage.delete": self._delete,
            "agent.register_agent": self._register,
            "agent.register_toolkit": self._register,
            "agent.unregister_agent": self._unregister,
            "agent.unregister_toolkit": self._unregister,
            "agent.list_agents": self._list_agents,
            "agent.list_toolkits": self._list_toolkits,
            "agent.ask": self._ask,
            "agent.ask_response": self._ask_answered,
            "agent.invoke_tool": self._invoke,
            "agent.tool_call_response": self._call_answered,
            "developer.log": self._log,
            "developer.watch": self._watch,
            "developer.unwatch": self._watch,
            "room.create": self._create_document,
            "room.connect": self._connect_document,
            "room.sync": self._sync,
            "room.disconnect": self._disconnect_document,
        }

    async def answer(self, member: _Member, message: MessageReceived) -> Response | None:
        """The answer to a request. Raises RoomError."""
        handler = self._handlers.get(message.type)
        if handler is None:
            raise RoomError(f"unknown request {message.type}")
        return await handler(member, message)

    async def left(self, member: _Member) -> None:
        """Drop what belonged to a connection that ended."""
        for key in [key for key, each in self._registrations.items() if each.member is member]:
            del self._registrations[key]
        for handle in [handle for handle, (writer, _, _) in self._handles.items() if writer is member]:
            del self._handles[handle]
        for document in self.documents.values():
            document.readers.discard(member.id)
        await self._fail_calls(member)
        if member.is_enabled:
            await self._disable(member)

    async def _fail_calls(self, provider: _Member) -> None:
        gone = ErrorResponse(text=f"{provider.name} has left the room")
        for task_id in [task_id for task_id, (_, _, agent) in self._asked.items() if agent is provider]:
            asker, request_id, _ = self._asked.pop(task_id)
            await asker.reply(request_id, gone)
        for key in [key for key in self._called if key[0] == provider.id]:
            caller, request_id = self._called.pop(key)
            await caller.reply(request_id, gone)

    # Participants

    def _others(self, member: _Member) -> list[_Member]:
        return [other for other in self.members.values() if other is not member and other.is_enabled]

    async def _present(self, member: _Member, type: str, message: Header) -> None:
        header = {"from_participant_id": member.id, "type": type, "message": message}
        for other in self._others(member):
            await other.tell("messaging.send", header)

    async def _set_attributes(self, member: _Member, message: MessageReceived) -> None:
        member.attributes.update(message.header)
        await self._present(member, "participant.attributes", {"attributes": message.header})

    async def _enable(self, member: _Member, _: MessageReceived) -> Response:
        member.is_enabled = True
        cards = {"participants": [other.card for other in self._others(member)]}
        header = {"from_participant_id": member.id, "type": "messaging.enabled", "message": cards}
        await member.tell("messaging.send", header)
        await self._present(member, "participant.enabled", member.card)
        return EmptyResponse()

    async def _disable(self, member: _Member, _: MessageReceived | None = None) -> Response:
        member.is_enabled = False
        await self._present(member, "participant.disabled", {"id": member.id})
        return EmptyResponse()

    async def _send(self, member: _Member, message: MessageReceived) -> Response:
        to = self.members.get(message.header["to_participant_id"])
        if to is None:
            raise RoomError("no such participant")
        await to.tell("messaging.send", self._relayed(member, message), message.payload)
        return EmptyResponse()

    async def _broadcast(self, member: _Member, message: MessageReceived) -> Response:
        for other in self._others(member):
            await other.tell("messaging.send", self._relayed(member, message), message.payload)
        return EmptyResponse()

    def _relayed(self, member: _Member, message: MessageReceived) -> Header:
        header = message.header
        return {"from_participant_id": member.id, "type": header["type"], "message": header["message"]}

    # Queues

    def _queue(self, header: Header) -> _Queue:
        if header["name"] not in self.queues and not header.get("create", False):
            raise RoomError("no such queue")
        return self.queues.setdefault(header["name"], _Queue())

    async def _list_queues(self, _: _Member, __: MessageReceived) -> Response:
        sizes = [{"name": name, "size": len(queue.messages)} for name, queue in self.queues.items()]
        return JsonResponse(json={"queues": sizes})

    async def _open_queue(self, _: _Member, message: MessageReceived) -> Response:
        self.queues.setdefault(message.header["name"], _Queue())
        return EmptyResponse()

    async def _enqueue(self, _: _Member, message: MessageReceived) -> Response:
        self._queue(message.header).put(message.header["message"])
        return EmptyResponse()

    async def _receive(self, _: _Member, message: MessageReceived) -> Response:
        queue = self._queue(message.header)
        if queue.messages:
            return _body(queue.messages.popleft())
        if not message.header.get("wait", True):
            return EmptyResponse()
        waiter = asyncio.get_running_loop().create_future()
        queue.waiters.append(waiter)
        try:
            async with asyncio.timeout(self.server.receive_seconds):
                return _body(await waiter)
        except TimeoutError:
            return EmptyResponse()

    async def _drain_queue(self, _: _Member, message: MessageReceived) -> Response:
        self._queue(message.header).messages.clear()
        return EmptyResponse()

    async def _close_queue(self, _: _Member, message: MessageReceived) -> Response:
        queue = self._queue(message.header)
        del self.queues[message.header["name"]]
        for waiter in queue.waiters:
            if not waiter.done():
                waiter.set_exception(RoomError("the queue was closed"))
        return EmptyResponse()

    # Storage

    def _is_folder(self, path: str) -> bool:
        return path == "" or any(file.startswith(f"{path}/") for file in self.files)

    async def _exists(self, _: _Member, message: MessageReceived) -> Response:
        path = _path(message)
        return JsonResponse(json={"exists": path in self.files or self._is_folder(path)})

    async def _stat(self, _: _Member, message: MessageReceived) -> Response:
        path = _path(message)
        if path not in self.files and not self._is_folder(path):
            return JsonResponse(json={"exists": False})
        name = path.rpartition("/")[2]
        return JsonResponse(json={"exists": True, "name": name, "is_folder": path not in self.files})

    async def _list_files(self, _: _Member, message: MessageReceived) -> Response:
        path = _path(message)
        below = [file.removeprefix(f"{path}/" if path else "") for file in self.files if path in _folders(file)]
        names = {name.partition("/")[0]: "/" in name for name in below}
        files = [{"name": name, "is_folder": is_folder} for name, is_folder in names.items()]
        return JsonResponse(json={"files": files})

    async def _open_file(self, member: _Member, message: MessageReceived) -> Response:
        path = _path(message)
        if path in self.files and not message.header.get("overwrite", False):
            raise RoomError("the file exists")
        handle = str(uuid.uuid4())
        self._handles[handle] = (member, path, bytearray())
        return JsonResponse(json={"handle": handle})

    async def _write(self, _: _Member, message: MessageReceived) -> Response:
        self._handles[message.header["handle"]][2].extend(message.payload)
        return EmptyResponse()

    async def _close_file(self, member: _Member, message: MessageReceived) -> Response:
        _, path, data = self._handles.pop(message.header["handle"])
        self.files[path] = bytes(data)
        await self._tell_all("storage.file.updated", {"path": path, "participant_id": member.id})
        return EmptyResponse()

    async def _download(self, _: _Member, message: MessageReceived) -> Response:
        path = self._file(message)
        return FileResponse(data=self.files[path], name=path.rpartition("/")[2], mime_type="application/octet-stream")

    async def _delete(self, member: _Member, message: MessageReceived) -> Response:
        path = self._file(message)
        del self.files[path]
        await self._tell_all("storage.file.deleted", {"path": path, "participant_id": member.id})
        return EmptyResponse()

    def _file(self, message: MessageReceived) -> str:
        path = _path(message)
        if path not in self.files:
            raise RoomError("file not found")
        return path

    async def _tell_all(self, type: str, header: Header) -> None:
        for member in list(self.members.values()):
            await member.tell(type, header)

    # Agents and toolkits

    async def _register(self, member: _Member, message: MessageReceived) -> Response:
        registration = str(uuid.uuid4())
        self._registrations[registration] = _Registration(message.type.rpartition("_")[2], member, message.header)
        return JsonResponse(json={"id": registration})

    async def _unregister(self, _: _Member, message: MessageReceived) -> Response:
        self._registrations.pop(message.header["id"], None)
        return EmptyResponse()

    def _registered(self, kind: str) -> list[_Registration]:
        """The oldest first."""
        return [each for each in self._registrations.values() if each.kind == kind]

    async def _list_agents(self, _: _Member, __: MessageReceived) -> Response:
        return JsonResponse(json={"agents": [each.header for each in self._registered("agent")]})

    async def _list_toolkits(self, member: _Member, message: MessageReceived) -> Response:
        owner = message.header.get("participant_id") or member.id
        seen = [each for each in self._registered("toolkit") if each.header["public"] or each.member.id == owner]
        return JsonResponse(json={"tools": {each.header["name"]: _toolkit(each.header) for each in seen}})

    def _provider(self, kind: str, name: str, owner: str | None = None) -> _Member:
        for each in reversed(self._registered(kind)):
            is_open = kind == "agent" or each.header["public"] or each.member.id == owner
            if each.header["name"] == name and is_open:
                return each.member
        raise RoomError(f"no {kind} {name}")

    async def _ask(self, member: _Member, message: MessageReceived) -> None:
        agent = self._provider("agent", message.header["agent"])
        task_id = str(uuid.uuid4())
        self._asked[task_id] = (member, message.id, agent)
        asked = {"task_id": task_id, "arguments": message.header["arguments"], "caller_id": member.id, "toolkits": []}
        await agent.tell("agent.ask", asked)

    async def _ask_answered(self, _: _Member, message: MessageReceived) -> None:
        asker, request_id, _agent = self._asked.pop(message.header["task_id"])
        header = message.header
        answer = JsonResponse(json={"answer": header.get("answer")})
        await asker.reply(request_id, ErrorResponse(text=header["error"]) if header.get("error") else answer)

    async def _invoke(self, member: _Member, message: MessageReceived) -> None:
        header = message.header
        owner = header.get("participant_id") or member.id
        provider = self._provider("toolkit", header["toolkit"], owner)
        call = {"name": header["tool"], "arguments": header["arguments"], "caller_id": member.id}
        call |= {key: header.get(key) for key in ("caller_context", "on_behalf_of_id")}
        call_id, cut = provider.connection.notify(f"agent.tool_call.{header['toolkit']}", call, message.payload)
        self._called[provider.id, call_id] = (member, message.id)
        await provider.send(cut)

    async def _call_answered(self, provider: _Member, message: MessageReceived) -> None:
        caller, request_id = self._called.pop((provider.id, message.id))
        packed = pack_message(message.header, message.payload)
        await caller.send(packets(Message(request_id, RESPONSE, packed), slice_bytes=SLICE_BYTES))

    # Developer log

    async def _log(self, _: _Member, message: MessageReceived) -> Response:
        for watcher in [each for each in self.members.values() if each.is_watching]:
            await watcher.tell("developer.log", message.header)
        return EmptyResponse()

    async def _watch(self, member: _Member, message: MessageReceived) -> Response:
        member.is_watching = message.type == "developer.watch"
        return EmptyResponse()

    # Documents

    def _schema(self, path: str) -> MeshSchema:
        schema = self.files.get(f".schemas/{path.rpartition('.')[2]}.json")
        if schema is None:
            raise RoomError("no schema for this document")
        return MeshSchema.from_json(json.loads(schema))

    async def _create_document(self, _: _Member, message: MessageReceived) -> Response:
        path = _path(message)
        if path in self.documents:
            raise RoomError("the document exists")
        schema = self._schema(path)
        first = MeshDocument(schema=schema, json=message.header.get("json"))
        content = SharedDocument()
        content.apply_update(first.get_state())
        self.documents[path] = _Document(schema, content)
        return EmptyResponse()

    async def _connect_document(self, member: _Member, message: MessageReceived) -> Response | None:
        path = _path(message)
        if path not in self.documents:
            if not message.header.get("create", True):
                raise RoomError("no such document")
            self.documents[path] = _Document(self._schema(path), SharedDocument())
        document = self.documents[path]
        document.readers.add(member.id)
        # The answer comes first, then the state: the other order stops an SDK client for good.
        await member.reply(message.id, JsonResponse(json={"schema": document.schema.to_json()}))
        await member.tell("room.sync", {"path": path}, base64.b64encode(document.content.state()))
        return None

    async def _sync(self, member: _Member, message: MessageReceived) -> Response:
        path = _path(message)
        document = self.documents[path]
        if document.content.apply_update(base64.b64decode(message.payload)):
            for reader in document.readers - {member.id}:
                await self.members[reader].tell("room.sync", {"path": path}, message.payload)
        return EmptyResponse()

    async def _disconnect_document(self, member: _Member, message: MessageReceived) -> Response:
        document = self.documents.get(_path(message))
        if document is not None:
            document.readers.discard(member.id)
        return EmptyResponse()


def _body(message: Any) -> Response:
    return TextResponse(text=message) if isinstance(message, str) else JsonResponse(json=message)


def _path(message: MessageReceived) -> str:
    return str(message.header["path"]).strip("/")


def _folders(file: str) -> list[str]:
    parts = file.split("/")[:-1]
    return ["", *("/".join(parts[: count + 1]) for count in range(len(parts)))]


def _toolkit(header: Header) -> Header:
    return {key: header.get(key) for key in ("title", "description", "thumbnail_url", "tools")}
