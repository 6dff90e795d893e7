"""Requests about toolkits and agents, which differ from those of SDK 0.6 in more than their names.

In SDK 0.56 an agent that answers asks is a private toolkit of its own name with one tool, `run_{name}_task`. So an agent that
registered itself as clients of SDK 0.6 do is listed and called as such a toolkit. A participant may be named instead of its id.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from meshhost.errors import NotFoundError
from meshhost.identity.grants import ApiScope
from meshhost.protocol.messages import JsonResponse
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.wire.sdk056.streams import Ask

__all__ = ["INVOKE", "LIST", "Calls"]

INVOKE, LIST = "toolkits.invoke", "toolkits.list"
"""Operations of the dialect: invoke a tool of a participant, and list toolkits."""


class _List(Body):
    participant_id: str | None = None
    participant_name: str | None = None


class _Invoke(Body):
    toolkit: str
    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    participant_id: str | None = None
    on_behalf_of_id: str | None = None
    caller_context: dict[str, Any] | None = None


class Calls:
    """The operations about toolkits."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def operations(self) -> Operations:
        """The operations by name."""
        return {LIST: Operation(_List, self._list), INVOKE: Operation(_Invoke, self._invoke)}

    async def _list(self, request: Request, body: _List) -> Answer:
        owner = body.participant_id or _id_of(request, body.participant_name)
        listed = _json(await self._ask(request, "agent.list_toolkits", {"participant_id": owner}))
        toolkits = {name: {**card, "annotations": {}} for name, card in listed["tools"].items()}
        scope: ApiScope = request.participant.scope
        if scope.agents is not None and scope.agents.use_agents:
            agents = _json(await self._ask(request, "agent.list_agents", {}))["agents"]
            toolkits = {agent["name"]: _as_toolkit(agent) for agent in agents} | toolkits
        return JsonResponse(json={"tools": toolkits})

    async def _invoke(self, request: Request, body: _Invoke) -> Answer:
        arguments = body.model_dump()
        if body.tool == _task_of(body.toolkit) and self._has_no_toolkit(request, body):
            asking = {"agent": body.toolkit, "arguments": body.arguments, "on_behalf_of_id": body.on_behalf_of_id}
            answer = await self._ask(request, "agent.ask", asking)
            return JsonResponse(json=answer.json["answer"]) if isinstance(answer, JsonResponse) else answer
        return await self._ask(request, "agent.invoke_tool", arguments, request.message.payload)

    def _has_no_toolkit(self, request: Request, body: _Invoke) -> bool:
        listing = self._ask.at_once(request, "agent.list_toolkits", {"participant_id": body.participant_id})
        return body.toolkit not in _json(listing)["tools"]


def _json(answer: Answer) -> Any:
    assert isinstance(answer, JsonResponse)
    return answer.json


def _id_of(request: Request, name: str | None) -> str | None:
    """The id of a participant in the room. Raises NotFoundError."""
    if name is None:
        return None
    for member in request.room.connected():
        if member.name == name:
            return member.id
    raise NotFoundError(f"no participant {name!r} in this room")


def _task_of(agent: str) -> str:
    return f"run_{agent}_task"


def _as_toolkit(agent: Mapping[str, Any]) -> dict[str, Any]:
    name, schema = agent["name"], agent.get("input_schema")
    tool = {"title": agent.get("title") or name, "description": agent.get("description") or "", "input_schema": schema}
    return {
        "title": tool["title"],
        "description": tool["description"],
        "annotations": {},
        "tools": {_task_of(name): tool},
    }
