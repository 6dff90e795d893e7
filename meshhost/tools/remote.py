"""`RemoteToolkit`: offers a toolkit in a room, so that other participants may call its tools.

It registers the tools with the room server (`room.agents.register_toolkit`), again after each reconnect. The room client
starts a task with `_on_call` for each call that arrives and cancels it when the caller no longer waits; calls run side by
side. The answer goes back through `room.agents.answer_tool_call`.

Invariant: every call whose caller still waits is answered, also when the tool raises or something inside it is cancelled. An
error that is not a RoomError never reaches the caller with its text: a tool is the program's code, and its errors may hold
secrets.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from meshhost.errors import InvalidRequestError, RoomError, ToolError
from meshhost.guard import EscapedError, guarding
from meshhost.protocol.connection import MessageReceived
from meshhost.room.services.agents import ToolDescription, ToolkitDescription
from meshhost.tools.schema import check_schema, with_defs
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["RemoteToolkit"]

logger = logging.getLogger(__name__)


class RemoteToolkit(Toolkit):
    """Offers its tools in a room from `start` to `stop`, also after a reconnect.

    Calls run side by side; one that nobody waits for any more is cancelled. The caller sees the text of a RoomError; any
    other error is logged here, and the caller only learns that the tool failed. Of several public toolkits of one name the
    newest answers. A private one (`public=False`) is used by its own participant, and by callers that name that
    participant.
    """

    def __init__(
        self,
        *,
        name: str,
        tools: Sequence[Tool] | None = None,
        title: str | None = None,
        description: str | None = None,
        thumbnail_url: str | None = None,
        public: bool = True,
        rules: Sequence[str] = (),
    ) -> None:
        super().__init__(
            name=name,
            tools=tools or [],
            title=title,
            description=description,
            thumbnail_url=thumbnail_url,
            rules=rules,
        )
        self.public = public
        self._room = None
        self._registration: str | None = None
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def room(self) -> "RoomClient":
        """The room that the toolkit is offered in. Raises RoomError when it is not started."""
        if self._room is None:
            raise RoomError("the toolkit is not started")
        return self._room

    async def start(self, *, room: "RoomClient") -> None:
        """Offer the tools in this room. Raises InvalidRequestError for a tool whose schema is not valid."""
        for tool in self.tools:
            if isinstance(tool, Tool):
                _check_tool(tool)
        if self._room is not None:
            raise RoomError("the toolkit is started already")
        self._room = room
        try:
            await self._register()
        except BaseException:
            self._room = None
            raise
        room.add_restorer(self._register)

    async def drain(self) -> None:
        """Withdraw the tools, and return when the calls in progress are answered. The caller must set a timeout."""
        await self._withdraw()
        await asyncio.sleep(0)  # a call that came before may have been handed over, and not begun
        await self._idle.wait()

    async def stop(self) -> None:
        """Withdraw the tools. Idempotent."""
        try:
            await self._withdraw()
        finally:
            self._room = None

    async def _withdraw(self) -> None:
        room, registration = self._room, self._registration
        self._registration = None
        if room is None:
            return
        room.remove_restorer(self._register)
        if room.is_open and registration is not None:
            await room.agents.unregister_toolkit(self.name, registration)

    async def _register(self) -> None:
        tools = [_describe(tool) for tool in self.tools if isinstance(tool, Tool)]
        description = ToolkitDescription(
            name=self.name,
            title=self.title,
            description=self.description,
            thumbnail_url=self.thumbnail_url,
            tools=tools,
        )
        self._registration = await self.room.agents.register_toolkit(description, self._on_call, public=self.public)

    async def _on_call(self, call: MessageReceived) -> None:
        room = self._room
        if room is None:
            return
        self._calls += 1
        self._idle.clear()
        try:
            await self._answer(room, call)
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def _answer(self, room: "RoomClient", call: MessageReceived) -> None:
        try:
            with guarding():
                response: Any = await self._execute(room, call)
        except RoomError as error:
            response = error
        except Exception as error:
            # The tool is the user's code: its traceback belongs in our log and must not reach another participant.
            name = call.header.get("name")
            logger.exception("tool failed", extra={"toolkit": self.name, "tool": name})
            # Something inside the tool was cancelled, not the call: the caller still waits.
            is_cancellation = isinstance(error, EscapedError) and error.is_cancellation
            what = "was cancelled" if is_cancellation else "failed; the log of its provider says why"
            response = ToolError(f"tool {name!r} {what}")
        await room.agents.answer_tool_call(call, response)

    async def _execute(self, room: "RoomClient", call: MessageReceived) -> Any:
        header = call.header
        arguments = header.get("arguments")
        if not isinstance(header.get("name"), str) or not isinstance(arguments, dict):
            raise InvalidRequestError("arguments", "expected the name of a tool and an object of arguments")
        context = ToolContext(
            room=room,
            caller=room.participant(header.get("caller_id")),
            on_behalf_of=room.participant(header.get("on_behalf_of_id")),
            caller_context=header.get("caller_context"),
            on_progress=lambda *report: room.agents.report_progress(call, *report),
        )
        attachment = call.payload or None
        return await self.execute(context=context, name=header["name"], arguments=arguments, attachment=attachment)


def _check_tool(tool: Tool) -> None:
    try:
        check_schema(with_defs(tool.input_schema, tool.defs))
    except InvalidRequestError as error:
        raise InvalidRequestError(f"input_schema of tool {tool.name!r}", str(error)) from None


def _describe(tool: Tool) -> ToolDescription:
    return ToolDescription(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.input_schema,
        thumbnail_url=tool.thumbnail_url,
        defs=tool.defs,
        supports_context=tool.supports_context,
    )
