"""Answers the requests of the agents service: registrations, tool calls, asks, and calling agents in (room-protocol §11).

A tool call or an ask is passed on to its provider as an event, and the task of the caller's request waits for the answer
(`calls.py`). A request for something that is not registered yet, but may soon be, waits for it (`arrivals.py`). What is
registered is in `registry.py`. All are kept per room and end with the connection that made them: when a provider's connection
ends, its registrations are removed and the calls to it fail.

Extension "cancel": a peer with `Capability.CANCEL` receives `agent.tool_call_cancelled {"id": message id}` or
`agent.ask_cancelled {"task_id"}` when nobody waits for its answer any more: the caller left, the deadline passed, or the
caller sent `agent.abandon {"call": key}` with the key that its `agent.invoke_tool` or `agent.ask` had as `call`.

Extension "tool_progress": a provider may send `agent.tool_call_progress {"id", "progress", "total"?, "message"?}` while it
works on a tool call; a caller whose peer has `Capability.PROGRESS` receives it as the event `agent.progress`. Others learn
nothing.

Longer than 400 lines because tool calls and asks share what waits, gives up and is passed on.
"""

import json
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from meshhost.errors import InvalidRequestError, NotFoundError, RequestTimeoutError, RoomError, ToolError
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import RoomKey
from meshhost.protocol import contents
from meshhost.protocol.messages import (
    EmptyResponse,
    ErrorResponse,
    FileResponse,
    JsonResponse,
    TextResponse,
    unpack_response,
)
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Capability, Event, Peer
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.server.services.agents import bodies
from meshhost.server.services.agents.arrivals import ARRIVAL_SECONDS
from meshhost.server.services.agents.built_in import Bring, BuiltIns, built_in_name, provide_schema
from meshhost.server.services.agents.calls import Call, CallAnswer, PendingCalls
from meshhost.server.services.agents.in_room import AgentsInRoom, Rooms
from meshhost.server.services.agents.message_streams import MessageStreams
from meshhost.server.services.agents.registry import (
    NotRegisteredError,
    Registered,
    Registry,
    agent_card,
    callable_card,
    task_tool,
    tool_list,
    toolkit_card,
)
from meshhost.server.services.agents.tool_streams import ToolStream
from meshhost.server.services.asking import behalf_of, note_asked
from meshhost.stores.files import RoomFiles

__all__ = ["AgentsInRoom", "AgentsService", "CallOut", "IsComing"]

T = TypeVar("T")

# Calls an agent into the room at a URL: room, who asks, URL, identity, arguments, scope. Raises RoomError when it cannot.
CallOut = Callable[[Room, Participant, str, str, dict[str, Any], ApiScope], Awaitable[None]]

# Whether an agent of a configured service may join a room within these seconds: room, identity that does not count, seconds.
IsComing = Callable[[Room, str, float], bool]


def _nobody_is_coming(room: Room, but: str, within: float) -> bool:
    return False


class AgentsService(RoomService):
    """The agents service. `call_seconds` bounds every wait for the answer of another participant.

    `is_coming` says whether agents are on their way into a room, `need` wakes a room that sleeps. `bring` calls the built-in
    agents (None: there are none).
    """

    def __init__(
        self,
        files: RoomFiles,
        *,
        call_seconds: float,
        call_out: CallOut,
        is_coming: IsComing = _nobody_is_coming,
        need: Callable[[RoomKey], None] = lambda _: None,
        bring: Bring | None = None,
    ) -> None:
        self._built_ins = BuiltIns(bring)
        self._files = files
        self._is_coming = is_coming
        self._need = need
        self._call_seconds = call_seconds
        self._call_out = call_out
        self._rooms = Rooms(AgentsInRoom)
        self._messages = MessageStreams(self._rooms, wait=self._wait, call_seconds=call_seconds)
        # Called when what is registered in a room has changed.
        self.on_change: list[Callable[[RoomKey], None]] = []

    def operations(self) -> Operations:
        """See RoomService."""
        return {
            "agent.register_toolkit": Operation(bodies.Toolkit, self._register_toolkit, _may_register_toolkit, _name),
            "agent.unregister_toolkit": Operation(bodies.Unregister, self._unregister_toolkit),
            "agent.list_toolkits": Operation(bodies.ListToolkits, self._list_toolkits, _may_use_tools),
            "agent.list_callable": Operation(bodies.ListCallable, self._list_callable, _may_use_any),
            "agent.invoke_tool": Operation(bodies.InvokeTool, self._invoke_tool, _may_invoke, _toolkit_name),
            "agent.tool_call_response": Operation(
                bodies.ToolAnswer, self._take_tool_answer, is_one_way=True, on_unreadable=self._take_unreadable
            ),
            "agent.tool_call_request_chunk": Operation(
                bodies.RequestChunk, self._take_input, frees=True, on_unreadable=self._input_unreadable
            ),
            "agent.tool_call_response_chunk": Operation(
                bodies.ResponseChunk, self._take_output, is_one_way=True, on_unreadable=self._output_unreadable
            ),
            **self._messages.operations(),
            "agent.tool_call_progress": Operation(bodies.ToolProgress, self._take_progress, is_one_way=True),
            "agent.register_agent": Operation(bodies.Agent, self._register_agent, _may_register_agent, _name),
            "agent.unregister_agent": Operation(bodies.Unregister, self._unregister_agent),
            "agent.list_agents": Operation(bodies.ListAgents, self._list_agents, _may_use_agents),
            "agent.ask": Operation(bodies.Ask, self._ask, _may_use_agents, lambda body: body.agent),
            "agent.ask_response": Operation(
                bodies.AskAnswer, self._take_ask_answer, is_one_way=True, on_unreadable=self._take_unreadable
            ),
            "agent.abandon": Operation(bodies.Abandon, self._abandon, is_one_way=True),
            "agent.call": Operation(bodies.CallAgent, self._call, _may_call, _name),
        }

    def disconnected(self, room: Room, participant: Participant, peer: Peer) -> None:
        """See RoomService: registrations and calls end with the connection."""
        if (mine := self._rooms.get(room)) is not None:
            mine.calls.fail(participant)
            mine.streams.disconnected(peer)
            mine.registry.drop(participant)
            self._changed(room)

    def in_room(self, room: Room) -> AgentsInRoom:
        """What is registered and in progress in a room."""
        return self._rooms.of(room)

    # ---- registrations --------------------------------------------------------------------------------------------

    def _register_toolkit(self, request: Request, body: bodies.Toolkit) -> Answer:
        description, size = _description(body)
        mine = self._rooms.of(request.room)
        new_id = mine.registry.add_toolkit(request.participant, body.name, description, size, public=body.public)
        self._built_ins.registered(request.room, mine.registry.toolkits[new_id])
        self._changed(request.room)
        return JsonResponse(json={"id": new_id})

    def _register_agent(self, request: Request, body: bodies.Agent) -> Answer:
        description, size = _description(body)
        mine = self._rooms.of(request.room)
        new_id = mine.registry.add_agent(request.participant, body.name, description, size)
        self._built_ins.registered(request.room, mine.registry.agents[new_id])
        self._changed(request.room)
        return JsonResponse(json={"id": new_id})

    def _unregister_toolkit(self, request: Request, body: bodies.Unregister) -> Answer:
        return self._unregister(request, self._rooms.of(request.room).registry.toolkits, body)

    def _unregister_agent(self, request: Request, body: bodies.Unregister) -> Answer:
        return self._unregister(request, self._rooms.of(request.room).registry.agents, body)

    def _unregister(self, request: Request, registered: dict[str, Registered], body: bodies.Unregister) -> Answer:
        entry = registered.get(body.id)
        if entry is None or entry.participant is not request.participant:
            raise NotFoundError("no such registration of this participant")
        del registered[body.id]
        self._changed(request.room)
        return EmptyResponse()

    def _changed(self, room: Room) -> None:
        self._rooms.of(room).arrivals.look()
        for report in self.on_change:
            report(room.key)

    def _list_toolkits(self, request: Request, body: bodies.ListToolkits) -> Answer:
        visible = self._rooms.of(request.room).registry.visible_toolkits(request.participant, body.participant_id)
        resting = self._built_ins.resting(request.room, request.participant, [entry.name for entry in visible])
        return JsonResponse(json={"tools": {entry.name: toolkit_card(entry) for entry in (*visible, *resting)}})

    def _list_callable(self, request: Request, body: bodies.ListCallable) -> Answer:
        caller, registry = request.participant, self._rooms.of(request.room).registry
        owner = body.participant_id or _id_of(request.room, body.participant_name)
        may_ask = caller.scope.agents is not None and caller.scope.agents.use_agents
        agents = [] if owner is not None or not may_ask else registry.newest_agents()
        cards = {entry.name: agent_card(entry) for entry in agents}
        cards |= {entry.name: callable_card(entry) for entry in registry.visible_toolkits(caller, owner)}
        return JsonResponse(json={"tools": cards})

    def _list_agents(self, request: Request, _: bodies.ListAgents) -> Answer:
        agents = self._rooms.of(request.room).registry.newest_agents()
        descriptions = [entry.description for entry in agents]
        if Capability.CANCEL not in request.peer.capabilities:
            descriptions += self._built_ins.agents_of_sdk(entry.name for entry in agents)
        return JsonResponse(json={"agents": descriptions})

    # ---- calls ----------------------------------------------------------------------------------------------------

    def _invoke_tool(self, request: Request, body: bodies.InvokeTool) -> Coroutine[Any, Any, Answer]:
        has_input = contents.is_open(body.content)
        if body.stream is None:
            if has_input:
                raise InvalidRequestError("stream", "expected a text: the chunks of a stream name it")
            return self._invoke(request, body, None)
        # At once: its first chunks are read before the task of this request begins.
        streams = self._rooms.of(request.room).streams
        return self._invoke(request, body, streams.begin(request, body.stream, has_input=has_input))

    async def _invoke(self, request: Request, body: bodies.InvokeTool, stream: ToolStream | None) -> Answer:
        mine = self._rooms.of(request.room)
        try:
            behalf_of(request, body.on_behalf_of_id)  # refuse at once, not after a wait
            provider = await self.found(request, body.call, lambda: self._callee(request, body))
            if provider.id in mine.registry.agents:
                return await self._ask_as_tool(request, body)
            return await self._run_tool(request, body, provider, stream)
        finally:
            if stream is not None:
                mine.streams.end(stream)

    def _callee(self, request: Request, body: bodies.InvokeTool) -> Registered:
        """The toolkit that a call means, or the agent of SDK 0.6 that it asks by the tool of one of SDK 0.56."""
        registry, caller = self._rooms.of(request.room).registry, request.participant
        try:
            return registry.toolkit(body.toolkit, caller, body.participant_id)
        except NotFoundError:
            may_ask = caller.scope.agents is not None and caller.scope.agents.use_agents
            agent = registry.agent(body.toolkit) if may_ask and body.tool == task_tool(body.toolkit) else None
            if agent is None or body.participant_id not in (None, agent.participant.id):
                raise
            return agent

    async def _ask_as_tool(self, request: Request, body: bodies.InvokeTool) -> Answer:
        _require_object(body)
        asking = bodies.Ask(
            agent=body.toolkit, arguments=body.arguments, on_behalf_of_id=body.on_behalf_of_id, call=body.call
        )
        answer = await self._ask(request, asking)
        return JsonResponse(json=answer.json["answer"]) if isinstance(answer, JsonResponse) else answer

    async def _run_tool(
        self, request: Request, body: bodies.InvokeTool, provider: Registered, stream: ToolStream | None
    ) -> Answer:
        mine, caller = self._rooms.of(request.room), request.participant
        if body.tool not in provider.description["tools"]:
            raise NotFoundError(f"toolkit {body.toolkit!r} has no tool {body.tool!r}")
        self._built_ins.check(caller.scope, provider.participant, body.tool, body.arguments)
        peer = provider.participant.peer
        if peer is None:
            raise ToolError("the participant that offers the tool has left the room")
        behalf = _note_asked(request, provider.participant, body.on_behalf_of_id)
        asked = {
            "toolkit": body.toolkit,
            "name": body.tool,
            "arguments": body.arguments,
            "caller_id": caller.id,
            "caller_context": body.caller_context,
            "on_behalf_of_id": behalf,
        }
        if Capability.TOOL_STREAMS not in peer.capabilities:
            _require_object(body)
        else:
            asked |= {"content": body.content, "tool_call_id": None if stream is None else stream.id}
        message, what = request.message, f"tool {body.tool!r} of toolkit {body.toolkit!r}"
        message_id = peer.tell(Event("agent.tool_call", asked, message.payload, message.trace))
        call = Call(provider.participant, message_id, peer, caller, body.call)
        if stream is not None:
            stream.asked(provider.participant, body.toolkit, call, lambda: mine.calls.extend(call, self._call_seconds))
        answer, payload = await self._wait(mine.calls, call, what)
        if not contents.is_open(answer):
            return _answer(request, answer, payload)
        if stream is None or Capability.CONTENTS not in request.peer.capabilities:
            raise ToolError(f"{what} answers with a stream, which the client of the caller does not take")
        if not stream.has_input:
            mine.streams.check_room(request.peer)
        await stream.open()
        await stream.wait_ended(idle=self._call_seconds)
        return None

    async def _take_input(self, request: Request, body: bodies.RequestChunk) -> Answer:
        stream = self._rooms.of(request.room).streams.of_caller(request.peer, body.stream)
        if stream is not None:  # else it is over
            await stream.take_input(body.chunk, request.message.payload)
        return EmptyResponse()

    async def _take_output(self, request: Request, body: bodies.ResponseChunk) -> Answer:
        stream = self._rooms.of(request.room).streams.of_provider(request.peer, body.tool_call_id)
        if stream is not None:
            await stream.take_output(body.chunk, request.message.payload)
        return None

    def _input_unreadable(self, request: Request, error: RoomError) -> None:
        self._rooms.of(request.room).streams.input_unreadable(request.peer, error)

    def _output_unreadable(self, request: Request, error: RoomError) -> None:
        self._rooms.of(request.room).streams.output_unreadable(request.peer, request.message.id, error)

    async def _ask(self, request: Request, body: bodies.Ask) -> Answer:
        mine, caller = self._rooms.of(request.room), request.participant
        behalf_of(request, body.on_behalf_of_id)

        def find() -> tuple[Peer, Registered, list[dict[str, Any]]]:
            entry = mine.registry.agent(body.agent) or mine.registry.agent_toolkit(body.agent)
            if entry is None or entry.participant.peer is None:
                raise NotRegisteredError("agent", body.agent)
            toolkits = _toolkits_for_ask(mine.registry, caller, body.requires or [])
            return entry.participant.peer, entry, toolkits

        peer, entry, toolkits = await self.found(request, body.call, find)
        if entry.is_agent:  # of SDK 0.56; it gets no toolkits
            return await self._ask_by_tool(request, body, entry)
        agent, task_id = entry.participant, str(uuid.uuid4())
        self._built_ins.check(caller.scope, agent, "", body.arguments)
        asked: dict[str, Any] = {
            "task_id": task_id,
            "arguments": body.arguments,
            "caller_id": caller.id,
            "toolkits": toolkits,
        }
        if (behalf := _note_asked(request, agent, body.on_behalf_of_id)) is not None:
            asked["on_behalf_of_id"] = behalf
        peer.tell(Event("agent.ask", asked, trace=request.message.trace))
        call = Call(agent, task_id, peer, caller, body.call)
        answer, _ = await self._wait(mine.calls, call, f"agent {body.agent!r}")
        if "answer" not in answer:
            code = answer.get("code")
            text = str(answer.get("error") or "the agent failed")
            return ErrorResponse(text=text, code=code if isinstance(code, int) else None)
        return JsonResponse(json={"answer": answer["answer"]})

    async def _ask_by_tool(self, request: Request, body: bodies.Ask, entry: Registered) -> Answer:
        invoking = bodies.InvokeTool(
            toolkit=body.agent,
            tool=task_tool(body.agent),
            arguments=body.arguments,
            on_behalf_of_id=body.on_behalf_of_id,
            call=body.call,
        )
        match await self._run_tool(request, invoking, entry, None):
            case JsonResponse(json=answer):
                return JsonResponse(json={"answer": answer})
            case TextResponse(text=text):
                return JsonResponse(json={"answer": text})
            case EmptyResponse():
                return JsonResponse(json={"answer": None})
            case ErrorResponse() as error:
                return error
            case _:
                raise ToolError("the agent answered with content that no answer to an ask can be")

    async def found(self, request: Request, key: str | None, find: Callable[[], T]) -> T:
        """What `find` returns, now or when a configured service has brought it, or it was called because it is built in.

        Raises its NotFoundError, or ToolError.

        A caller that has to wait gets the event `request.waits`, which its client shows as a status of the room.
        """
        name: str | None = None
        try:
            return find()
        except NotFoundError as error:
            missing = str(error)  # but an agent may be on its way
            if isinstance(error, NotRegisteredError):
                name = error.name
        room, caller = request.room, request.participant
        self._need(room.key)
        if name is not None:
            await self._built_ins.call(room, name)
        seconds = min(self._call_seconds, ARRIVAL_SECONDS)

        def is_coming() -> bool:
            return self._built_ins.is_coming(room, name) or self._is_coming(room, caller.name, seconds)

        if is_coming():
            text = f"{missing} yet: waiting up to {seconds:g} s for one that is on its way"
            request.peer.tell(Event("request.waits", {"message": text}))
        try:
            return await self._rooms.of(room).arrivals.wait(
                find, is_coming=is_coming, timeout=seconds, caller=caller, key=key
            )
        except NotFoundError as error:
            if not is_coming():
                raise
            hint = f"`meshhost room services {room.key.name}` shows why"
            raise NotFoundError(f"{error}, and none came within {seconds:g} s: {hint}") from None

    async def _wait(self, calls: PendingCalls, call: Call, what: str) -> CallAnswer:
        is_answered = False
        try:
            answer = await calls.wait(call, timeout=self._call_seconds)
            is_answered = True
        except RequestTimeoutError:
            raise RequestTimeoutError(f"{what} did not answer within {self._call_seconds:g} s") from None
        finally:
            if not is_answered:
                _tell_cancelled(call)
        return answer

    def _take_tool_answer(self, request: Request, body: bodies.ToolAnswer) -> Answer:
        message = request.message
        calls = self._rooms.of(request.room).calls
        calls.answer(request.participant, message.id, dict(body.model_dump()), message.payload)
        return None

    def _take_progress(self, request: Request, body: bodies.ToolProgress) -> Answer:
        call = self._rooms.of(request.room).calls.find(request.participant, body.id)
        caller = None if call is None or call.peer is not request.peer else call.caller.peer
        if call is not None and caller is not None and Capability.PROGRESS in caller.capabilities:
            caller.tell(Event("agent.progress", {"call": call.caller_key, **body.model_dump(exclude={"id"})}))
        return None

    def _take_ask_answer(self, request: Request, body: bodies.AskAnswer) -> Answer:
        calls = self._rooms.of(request.room).calls
        calls.answer(request.participant, body.task_id, dict(body.model_dump()), b"")
        return None

    def _take_unreadable(self, request: Request, error: RoomError) -> None:
        self._rooms.of(request.room).calls.answer_unreadable(request.participant, request.message.id, error)

    def _abandon(self, request: Request, body: bodies.Abandon) -> Answer:
        mine = self._rooms.of(request.room)
        mine.calls.abandon(request.participant, body.call)
        mine.arrivals.abandon(request.participant, body.call)
        return None

    # ---- calling agents in ----------------------------------------------------------------------------------------

    async def _call(self, request: Request, body: bodies.CallAgent) -> Answer:
        if not await self._is_built_in(request, body.url):
            wanted = body.api or ApiScope.agent_default()
            await self._call_out(request.room, request.participant, body.url, body.name, body.arguments, wanted)
        return EmptyResponse()

    async def _is_built_in(self, request: Request, url: str) -> bool:
        """Whether the room has what the URL asks for, as far as the caller may see that; what it may not see is not there."""
        room, caller = request.room, request.participant
        match built_in_name(url):
            case ("toolkits", name):
                visible = self._rooms.of(room).registry.visible_toolkits(caller, None)
                is_there = any(entry.name == name for entry in visible)
                return is_there or await self._built_ins.call(room, name, by_address=True)
            case ("agents", name):
                is_there = self._rooms.of(room).registry.agent(name) is not None
                return is_there or await self._built_ins.call(room, name, by_address=True)
            case ("schemas", name):
                return await provide_schema(self._files, room.key, name, caller.scope)
            case _:
                return False


def _description(body: bodies.Registration) -> tuple[dict[str, Any], int]:
    # In SDK 0.6 a toolkit's name is part of a message type, whose bytes are limited.
    if len(body.name.encode()) > bodies.MAX_NAME:
        raise InvalidRequestError("name", f"expected at most {bodies.MAX_NAME} bytes")
    description = body.model_dump(exclude_unset=True)
    return description, len(json.dumps(description))


def _note_asked(request: Request, asked: Participant, claimed: str | None) -> str | None:
    """Note who asks; return the id of the participant on whose behalf, or None. Raises AccessDeniedError."""
    behalf = behalf_of(request, claimed)
    for asker in (request.participant.id, behalf):
        if asker is not None:
            note_asked(asked, asker)
    return behalf


def _toolkits_for_ask(registry: Registry, caller: Participant, requires: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The toolkits that an ask names and its caller may use."""
    visible = {entry.name: entry for entry in registry.visible_toolkits(caller, caller.id)}
    result = []
    for requirement in requires:
        name = requirement.get("toolkit")
        if name is None:
            continue
        entry = visible.get(name)
        if entry is None:
            raise NotRegisteredError("toolkit", str(name), ", which the ask requires")
        result.append(tool_list(entry, requirement.get("tools")))
    return result


def _tell_cancelled(call: Call) -> None:
    # A client of the SDK would not know the event; and on a later connection the call is over already.
    if Capability.CANCEL not in call.peer.capabilities or call.provider.peer is not call.peer:
        return
    if isinstance(call.key, int):
        call.peer.tell(Event("agent.tool_call_cancelled", {"id": call.key}))
    else:
        call.peer.tell(Event("agent.ask_cancelled", {"task_id": call.key}))


def _may_register_toolkit(scope: ApiScope, body: bodies.Toolkit) -> bool:
    agents = scope.agents
    if agents is None:
        return False
    return agents.register_public_toolkit if body.public else agents.register_private_toolkit


def _may_register_agent(scope: ApiScope, _: Body) -> bool:
    return scope.agents is not None and scope.agents.register_agent


def _may_use_tools(scope: ApiScope, _: Body) -> bool:
    return scope.agents is not None and scope.agents.use_tools


def _may_use_any(scope: ApiScope, _: Body) -> bool:
    # Who may only ask agents sees those that are asked by a tool.
    return scope.agents is not None and (scope.agents.use_tools or scope.agents.use_agents)


def _may_invoke(scope: ApiScope, body: bodies.InvokeTool) -> bool:
    agents = scope.agents
    if agents is None:
        return False
    return agents.can_use_toolkit(body.toolkit) or (agents.use_agents and body.tool == task_tool(body.toolkit))


def _require_object(body: bodies.InvokeTool) -> None:
    """Raise InvalidRequestError for arguments that only clients of SDK 0.56 take."""
    if body.content is not None and body.content.get("type") != "empty":
        raise InvalidRequestError("arguments", f"tool {body.tool!r} of toolkit {body.toolkit!r} takes a JSON object")


def _answer(request: Request, answer: dict[str, Any], payload: bytes) -> Answer:
    if answer.get("type") == "binary" and Capability.CONTENTS in request.peer.capabilities:
        headers = answer.get("headers")
        described = {"type": "binary", "headers": headers if isinstance(headers, dict) else {}}
        return FileResponse(data=payload, name="", mime_type="application/octet-stream"), described
    return unpack_response(answer, payload)


def _may_use_agents(scope: ApiScope, _: Body) -> bool:
    return scope.agents is not None and scope.agents.use_agents


def _may_call(scope: ApiScope, _: Body) -> bool:
    return scope.agents is not None and scope.agents.call


def _id_of(room: Room, name: str | None) -> str | None:
    """The id of a participant in the room. Raises NotFoundError."""
    if name is None:
        return None
    for member in room.connected():
        if member.name == name:
            return member.id
    raise NotFoundError(f"no participant {name!r} in this room")


def _name(body: Any) -> str:
    return str(body.name)


def _toolkit_name(body: bodies.InvokeTool) -> str:
    return body.toolkit
