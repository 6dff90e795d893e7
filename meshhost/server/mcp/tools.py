"""`tools/list` and `tools/call`: what an MCP client does in a room.

Both wake the room, as every request of a participant does. A first list waits some seconds for the agents of configured
services, a call waits for its tool. A call is made by a participant that is in the room as long as the call takes
(`core/visitor.py`), through the dispatcher that checks its grants; what the room reports meanwhile goes to the client as
progress.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from meshhost.errors import NotFoundError, RoomError
from meshhost.protocol.messages import JsonResponse, Response
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.dispatch import Dispatcher
from meshhost.server.core.peer import Event
from meshhost.server.core.room import Room
from meshhost.server.core.visitor import Visitor, visiting
from meshhost.server.mcp import wire
from meshhost.server.mcp.answers import Answer
from meshhost.server.mcp.asked import Asked
from meshhost.server.mcp.catalog import Offer, described, input_schema, offers, page_of
from meshhost.server.mcp.results import failed, result_of
from meshhost.server.mcp.wire import RpcError
from meshhost.server.services.agents.service import AgentsService

__all__ = ["LIST_TTL_MS", "RoomTools"]

# How long the first list of a room that wakes waits for the agents of configured services.
ARRIVAL_SECONDS = 10.0
# An agent that has just joined registers its tools within this time.
_SETTLE_SECONDS = 1.0
LIST_TTL_MS = 5000
"""How long a stateless client may use a list before it asks again."""


class RoomTools:
    """Lists and calls. `is_arriving` says whether agents of configured services are on their way into a room."""

    def __init__(
        self,
        directory: RoomDirectory,
        agents: AgentsService,
        *,
        is_arriving: Callable[[Room, float], bool],
        count: Callable[[str, str], None],
    ) -> None:
        self._directory = directory
        self._agents = agents
        self._is_arriving = is_arriving
        # Rates were counted with the HTTP request.
        self._dispatch = Dispatcher(agents.operations(), count=count)

    async def list(self, asked: Asked, answer: Answer) -> dict[str, Any]:
        """`tools/list`. Raises RpcError for the cursor, OwnedElsewhereError."""
        after = asked.params.get("cursor")
        if after is not None and not isinstance(after, str):
            raise RpcError(wire.INVALID_PARAMS, "cursor: expected a text, as the page before had it")
        async with self._directory.opening(asked.caller.room) as room:
            await self._settled(room)
            page, following = page_of(self._offers(room, asked), after)
        result: dict[str, Any] = {"tools": [described(offer) for offer in page]}
        if following is not None:
            result["nextCursor"] = following
        if asked.is_stateless:
            result |= {"ttlMs": LIST_TTL_MS, "cacheScope": "private"}
        return result

    async def call(self, asked: Asked, answer: Answer) -> dict[str, Any]:
        """`tools/call`. An error of the tool is a result. Raises RpcError for a tool that is not there, OwnedElsewhereError."""
        name, arguments = asked.params.get("name"), asked.params.get("arguments")
        if not isinstance(name, str):
            raise RpcError(wire.INVALID_PARAMS, "name: expected the name of a tool")
        if arguments is not None and not isinstance(arguments, dict):
            raise RpcError(wire.INVALID_PARAMS, "arguments: expected an object")
        report = _Reports(answer, asked.message.progress_token)
        async with (
            self._directory.opening(asked.caller.room) as room,
            visiting(self._directory, room, asked.participant, self._dispatch, report) as visitor,
        ):
            try:
                offer = await self._found(visitor, asked, name)
                if asked.is_stateless:
                    wire.param_headers(asked.http, input_schema(offer), arguments or {})
                response = await _ask(visitor, offer, arguments or {})
            except RoomError as error:
                return failed(str(error))
        return result_of(response, asked.version)

    def _offers(self, room: Room, asked: Asked) -> dict[str, Offer]:
        return offers(self._agents.in_room(room).registry, asked.participant, asked.toolkit)

    async def _found(self, visitor: Visitor, asked: Asked, name: str) -> Offer:
        """The tool of this name, now or when a configured service has brought it. Raises RpcError."""

        def find() -> Offer:
            found = self._offers(visitor.room, asked).get(name)
            if found is None:
                raise NotFoundError(f"no tool {name!r}: see tools/list")
            return found

        request = visitor.request("agent.invoke_tool", {})
        try:
            offer: Offer = await visitor.within(self._agents.found(request, None, find))
        except NotFoundError as error:
            raise RpcError(wire.INVALID_PARAMS, str(error)) from None
        return offer

    async def _settled(self, room: Room) -> None:
        """Wait some seconds until the agents of configured services are here and have registered their tools."""
        deadline = time.monotonic() + ARRIVAL_SECONDS

        def has_arrived() -> bool:
            newest = max((each.attached_at for each in room.connected() if each.called_by_service), default=0.0)
            return not self._is_arriving(room, ARRIVAL_SECONDS) and newest < time.monotonic() - _SETTLE_SECONDS

        # Nobody says when an agent has registered all that it will.
        while not has_arrived() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_SETTLE_SECONDS / 10)


class _Reports:
    """Takes what the room reports to the stream of an answer, for a client that wants to know of progress."""

    def __init__(self, answer: Answer, token: str | int | None) -> None:
        self._answer = answer
        self._token = token
        self._last = -1.0

    def __call__(self, event: Event) -> None:
        if self._token is None:
            return
        body = event.body
        if event.name == "request.waits":
            self._tell(0.0, {"message": body["message"]})
        elif event.name == "agent.progress" and body["progress"] > self._last:  # the protocol wants it to grow
            self._tell(body["progress"], {key: body[key] for key in ("total", "message") if body[key] is not None})

    def _tell(self, progress: float, more: Mapping[str, Any]) -> None:
        self._last = progress if more.get("total") is not None or progress > 0 else self._last
        self._answer.notify("notifications/progress", {"progressToken": self._token, "progress": progress, **more})


async def _ask(visitor: Visitor, offer: Offer, arguments: dict[str, Any]) -> Response:
    if offer.toolkit is not None:
        body = {"toolkit": offer.toolkit, "tool": offer.tool, "arguments": arguments}
        return await visitor.ask("agent.invoke_tool", body)
    response = await visitor.ask("agent.ask", {"agent": offer.tool, "arguments": arguments})
    return JsonResponse(json=response.json["answer"]) if isinstance(response, JsonResponse) else response
