"""Agents and toolkits of the room (room-protocol §11): find them, use them, offer our own.

Both directions pass through here. A call that we make is a request with a key of its own, so that it can be abandoned when our
caller is cancelled. A call that is made to us arrives as a message; it runs as a task of the room, and its handler sends the
answer with `answer_tool_call` or `answer_ask`.

Invariant: `_running` holds exactly the calls to us whose answer somebody may still wait for. It is emptied when the
connection is lost, because the server has then reported the calls as failed and counts its messages from one again.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from meshhost.errors import ConnectionLostError, InvalidRequestError, LimitExceededError, RoomError, ToolError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import ErrorResponse, Header, JsonResponse, Response
from meshhost.room.link import RoomLink
from meshhost.room.participants import Participant
from meshhost.room.replies import reading
from meshhost.room.requirements import Requirement, requirement_from_json
from meshhost.room.services.answers import answer_of

if TYPE_CHECKING:
    from meshhost.identity.grants import ApiScope

__all__ = [
    "TOOL_CALL_TIMEOUT",
    "AgentDescription",
    "AgentsClient",
    "CallHandler",
    "ToolDescription",
    "ToolkitDescription",
]

# Seconds a caller waits for a tool or an agent. The server gives up a little earlier, so that the caller gets its error.
TOOL_CALL_TIMEOUT = 310.0

# Handles a tool call or an ask. The task or coroutine that it returns is cancelled when the caller stops waiting.
CallHandler = Callable[[MessageReceived], Coroutine[Any, Any, None] | asyncio.Task[None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDescription:
    """A tool that can be invoked. `input_schema` is the JSON schema of its arguments, `defs` the `$defs` of that schema."""

    name: str
    title: str = ""
    description: str = ""
    input_schema: dict[str, Any] | None = None
    thumbnail_url: str | None = None
    defs: dict[str, Any] | None = None
    pricing: str | None = None
    supports_context: bool = False

    def to_json(self) -> dict[str, Any]:
        """The wire form, without the name: on the wire, tools are keyed by name."""
        wire: dict[str, Any] = {"title": self.title, "description": self.description, "input_schema": self.input_schema}
        wire |= {"thumbnail_url": self.thumbnail_url, "supports_context": self.supports_context}
        return wire if self.defs is None else wire | {"defs": self.defs}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolkitDescription:
    """A toolkit that can be used in the room."""

    name: str
    title: str = ""
    description: str = ""
    tools: list[ToolDescription] = field(default_factory=list)
    thumbnail_url: str | None = None

    def get_tool(self, name: str) -> ToolDescription | None:
        """The tool with this name, or None."""
        return next((tool for tool in self.tools if tool.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """The wire form, with tools keyed by name."""
        tools = {tool.name: tool.to_json() for tool in self.tools}
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "thumbnail_url": self.thumbnail_url,
            "tools": tools,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDescription:
    """An agent that can be asked."""

    name: str
    title: str = ""
    description: str = ""
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    requires: list[Requirement] = field(default_factory=list)
    supports_tools: bool = False
    labels: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The wire form."""
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "input_schema": self.input_schema,
            "output_schema": self.output_schema,
            "requires": [requirement.to_json() for requirement in self.requires],
            "supports_tools": self.supports_tools,
            "labels": self.labels,
        }


class AgentsClient:
    """Find agents and tools, use them, and offer our own.

    When the caller of `ask` or `invoke_tool` is cancelled, the call is cancelled at its provider too (if the server supports
    it). A call to us is cancelled when its caller stops waiting, and when the connection is lost: the answer could reach
    nobody.
    """

    def __init__(self, *, room: RoomLink) -> None:
        self._room = room
        self._running: dict[Any, asyncio.Task[None]] = {}
        self._ask_handler: CallHandler | None = None
        room.register_handler("agent.tool_call_cancelled", lambda message: self._cancel(message.header.get("id")))
        room.register_handler("agent.ask_cancelled", lambda message: self._cancel(message.header.get("task_id")))
        room.on("reconnecting", self._cancel_all)
        room.on("closed", self._cancel_all)

    async def list_agents(self) -> list[AgentDescription]:
        """Agents that can be asked."""
        answer = await self._room.send_request("agent.list_agents", {})
        with reading("agent.list_agents"):
            return [_agent(entry) for entry in answer["agents"]]

    async def list_toolkits(self, participant_id: str | None = None) -> list[ToolkitDescription]:
        """Toolkits that we may use; with `participant_id`, those of that participant first.

        Its private ones are among them when we are an agent or a tool that it asked.
        """
        answer = await self._room.send_request("agent.list_toolkits", {"participant_id": participant_id})
        with reading("agent.list_toolkits"):
            return [_toolkit(name, entry) for name, entry in answer["tools"].items()]

    async def invoke_tool(
        self,
        *,
        toolkit: str,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        participant_id: str | None = None,
        on_behalf_of_id: str | None = None,
        caller_context: Mapping[str, Any] | None = None,
        attachment: bytes | None = None,
        input: Mapping[str, Any] | None = None,
    ) -> Response:
        """Invoke a tool and return the body of its answer. Newer MeshAgent programs call the `arguments` their `input`.

        `participant_id` names the participant whose toolkit is meant, also a private one if it asked us. `on_behalf_of_id` is
        ours, or that of a participant that asked us.

        Raises NotFoundError when no participant offers it, AccessDeniedError, or RoomError with the tool's own error.
        """
        if arguments is not None and input is not None:
            raise InvalidRequestError("input", "expected arguments or input, not both: they are the same")
        request: Header = {
            "toolkit": toolkit,
            "tool": tool,
            "participant_id": participant_id,
            "on_behalf_of_id": on_behalf_of_id,
            "arguments": dict(arguments or input or {}),
            "caller_context": caller_context,
        }
        return await self._call("agent.invoke_tool", request, attachment)

    async def ask(
        self,
        *,
        agent: str,
        arguments: Mapping[str, Any],
        on_behalf_of: Participant | None = None,
        requires: Sequence[Requirement] | None = None,
    ) -> Any:
        """Ask an agent and return its answer, a JSON value. Raises NotFoundError, or RoomError with the agent's own error.

        As in MeshAgent, an answer that is an object, a list or a text has the value as `json`, too.
        """
        request: Header = {"agent": agent, "arguments": dict(arguments)}
        if on_behalf_of is not None:
            request["on_behalf_of_id"] = on_behalf_of.id
        if requires is not None:
            request["requires"] = [requirement.to_json() for requirement in requires]
        response = await self._call("agent.ask", request)
        with reading("agent.ask"):
            return answer_of(response.json["answer"]) if isinstance(response, JsonResponse) else None

    async def make_call(
        self, *, name: str, url: str, arguments: Mapping[str, Any], api: ApiScope | None = None
    ) -> None:
        """Have the room server call the agent at `url` into the room, under the identity `name`.

        The server decides which URLs it calls. Raises RoomError when it refuses or the call fails.
        """
        scope = None if api is None else api.to_json()
        request = {"name": name, "url": url, "arguments": dict(arguments), "api": scope}
        await self._room.send_request("agent.call", request)

    async def register_toolkit(self, toolkit: ToolkitDescription, handler: CallHandler, *, public: bool) -> str:
        """Offer a toolkit until `unregister_toolkit` or the end of the connection; returns the registration's id.

        `handler` gets each call as a message and must answer it with `answer_tool_call`.
        """
        self._room.register_handler(
            f"agent.tool_call.{toolkit.name}", lambda message: self._begin(handler, message, message.id)
        )
        answer = await self._room.send_request("agent.register_toolkit", toolkit.to_json() | {"public": public})
        with reading("agent.register_toolkit"):
            return str(answer["id"])

    async def unregister_toolkit(self, name: str, registration_id: str) -> None:
        """Undo `register_toolkit`."""
        # In this order, so that a call which arrives meanwhile is still answered.
        await self._room.send_request("agent.unregister_toolkit", {"id": registration_id})
        self._room.unregister_handler(f"agent.tool_call.{name}")

    async def register_agent(self, agent: AgentDescription, handler: CallHandler) -> str:
        """Offer an agent until `unregister_agent` or the end of the connection; returns the registration's id.

        `handler` gets each ask as a message and must answer it with `answer_ask`. Raises RoomError when this connection offers
        another agent already: an ask on the wire does not name the agent it is for.
        """
        if self._ask_handler not in (None, handler):
            raise RoomError("this connection offers an agent already: use another connection for another agent")
        is_first, self._ask_handler = self._ask_handler is None, handler
        self._room.register_handler(
            "agent.ask", lambda message: self._begin(handler, message, message.header.get("task_id"))
        )
        try:
            answer = await self._room.send_request("agent.register_agent", agent.to_json())
            with reading("agent.register_agent"):
                return str(answer["id"])
        except BaseException:
            if is_first:
                self._drop_ask_handler()
            raise

    async def unregister_agent(self, registration_id: str) -> None:
        """Undo `register_agent`."""
        await self._room.send_request("agent.unregister_agent", {"id": registration_id})
        self._drop_ask_handler()

    async def answer_ask(self, ask: MessageReceived, answer: Any) -> None:
        """Answer an ask with a JSON value or a RoomError. Does nothing when the connection is lost.

        For a value that is over the size limit or not JSON, an error is sent instead.
        """
        header = _ask_answer(ask, answer)
        try:
            await self._notify("agent.ask_response", header)
        except LimitExceededError as error:
            await self._notify("agent.ask_response", _ask_answer(ask, error))
        except _NOT_JSON_ERRORS:
            await self._notify("agent.ask_response", _ask_answer(ask, ToolError("the answer is not JSON")))

    async def answer_tool_call(self, call: MessageReceived, response: Response | RoomError) -> None:
        """Answer a tool call with a body or an error. For a body that is too large or not JSON, an error is sent instead."""
        if isinstance(response, RoomError):
            response = ErrorResponse(text=str(response) or type(response).__name__, code=response.code)
        try:
            await self._room.respond(call.id, "agent.tool_call_response", response)
        except _NOT_JSON_ERRORS:
            response = ErrorResponse(text="the tool's answer is not JSON", code=ToolError.code)
            await self._room.respond(call.id, "agent.tool_call_response", response)

    async def report_progress(
        self, call: MessageReceived, progress: float, total: float | None, message: str | None
    ) -> None:
        """Report how far a tool call to us got. Does nothing when the server does not pass it on."""
        if "tool_progress" in self._room.extensions.get("extensions", ()):
            report = {"id": call.id, "progress": progress, "total": total, "message": message}
            await self._notify("agent.tool_call_progress", report)

    async def _call(self, type: str, request: Header, attachment: bytes | None = None) -> Response:
        """Send a request that another participant answers; if we are cancelled meanwhile, so is the call."""
        key = {"call": uuid.uuid4().hex}
        try:
            response, _ = await self._room.request(type, request | key, attachment, timeout=TOOL_CALL_TIMEOUT)
        except asyncio.CancelledError:
            offered = self._room.extensions.get("extensions", ())
            # A server that offers both is told by the session, for each request that is given up.
            if self._room.is_open and "cancel" in offered and "cancel_request" not in offered:
                self._room.spawn(self._notify("agent.abandon", key), "abandon a call")
            raise
        return response

    def _drop_ask_handler(self) -> None:
        self._room.unregister_handler("agent.ask")
        self._ask_handler = None

    async def _notify(self, type: str, header: Header) -> None:
        with contextlib.suppress(ConnectionLostError):
            await self._room.notify(type, header)

    def _begin(self, handler: CallHandler, message: MessageReceived, key: Any) -> None:
        result = handler(message)
        task = result if isinstance(result, asyncio.Task) or result is None else self._room.spawn(result, message.type)
        running = self._running
        if task is not None and isinstance(key, int | str):
            running[key] = task
            task.add_done_callback(lambda _: running.pop(key, None))

    def _cancel(self, key: Any) -> None:
        task = self._running.get(key) if isinstance(key, int | str) else None
        if task is not None:
            task.cancel("the caller no longer waits for the answer")

    def _cancel_all(self, **_: Any) -> None:
        for task in self._running.values():
            task.cancel("the connection was lost")
        # The next connection counts its messages from one again.
        self._running = {}


# The errors of encoding a value that is not JSON.
_NOT_JSON_ERRORS = (TypeError, ValueError, RecursionError, InvalidRequestError)


def _ask_answer(ask: MessageReceived, answer: Any) -> Header:
    header: Header = {"task_id": ask.header.get("task_id"), "caller_context": {}}
    if isinstance(answer, RoomError):
        return header | {"error": str(answer) or type(answer).__name__, "code": answer.code}
    return header | {"answer": answer}


def _toolkit(name: str, entry: Mapping[str, Any]) -> ToolkitDescription:
    tools = entry.get("tools")
    if not isinstance(tools, dict):
        raise ToolError(f"the description of toolkit {name!r} lacks its tools")
    return ToolkitDescription(
        name=name,
        title=entry.get("title") or name,
        description=entry.get("description") or "",
        thumbnail_url=entry.get("thumbnail_url"),
        tools=[_tool(tool_name, tool) for tool_name, tool in tools.items()],
    )


def _tool(name: str, entry: Mapping[str, Any]) -> ToolDescription:
    return ToolDescription(
        name=name,
        title=entry.get("title") or name,
        description=entry.get("description") or "",
        input_schema=entry.get("input_schema"),
        thumbnail_url=entry.get("thumbnail_url"),
        defs=entry.get("defs"),
        supports_context=bool(entry.get("supports_context")),
    )


def _agent(entry: Mapping[str, Any]) -> AgentDescription:
    return AgentDescription(
        name=entry["name"],
        title=entry.get("title") or entry["name"],
        description=entry.get("description") or "",
        input_schema=entry.get("input_schema"),
        output_schema=entry.get("output_schema"),
        requires=[requirement_from_json(item) for item in entry.get("requires") or []],
        supports_tools=bool(entry.get("supports_tools")),
        labels=entry.get("labels") or [],
    )
