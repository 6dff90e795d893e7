"""Agents and toolkits of the room (room-protocol §11)."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from meshhost.errors import ConnectionLostError, LimitExceededError, RoomError, ToolError
from meshhost.identity.grants import ApiScope
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import ErrorResponse, Header, JsonResponse, Response
from meshhost.room.errors import reading
from meshhost.room.participants import Participant
from meshhost.room.requirements import Requirement, requirement_from_json

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = [
    "TOOL_CALL_TIMEOUT",
    "AgentDescription",
    "AgentsClient",
    "CallHandler",
    "ToolDescription",
    "ToolkitDescription",
]

# How long a caller waits for a tool or an agent; the server ends the wait a little earlier with an error of its own.
TOOL_CALL_TIMEOUT = 310.0

# Takes a tool call or an ask. What it returns is cancelled when nobody waits for the answer any more.
CallHandler = Callable[[MessageReceived], Coroutine[Any, Any, None] | asyncio.Task[None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDescription:
    """A tool that can be invoked: its name, purpose, and the JSON schema of its arguments (`defs` are its `$defs`)."""

    name: str
    title: str = ""
    description: str = ""
    input_schema: dict[str, Any] | None = None
    thumbnail_url: str | None = None
    defs: dict[str, Any] | None = None
    pricing: str | None = None
    supports_context: bool = False

    def to_json(self) -> dict[str, Any]:
        """The wire form, without the name that keys it."""
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
        """The tool of this name, if there is one."""
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
    """Find agents and tools, use them, and offer tools of our own.

    A call whose caller is cancelled here is cancelled at its provider; a call that is made to us is cancelled when the server
    says that nobody waits any more, and when the connection is lost: its answer could reach nobody.
    """

    def __init__(self, *, room: RoomClient) -> None:
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
        """Toolkits that we may use; with `participant_id` also that participant's private ones."""
        answer = await self._room.send_request("agent.list_toolkits", {"participant_id": participant_id})
        with reading("agent.list_toolkits"):
            return [_toolkit(name, entry) for name, entry in answer["tools"].items()]

    async def invoke_tool(
        self,
        *,
        toolkit: str,
        tool: str,
        arguments: Mapping[str, Any],
        participant_id: str | None = None,
        on_behalf_of_id: str | None = None,
        caller_context: Mapping[str, Any] | None = None,
        attachment: bytes | None = None,
    ) -> Response:
        """Invoke a tool and return what it answered.

        Raises NotFoundError when nobody offers it, AccessDeniedError, or RoomError with the tool's own error.
        """
        request: Header = {
            "toolkit": toolkit,
            "tool": tool,
            "participant_id": participant_id,
            "on_behalf_of_id": on_behalf_of_id,
            "arguments": dict(arguments),
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
        """Ask an agent and return its answer. Raises NotFoundError, or RoomError with the agent's own error."""
        request: Header = {"agent": agent, "arguments": dict(arguments)}
        if on_behalf_of is not None:
            request["on_behalf_of_id"] = on_behalf_of.id
        if requires is not None:
            request["requires"] = [requirement.to_json() for requirement in requires]
        response = await self._call("agent.ask", request)
        with reading("agent.ask"):
            return response.json["answer"] if isinstance(response, JsonResponse) else None

    async def make_call(
        self, *, name: str, url: str, arguments: Mapping[str, Any], api: ApiScope | None = None
    ) -> None:
        """Let the room server call an agent of this identity into the room, at a URL that it permits."""
        scope = None if api is None else api.to_json()
        request = {"name": name, "url": url, "arguments": dict(arguments), "api": scope}
        await self._room.send_request("agent.call", request)

    async def register_toolkit(self, toolkit: ToolkitDescription, handler: CallHandler, *, public: bool) -> str:
        """Offer a toolkit until `unregister_toolkit` or the end of the connection; returns the registration's id.

        `handler` gets each call as a message and answers it with `answer_tool_call`.
        """
        self._room.register_handler(
            f"agent.tool_call.{toolkit.name}", lambda message: self._begin(handler, message, message.id)
        )
        answer = await self._room.send_request("agent.register_toolkit", toolkit.to_json() | {"public": public})
        with reading("agent.register_toolkit"):
            return str(answer["id"])

    async def unregister_toolkit(self, name: str, registration_id: str) -> None:
        """Undo `register_toolkit`."""
        # In this order: a call that comes meanwhile is still answered.
        await self._room.send_request("agent.unregister_toolkit", {"id": registration_id})
        self._room.unregister_handler(f"agent.tool_call.{name}")

    async def register_agent(self, agent: AgentDescription, handler: CallHandler) -> str:
        """Offer to be asked until `unregister_agent` or the end of the connection; returns the registration's id.

        `handler` gets each ask as a message and answers it with `answer_ask`. Raises RoomError when this connection offers
        another agent already: an ask does not say whom it is for.
        """
        if self._ask_handler not in (None, handler):
            raise RoomError("this connection offers an agent already: connect once more for another")
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
                self._forget_agent()
            raise

    async def unregister_agent(self, registration_id: str) -> None:
        """Undo `register_agent`."""
        await self._room.send_request("agent.unregister_agent", {"id": registration_id})
        self._forget_agent()

    async def answer_ask(self, ask: MessageReceived, answer: Any) -> None:
        """Answer an ask with a JSON value or a RoomError. When the connection is gone, so is whoever asked.

        A value over the limit, or that is no JSON, is answered as an error.
        """
        header = _ask_answer(ask, answer)
        try:
            await self._tell("agent.ask_response", header)
        except LimitExceededError as error:
            await self._tell("agent.ask_response", _ask_answer(ask, error))
        except _NO_JSON:
            await self._tell("agent.ask_response", _ask_answer(ask, ToolError("the answer is not JSON")))

    async def answer_tool_call(self, call: MessageReceived, response: Response | RoomError) -> None:
        """Answer a tool call with a body or an error. A body over the limit, or that is no JSON, is answered as an error."""
        if isinstance(response, RoomError):
            response = ErrorResponse(text=str(response) or type(response).__name__, code=response.code)
        try:
            await self._room.respond(call.id, "agent.tool_call_response", response)
        except _NO_JSON:
            response = ErrorResponse(text="the tool's answer is not JSON", code=ToolError.code)
            await self._room.respond(call.id, "agent.tool_call_response", response)

    async def _call(self, type: str, request: Header, attachment: bytes | None = None) -> Response:
        """Ask for something that another participant answers; when we are cancelled meanwhile, so is the call."""
        key = {"call": uuid.uuid4().hex}
        try:
            response, _ = await self._room.request(type, request | key, attachment, timeout=TOOL_CALL_TIMEOUT)
        except asyncio.CancelledError:
            if self._room.is_open and "cancel" in self._room.extensions.get("extensions", ()):
                self._room.spawn(self._tell("agent.abandon", key), "abandon a call")
            raise
        return response

    def _forget_agent(self) -> None:
        self._room.unregister_handler("agent.ask")
        self._ask_handler = None

    async def _tell(self, type: str, header: Header) -> None:
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
            task.cancel("nobody waits for the answer any more")

    def _cancel_all(self, **_: Any) -> None:
        for task in self._running.values():
            task.cancel("the connection was lost")
        # The next connection counts its messages from one again.
        self._running = {}


# What encoding raises for a value that is not JSON.
_NO_JSON = (TypeError, ValueError, RecursionError)


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
