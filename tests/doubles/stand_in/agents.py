"""Agents and toolkits of the stand-in: passes requests on to the participant that registered the name last."""

import uuid
from dataclasses import dataclass
from typing import Any

from doubles.stand_in.member import SLICE_BYTES, Member
from meshhost.errors import RoomError
from meshhost.protocol.connection import RESPONSE, MessageReceived
from meshhost.protocol.frames import Message, packets
from meshhost.protocol.messages import EmptyResponse, ErrorResponse, Header, JsonResponse, Response, pack_message

__all__ = ["Agents"]


@dataclass(slots=True)
class _Registration:
    kind: str  # agent or toolkit
    member: Member
    header: Header


class Agents:
    """What participants have registered, and what they were asked and have not answered yet."""

    def __init__(self) -> None:
        self._registrations: dict[str, _Registration] = {}
        # Who asked, under which id, and who shall answer: by task id, and by message id of the provider.
        self._asked: dict[str, tuple[Member, int, Member]] = {}
        self._called: dict[tuple[str, int], tuple[Member, int]] = {}

    def handlers(self) -> dict[str, Any]:
        """What handles each request."""
        return {
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
        }

    async def left(self, member: Member) -> None:
        """Drop its registrations, and fail what it was asked."""
        for key in [key for key, each in self._registrations.items() if each.member is member]:
            del self._registrations[key]
        await self._fail_calls(member)

    async def _fail_calls(self, provider: Member) -> None:
        gone = ErrorResponse(text=f"{provider.name} has left the room")
        for task_id in [task_id for task_id, (_, _, agent) in self._asked.items() if agent is provider]:
            asker, request_id, _ = self._asked.pop(task_id)
            await asker.reply(request_id, gone)
        for key in [key for key in self._called if key[0] == provider.id]:
            caller, request_id = self._called.pop(key)
            await caller.reply(request_id, gone)

    async def _register(self, member: Member, message: MessageReceived) -> Response:
        registration = str(uuid.uuid4())
        self._registrations[registration] = _Registration(message.type.rpartition("_")[2], member, message.header)
        return JsonResponse(json={"id": registration})

    async def _unregister(self, _: Member, message: MessageReceived) -> Response:
        self._registrations.pop(message.header["id"], None)
        return EmptyResponse()

    def _registered(self, kind: str) -> list[_Registration]:
        """The oldest first."""
        return [each for each in self._registrations.values() if each.kind == kind]

    async def _list_agents(self, _: Member, __: MessageReceived) -> Response:
        return JsonResponse(json={"agents": [each.header for each in self._registered("agent")]})

    async def _list_toolkits(self, member: Member, message: MessageReceived) -> Response:
        owner = message.header.get("participant_id") or member.id
        seen = [each for each in self._registered("toolkit") if each.header["public"] or each.member.id == owner]
        return JsonResponse(json={"tools": {each.header["name"]: _toolkit(each.header) for each in seen}})

    def _provider(self, kind: str, name: str, owner: str | None = None) -> Member:
        for each in reversed(self._registered(kind)):
            is_open = kind == "agent" or each.header["public"] or each.member.id == owner
            if each.header["name"] == name and is_open:
                return each.member
        raise RoomError(f"no {kind} {name}")

    async def _ask(self, member: Member, message: MessageReceived) -> None:
        agent = self._provider("agent", message.header["agent"])
        task_id = str(uuid.uuid4())
        self._asked[task_id] = (member, message.id, agent)
        asked = {"task_id": task_id, "arguments": message.header["arguments"], "caller_id": member.id, "toolkits": []}
        await agent.tell("agent.ask", asked)

    async def _ask_answered(self, _: Member, message: MessageReceived) -> None:
        asker, request_id, _agent = self._asked.pop(message.header["task_id"])
        header = message.header
        answer = JsonResponse(json={"answer": header.get("answer")})
        await asker.reply(request_id, ErrorResponse(text=header["error"]) if header.get("error") else answer)

    async def _invoke(self, member: Member, message: MessageReceived) -> None:
        header = message.header
        owner = header.get("participant_id") or member.id
        provider = self._provider("toolkit", header["toolkit"], owner)
        call = {"name": header["tool"], "arguments": header["arguments"], "caller_id": member.id}
        call |= {key: header.get(key) for key in ("caller_context", "on_behalf_of_id")}
        call_id, cut = provider.connection.notify(f"agent.tool_call.{header['toolkit']}", call, message.payload)
        self._called[provider.id, call_id] = (member, message.id)
        await provider.send(cut)

    async def _call_answered(self, provider: Member, message: MessageReceived) -> None:
        caller, request_id = self._called.pop((provider.id, message.id))
        packed = pack_message(message.header, message.payload)
        await caller.send(packets(Message(request_id, RESPONSE, packed), slice_bytes=SLICE_BYTES))


def _toolkit(header: Header) -> Header:
    return {key: header.get(key) for key in ("title", "description", "thumbnail_url", "tools")}
