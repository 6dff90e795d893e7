"""A room of the stand-in: who is in it, messaging and the developer log. Other services have modules of their own."""

import uuid
from collections.abc import Awaitable, Callable

from doubles.stand_in.agents import Agents
from doubles.stand_in.documents import Documents
from doubles.stand_in.member import Member
from doubles.stand_in.queues import Queues
from doubles.stand_in.storage import Storage
from meshhost.errors import RoomError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import EmptyResponse, Header, Response

__all__ = ["Handler", "Room"]

Handler = Callable[[Member, MessageReceived], Awaitable[Response | None]]
"""Handles a request; returns the answer, or None when there is none, or none yet. Raises RoomError."""


class Room:
    """What a room knows."""

    def __init__(self, name: str, *, receive_seconds: float) -> None:
        self.name = name
        self.session_id = str(uuid.uuid4())
        self.members: dict[str, Member] = {}
        storage = Storage(self.members)
        self._agents = Agents()
        self._documents = Documents(self.members, storage)
        self._storage = storage
        self._handlers: dict[str, Handler] = {
            **self._own_handlers(),
            **Queues(receive_seconds).handlers(),
            **storage.handlers(),
            **self._agents.handlers(),
            **self._documents.handlers(),
        }

    def _own_handlers(self) -> dict[str, Handler]:
        return {
            "set_attributes": self._set_attributes,
            "messaging.enable": self._enable,
            "messaging.disable": self._disable,
            "messaging.send": self._send,
            "messaging.broadcast": self._broadcast,
            "developer.log": self._log,
            "developer.watch": self._watch,
            "developer.unwatch": self._watch,
        }

    async def answer(self, member: Member, message: MessageReceived) -> Response | None:
        """The answer to a request. Raises RoomError."""
        handler = self._handlers.get(message.type)
        if handler is None:
            raise RoomError(f"unknown request {message.type}")
        return await handler(member, message)

    async def left(self, member: Member) -> None:
        """Drop what belonged to a connection that ended."""
        self._storage.left(member)
        self._documents.left(member)
        await self._agents.left(member)
        if member.is_enabled:
            await self._disable(member)

    # Participants

    def _others(self, member: Member) -> list[Member]:
        return [other for other in self.members.values() if other is not member and other.is_enabled]

    async def _present(self, member: Member, type: str, message: Header) -> None:
        header = {"from_participant_id": member.id, "type": type, "message": message}
        for other in self._others(member):
            await other.tell("messaging.send", header)

    async def _set_attributes(self, member: Member, message: MessageReceived) -> None:
        member.attributes.update(message.header)
        await self._present(member, "participant.attributes", {"attributes": message.header})

    async def _enable(self, member: Member, _: MessageReceived) -> Response:
        member.is_enabled = True
        cards = {"participants": [other.card for other in self._others(member)]}
        header = {"from_participant_id": member.id, "type": "messaging.enabled", "message": cards}
        await member.tell("messaging.send", header)
        await self._present(member, "participant.enabled", member.card)
        return EmptyResponse()

    async def _disable(self, member: Member, _: MessageReceived | None = None) -> Response:
        member.is_enabled = False
        await self._present(member, "participant.disabled", {"id": member.id})
        return EmptyResponse()

    async def _send(self, member: Member, message: MessageReceived) -> Response:
        to = self.members.get(message.header["to_participant_id"])
        if to is None:
            raise RoomError("no such participant")
        await to.tell("messaging.send", self._relayed(member, message), message.payload)
        return EmptyResponse()

    async def _broadcast(self, member: Member, message: MessageReceived) -> Response:
        for other in self._others(member):
            await other.tell("messaging.send", self._relayed(member, message), message.payload)
        return EmptyResponse()

    def _relayed(self, member: Member, message: MessageReceived) -> Header:
        header = message.header
        return {"from_participant_id": member.id, "type": header["type"], "message": header["message"]}

    # Developer log

    async def _log(self, _: Member, message: MessageReceived) -> Response:
        for watcher in [each for each in self.members.values() if each.is_watching]:
            await watcher.tell("developer.log", message.header)
        return EmptyResponse()

    async def _watch(self, member: Member, message: MessageReceived) -> Response:
        member.is_watching = message.type == "developer.watch"
        return EmptyResponse()
