"""`Listener`: a task runner that watches a document until it has seen what it waits for.

An ask names the document's path. The listener opens the document and calls `on_element_inserted` and `on_attribute_changed`
for each change, one after another in their order, until one of them returns True; that answers the ask. The document calls
its handlers synchronously, while our hooks are coroutines: a queue lies between, and only the task of the ask runs hooks.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshhost.agents.context import AgentCallContext
from meshhost.agents.task_runner import TaskRunner
from meshhost.documents.document import Element, MeshDocument

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["Listener", "ListenerContext"]

logger = logging.getLogger(__name__)

_INPUT = {
    "type": "object",
    "required": ["path"],
    "additionalProperties": False,
    "properties": {"path": {"type": "string", "description": "path of the document in the room"}},
}
_OUTPUT = {"type": "object", "additionalProperties": False, "required": [], "properties": {}}


@dataclass(frozen=True, slots=True)
class ListenerContext:
    """The watched document, its room, and the ask that started the listener."""

    document: MeshDocument
    room: "RoomClient"
    call_context: AgentCallContext


class Listener(TaskRunner):
    """Asked with the `path` of a document, it receives the document's change events; a hook that returns True ends the ask.

    With `wait_for_synchronize` the ask is answered only when the server has stored what the hooks wrote.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        wait_for_synchronize: bool = True,
        title: str | None = None,
        description: str | None = None,
    ) -> None:
        super().__init__(name=name, title=title, description=description, input_schema=_INPUT, output_schema=_OUTPUT)
        self._wait_for_synchronize = wait_for_synchronize

    async def on_listening_started(self, listener_context: ListenerContext) -> None:
        """Called when the document is open; override to read it or write into it."""

    async def on_element_inserted(self, listener_context: ListenerContext, element: Element) -> bool:
        """Called for an inserted element. Return True to end."""
        return False

    async def on_attribute_changed(
        self, listener_context: ListenerContext, element: Element, attribute: str | None
    ) -> bool:
        """Called for a changed attribute. Return True to end."""
        return False

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> dict[str, Any]:
        """Watch until a hook returns True; cancelled when the asker has left."""
        path = arguments["path"]
        document = await context.room.sync.open(path=path)
        try:
            await self._listen(ListenerContext(document, context.room, context))
            if self._wait_for_synchronize:
                await context.room.sync.flush(path)
        finally:
            await context.room.sync.close(path=path)
        return {}

    async def _listen(self, context: ListenerContext) -> None:
        changes: asyncio.Queue[Callable[[], Any]] = asyncio.Queue()

        def inserted(node: Any) -> None:
            if isinstance(node, Element):
                changes.put_nowait(lambda: self.on_element_inserted(context, node))

        def updated(node: Any, attribute: str) -> None:
            if isinstance(node, Element):
                changes.put_nowait(lambda: self.on_attribute_changed(context, node, attribute))

        context.document.on("inserted", inserted)
        context.document.on("updated", updated)
        try:
            await self.on_listening_started(context)
            while not await (await changes.get())():
                pass
        finally:
            context.document.off("inserted", inserted)
            context.document.off("updated", updated)
