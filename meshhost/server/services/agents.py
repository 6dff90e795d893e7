"""The registry of toolkits and agents, and the calls between participants (room-protocol §11).

Of several public toolkits, or agents, of one name the newest registration answers; when it goes, the one before takes over.
A private toolkit shadows public ones for its owner, and for a request that names its owner; nobody else sees it.

Extension "cancel": a participant that came with meshhost's client is told `agent.tool_call_cancelled {"id": message id}` or
`agent.ask_cancelled {"task_id"}` when nobody waits for its answer any more: the caller left, the deadline passed, or the
caller sent `agent.abandon {"call": key}` with the key it had put into its `agent.invoke_tool` or `agent.ask` as `call`.
"""

import json
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from meshhost.errors import (
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    RequestTimeoutError,
    ToolError,
)
from meshhost.identity.grants import ApiScope
from meshhost.protocol.messages import EmptyResponse, ErrorResponse, JsonResponse, unpack_response
from meshhost.server.core.calls import Call, CallAnswer
from meshhost.server.core.dispatch import Body, Operation, Operations
from meshhost.server.core.participants import Participant
from meshhost.server.core.room import Registration, Room
from meshhost.server.wire.connection import Answer, Request

__all__ = ["AgentHandlers", "CallOut"]

MAX_REGISTRATIONS = 256
MAX_NAME = 128
# What one participant may register altogether, in characters of JSON: a list of all must stay far below a message's limit.
MAX_DESCRIPTIONS = 4 * 1024 * 1024

# Calls an agent into the room at a URL: room, URL, identity, arguments, scope. Raises RoomError when it cannot.
CallOut = Callable[[Room, str, str, dict[str, Any], ApiScope], Awaitable[None]]


class _Nothing(Body):
    pass


class _Registration(Body):
    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = Field(min_length=1, max_length=MAX_NAME)


class _Tool(Body):
    # What is listed must be readable for every client: one registration must not spoil the list for all.
    model_config = ConfigDict(extra="allow", frozen=True)
    title: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    thumbnail_url: str | None = None
    defs: dict[str, dict[str, Any] | bool] | None = None


class _Toolkit(_Registration):
    title: str | None = None
    description: str | None = None
    thumbnail_url: str | None = None
    public: bool = False
    tools: dict[str, _Tool]


def _check_requirement(requirement: dict[str, Any]) -> dict[str, Any]:
    name = requirement.get("toolkit", requirement.get("schema"))
    tools = requirement.get("tools")
    if not isinstance(name, str) or not (tools is None or isinstance(tools, list)):
        raise ValueError("expected a toolkit (with a list of tools, or null) or a schema")
    return requirement if "schema" in requirement else {**requirement, "tools": tools}


_Requirement = Annotated[dict[str, Any], AfterValidator(_check_requirement)]


class _Agent(_Registration):
    title: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    requires: list[_Requirement] | None = None
    supports_tools: bool | None = None
    labels: list[str] | None = None


class _Unregister(Body):
    id: str


class _ListToolkits(Body):
    participant_id: str | None = None


class _InvokeTool(Body):
    toolkit: str
    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    participant_id: str | None = None
    on_behalf_of_id: str | None = None
    caller_context: dict[str, Any] | None = None
    call: str | None = Field(default=None, max_length=MAX_NAME)


class _ToolAnswer(Body):
    model_config = ConfigDict(extra="allow", frozen=True)


class _Ask(Body):
    agent: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    on_behalf_of_id: str | None = None
    requires: list[_Requirement] | None = None
    call: str | None = Field(default=None, max_length=MAX_NAME)


class _Abandon(Body):
    call: str


class _AskAnswer(Body):
    model_config = ConfigDict(extra="allow", frozen=True)
    task_id: str


class _Call(Body):
    name: str = Field(min_length=1, max_length=MAX_NAME)
    url: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    api: ApiScope | None = None


class AgentHandlers:
    """Answers the requests of this service. `call_seconds` bounds every wait for another participant's answer."""

    def __init__(self, *, call_seconds: float, call_out: CallOut) -> None:
        self._call_seconds = call_seconds
        self._call_out = call_out

    def operations(self) -> Operations:
        """The requests of this service."""
        return {
            "agent.register_toolkit": Operation(_Toolkit, _register_toolkit, _may_register_toolkit, _name),
            "agent.unregister_toolkit": Operation(_Unregister, _unregister_toolkit),
            "agent.list_toolkits": Operation(_ListToolkits, _list_toolkits, _may_use_tools),
            "agent.invoke_tool": Operation(_InvokeTool, self._invoke_tool, _may_invoke, _toolkit_name),
            "agent.tool_call_response": Operation(_ToolAnswer, _take_tool_answer, is_one_way=True),
            "agent.register_agent": Operation(_Agent, _register_agent, _may_register_agent, _name),
            "agent.unregister_agent": Operation(_Unregister, _unregister_agent),
            "agent.list_agents": Operation(_Nothing, _list_agents, _may_use_agents),
            "agent.ask": Operation(_Ask, self._ask, _may_use_agents, lambda body: body.agent),
            "agent.ask_response": Operation(_AskAnswer, _take_ask_answer, is_one_way=True),
            "agent.abandon": Operation(_Abandon, _abandon, is_one_way=True),
            "agent.call": Operation(_Call, self._call, _may_call, _name),
        }

    async def _invoke_tool(self, request: Request, body: _InvokeTool) -> Answer:
        room, caller = request.room, request.participant
        provider = _toolkit_provider(room, body, caller)
        if body.tool not in provider.description["tools"]:
            raise NotFoundError(f"toolkit {body.toolkit!r} has no tool {body.tool!r}")
        if provider.participant.connection is None:
            raise ToolError("the participant that offers the tool has left the room")
        header = {
            "name": body.tool,
            "arguments": body.arguments,
            "caller_id": caller.id,
            "caller_context": body.caller_context,
            "on_behalf_of_id": body.on_behalf_of_id,
        }
        connection = provider.participant.connection
        message_id = connection.tell(
            f"agent.tool_call.{body.toolkit}", header, request.message.payload, trace=request.message.trace
        )
        call = Call(provider.participant, message_id, connection, caller, body.call)
        answer, payload = await self._wait(room, call, f"tool {body.tool!r} of toolkit {body.toolkit!r}")
        return unpack_response(answer, payload)

    async def _ask(self, request: Request, body: _Ask) -> Answer:
        room, caller = request.room, request.participant
        agent = _newest(entry for entry in room.agents.values() if entry.name == body.agent)
        if agent is None or agent.participant.connection is None:
            raise NotFoundError(f"no agent {body.agent!r} in this room")
        task_id = str(uuid.uuid4())
        header: dict[str, Any] = {
            "task_id": task_id,
            "arguments": body.arguments,
            "caller_id": caller.id,
            "toolkits": _toolkits_for_ask(room, caller, body.requires or []),
        }
        if body.on_behalf_of_id is not None:
            header["on_behalf_of_id"] = body.on_behalf_of_id
        connection = agent.participant.connection
        connection.tell("agent.ask", header, trace=request.message.trace)
        call = Call(agent.participant, task_id, connection, caller, body.call)
        answer, _ = await self._wait(room, call, f"agent {body.agent!r}")
        if "answer" not in answer:
            code = answer.get("code")
            text = str(answer.get("error") or "the agent failed")
            return ErrorResponse(text=text, code=code if isinstance(code, int) else None)
        return JsonResponse(json={"answer": answer["answer"]})

    async def _wait(self, room: Room, call: Call, what: str) -> CallAnswer:
        is_answered = False
        try:
            answer = await room.calls.wait(call, timeout=self._call_seconds)
            is_answered = True
        except RequestTimeoutError:
            raise RequestTimeoutError(f"{what} did not answer within {self._call_seconds:g} s") from None
        finally:
            if not is_answered:
                _tell_cancelled(call)
        return answer

    async def _call(self, request: Request, body: _Call) -> Answer:
        wanted = body.api or ApiScope.agent_default()
        scope = wanted.intersection(request.participant.scope)
        await self._call_out(request.room, body.url, body.name, body.arguments, scope)
        return EmptyResponse()


def _tell_cancelled(call: Call) -> None:
    # A MeshAgent client would not know the message; and a call of a former connection is over already.
    if not call.provider.can_resume or call.provider.connection is not call.connection:
        return
    if isinstance(call.key, int):
        call.connection.tell("agent.tool_call_cancelled", {"id": call.key})
    else:
        call.connection.tell("agent.ask_cancelled", {"task_id": call.key})


def _may_register_toolkit(scope: ApiScope, body: _Toolkit) -> bool:
    agents = scope.agents
    if agents is None:
        return False
    return agents.register_public_toolkit if body.public else agents.register_private_toolkit


def _may_register_agent(scope: ApiScope, _: Body) -> bool:
    return scope.agents is not None and scope.agents.register_agent


def _may_use_tools(scope: ApiScope, _: Body) -> bool:
    return scope.agents is not None and scope.agents.use_tools


def _may_invoke(scope: ApiScope, body: _InvokeTool) -> bool:
    return scope.agents is not None and scope.agents.can_use_toolkit(body.toolkit)


def _may_use_agents(scope: ApiScope, _: Body) -> bool:
    return scope.agents is not None and scope.agents.use_agents


def _may_call(scope: ApiScope, _: Body) -> bool:
    return scope.agents is not None and scope.agents.call


def _name(body: Any) -> str:
    return str(body.name)


def _toolkit_name(body: _InvokeTool) -> str:
    return body.toolkit


def _register_toolkit(request: Request, body: _Toolkit) -> Answer:
    return _register(request, request.room.toolkits, body, is_public=body.public)


def _register_agent(request: Request, body: _Agent) -> Answer:
    return _register(request, request.room.agents, body, is_public=True)


def _register(
    request: Request, registry: dict[str, Registration], body: _Registration, *, is_public: bool
) -> JsonResponse:
    _check_name(body.name)
    room = request.room
    mine = [
        entry for entry in (*room.toolkits.values(), *room.agents.values()) if entry.participant is request.participant
    ]
    if len(mine) >= MAX_REGISTRATIONS:
        raise LimitExceededError(f"over {MAX_REGISTRATIONS} registrations of one participant")
    description = body.model_dump(exclude_unset=True)
    size = len(json.dumps(description))
    if size + sum(entry.size for entry in mine) > MAX_DESCRIPTIONS:
        raise LimitExceededError(f"over {MAX_DESCRIPTIONS} characters of descriptions of one participant")
    registration = Registration(
        id=str(uuid.uuid4()),
        participant=request.participant,
        name=body.name,
        is_public=is_public,
        description=description,
        size=size,
    )
    registry[registration.id] = registration
    return JsonResponse(json={"id": registration.id})


def _check_name(name: str) -> None:
    # A toolkit's name is part of a message type, whose bytes count.
    if len(name.encode()) > MAX_NAME:
        raise InvalidRequestError("name", f"expected at most {MAX_NAME} bytes")


def _unregister_toolkit(request: Request, body: _Unregister) -> Answer:
    return _unregister(request, request.room.toolkits, body)


def _unregister_agent(request: Request, body: _Unregister) -> Answer:
    return _unregister(request, request.room.agents, body)


def _unregister(request: Request, registry: dict[str, Registration], body: _Unregister) -> EmptyResponse:
    registration = registry.get(body.id)
    if registration is None or registration.participant is not request.participant:
        raise NotFoundError("no such registration of this participant")
    del registry[body.id]
    return EmptyResponse()


def _list_toolkits(request: Request, body: _ListToolkits) -> Answer:
    visible = _visible_toolkits(request.room, request.participant, body.participant_id)
    return JsonResponse(json={"tools": {entry.name: _toolkit_card(entry) for entry in visible}})


def _list_agents(request: Request, _: _Nothing) -> Answer:
    newest = {entry.name: entry for entry in request.room.agents.values()}
    return JsonResponse(json={"agents": [entry.description for entry in newest.values()]})


def _take_tool_answer(request: Request, body: _ToolAnswer) -> Answer:
    message = request.message
    header = dict(body.model_dump())
    request.room.calls.answer(request.participant, message.id, header, message.payload)
    return None


def _take_ask_answer(request: Request, body: _AskAnswer) -> Answer:
    request.room.calls.answer(request.participant, body.task_id, dict(body.model_dump()), b"")
    return None


def _abandon(request: Request, body: _Abandon) -> Answer:
    request.room.calls.abandon(request.participant, body.call)
    return None


def _newest(registrations: Iterable[Registration]) -> Registration | None:
    # Registries keep the order of registration: of several with one name the newest answers.
    return next(iter(reversed(list(registrations))), None)


def _visible_toolkits(room: Room, caller: Participant, participant_id: str | None) -> list[Registration]:
    """Public toolkits, the caller's own, and those of the participant that is named; one per name, the nearest."""
    agents = caller.scope.agents
    by_name: dict[str, Registration] = {}
    for entry in room.toolkits.values():
        owner = entry.participant
        if agents is None or not agents.can_use_toolkit(entry.name):
            continue
        if not (entry.is_public or owner is caller or owner.id == participant_id):
            continue
        present = by_name.get(entry.name)
        if present is None or _nearness(entry, caller, participant_id) >= _nearness(present, caller, participant_id):
            by_name[entry.name] = entry
    return list(by_name.values())


def _nearness(entry: Registration, caller: Participant, participant_id: str | None) -> int:
    if entry.participant.id == participant_id:
        return 2
    return 1 if participant_id is None and entry.participant is caller else 0


def _toolkit_provider(room: Room, body: _InvokeTool, caller: Participant) -> Registration:
    visible = _visible_toolkits(room, caller, body.participant_id)
    found = _newest(entry for entry in visible if entry.name == body.toolkit)
    if found is None:
        raise NotFoundError(f"no toolkit {body.toolkit!r} in this room")
    return found


def _toolkit_card(entry: Registration) -> dict[str, Any]:
    description = entry.description
    return {
        "title": description.get("title") or entry.name,
        "description": description.get("description") or "",
        "thumbnail_url": description.get("thumbnail_url"),
        "tools": {name: _tool_card(name, tool) for name, tool in description["tools"].items()},
    }


def _tool_card(name: str, tool: dict[str, Any]) -> dict[str, Any]:
    defaults = {"title": name, "description": "", "input_schema": {"type": "object"}, "thumbnail_url": None}
    return defaults | {key: value for key, value in tool.items() if value is not None}


def _toolkits_for_ask(room: Room, caller: Participant, requires: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The toolkits that an ask names and its caller may use, in the list form that agents read (§11.5)."""
    visible = {entry.name: entry for entry in _visible_toolkits(room, caller, caller.id)}
    result = []
    for requirement in requires:
        name = requirement.get("toolkit")
        if name is None:
            continue
        entry = visible.get(name)
        if entry is None:
            raise NotFoundError(f"no toolkit {name!r} in this room, which the ask requires")
        wanted = requirement.get("tools")
        card = _toolkit_card(entry)
        tools = [
            {"name": tool_name} | tool
            for tool_name, tool in card["tools"].items()
            if wanted is None or tool_name in wanted
        ]
        result.append({"name": name} | card | {"tools": tools})
    return result
