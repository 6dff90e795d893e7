"""A client that speaks on the wire as SDK 0.56 does, and shows each message: for what the real one hides or never sends."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from meshhost.protocol import contents
from meshhost.protocol.frames import Message, OversizedMessage, PacketAssembler, packets
from meshhost.protocol.messages import pack_message, unpack_message
from meshhost.testing.server import RunningServer

__all__ = ["Got", "NewerClient", "newer_client"]

SECONDS = 10.0
_CONTENTS = ("json", "text", "file", "link", "empty", "binary", "control")


@dataclass(frozen=True, slots=True)
class Got:
    """A message of the server."""

    id: int
    type: str
    header: dict[str, Any]
    payload: bytes


class NewerClient:
    """See above. Replies are found by their id, chunks of answers by the id of their call, and the rest by type."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self._ids = itertools.count(1)
        self._mailboxes: dict[object, asyncio.Queue[Got]] = {}
        self.id = ""

    def _mailbox(self, key: object) -> "asyncio.Queue[Got]":
        return self._mailboxes.setdefault(key, asyncio.Queue())

    async def read(self) -> None:
        """Take messages, to the end of the connection."""
        assembler = PacketAssembler()
        async for packet in self.socket:
            if packet.type is not aiohttp.WSMsgType.BINARY:
                break
            message = assembler.receive(packet.data)
            if message is None or isinstance(message, OversizedMessage):
                continue
            header, payload = unpack_message(message.data)
            key: object = message.type
            if message.type == "__response__":
                key = message.id
            elif message.type == "room.tool_call_response_chunk":
                key = header["tool_call_id"]
            self._mailbox(key).put_nowait(Got(message.id, message.type, header, payload))

    async def next(self, key: object) -> Got:
        """The next message of this type, reply of this id, or chunk of this call."""
        async with asyncio.timeout(SECONDS):
            return await self._mailbox(key).get()

    def has(self, key: object) -> bool:
        """Whether such a message has come."""
        return not self._mailbox(key).empty()

    async def tell(self, type: str, header: dict[str, Any], payload: bytes = b"", *, id: int | None = None) -> int:
        """Send a message; returns its id."""
        message_id = next(self._ids) if id is None else id
        for packet in packets(Message(message_id, type, pack_message(header, payload))):
            await self.socket.send_bytes(packet)
        return message_id

    async def ask(self, type: str, header: dict[str, Any], payload: bytes = b"") -> Got:
        """The reply to a request."""
        return await self.next(await self.tell(type, header, payload))

    async def invoke(
        self,
        toolkit: str,
        tool: str,
        arguments: Any = None,
        *,
        call: str | None = None,
        payload: bytes = b"",
        **more: Any,
    ) -> int:
        """Invoke a tool; returns the id under which the reply comes."""
        header = {"toolkit": toolkit, "tool": tool, "arguments": arguments, **more}
        return await self.tell("room.invoke_tool", header | ({} if call is None else {"tool_call_id": call}), payload)

    async def answer_of(self, toolkit: str, tool: str, arguments: Any = None, **more: Any) -> Got:
        """The reply of a tool; JSON arguments may be given as they are."""
        if isinstance(arguments, dict) and arguments.get("type") not in _CONTENTS:
            arguments = contents.json_content(arguments)
        return await self.next(await self.invoke(toolkit, tool, arguments, **more))

    async def opened(self, toolkit: str, tool: str, call: str, **more: Any) -> int:
        """Open a stream, whose reply is not awaited."""
        return await self.invoke(toolkit, tool, contents.OPEN, call=call, **more)

    async def add(self, call: str, content: Any, payload: bytes = b"") -> int:
        """Send a chunk of a stream."""
        return await self.tell("room.tool_call_request_chunk", {"tool_call_id": call, "chunk": content}, payload)

    async def answer(self, got: Got, content: dict[str, Any], payload: bytes = b"") -> None:
        """Answer a call that this client got."""
        await self.tell("room.tool_call_response", content, payload, id=got.id)

    async def answer_more(self, got: Got, content: Any, payload: bytes = b"") -> None:
        """Send a chunk of the answer to a call that this client got."""
        header = {"tool_call_id": got.header["tool_call_id"], "chunk": content}
        await self.tell("room.tool_call_response_chunk", header, payload, id=got.id)

    async def offer(self, toolkit: str, *tools: str, public: bool = True) -> None:
        """Register a toolkit."""
        described = {
            name: {"title": name, "description": "", "input_spec": None, "output_spec": None} for name in tools
        }
        header = {"name": toolkit, "title": toolkit, "description": "", "public": public, "tools": described}
        assert (await self.ask("room.register_toolkit", header)).header["type"] == "json"


@asynccontextmanager
async def newer_client(
    server: RunningServer, room: str = "room", *, is_javascript: bool = False, **token: Any
) -> AsyncIterator[NewerClient]:
    """A client in a room; keyword arguments are those of `RunningServer.token`."""
    signed = server.token(room, **token)
    url, headers = f"{server.url}/rooms/{room}", {}
    if is_javascript:
        url = f"{url}?token={signed}"
    else:
        url, headers = f"{url}?v=0.56.0", {"Authorization": f"Bearer {signed}"}
    async with aiohttp.ClientSession() as http, http.ws_connect(url, headers=headers, max_msg_size=0) as socket:
        client = NewerClient(socket)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(client.read())
            client.id = (await client.next("connected")).header["participantId"]
            try:
                yield client
            finally:
                reading.cancel()
