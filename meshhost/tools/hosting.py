"""Offering tools in a room, for MeshAgent programs: `RemoteTool`, `connect_remote_toolkit` and `start_hosted_toolkit`.

All stand on `RemoteToolkit` (`remote.py`). `connect_remote_toolkit` joins a room by itself, for a program that nobody calls;
one that a room server calls uses a ServiceHost.
"""

from typing import TYPE_CHECKING

from meshhost.errors import RoomError
from meshhost.room.environment import protocol_for
from meshhost.room.staying import stay
from meshhost.tools.remote import RemoteToolkit
from meshhost.tools.schema import Schema
from meshhost.tools.tool import Tool
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["RemoteTool", "RemoteToolkit", "connect_remote_toolkit", "start_hosted_toolkit"]


class RemoteTool(Tool):
    """A tool that is offered in a room by itself, as a toolkit of its own name."""

    def __init__(
        self,
        *,
        name: str,
        input_schema: Schema,
        title: str | None = None,
        description: str | None = None,
        rules: list[str] | None = None,
        thumbnail_url: str | None = None,
        defs: dict[str, Schema] | None = None,
    ) -> None:
        super().__init__(
            name=name,
            input_schema=input_schema,
            title=title,
            description=description,
            rules=rules,
            thumbnail_url=thumbnail_url,
            defs=defs,
        )
        self._hosted: RemoteToolkit | None = None

    async def start(self, *, room: "RoomClient") -> None:
        """Offer the tool in this room. Raises RoomError when it is offered already."""
        if self._hosted is not None:
            raise RoomError(f"tool {self.name!r} is started already")
        hosted = RemoteToolkit(name=self.name, tools=[self], title=self.title, description=self.description)
        await hosted.start(room=room)
        self._hosted = hosted

    async def stop(self) -> None:
        """Withdraw the tool. Idempotent."""
        hosted, self._hosted = self._hosted, None
        if hosted is not None:
            await hosted.stop()


async def start_hosted_toolkit(*, room: "RoomClient", toolkit: Toolkit) -> RemoteToolkit:
    """Offer a toolkit in this room, and return what ends it again by `stop`. Raises InvalidRequestError for a wrong schema."""
    hosted = _hosted(toolkit)
    await hosted.start(room=room)
    return hosted


async def connect_remote_toolkit(*, room_name: str, toolkit: Toolkit) -> None:
    """Join a room as the toolkit's name and offer the toolkit there, until SIGTERM, SIGINT, or the end of the room.

    The room server and the token come from the environment: MESHHOST_TOKEN, else one that is signed with MESHHOST_API_KEY.
    Raises RoomError when the room cannot be joined, or has ended for good.
    """
    protocol = protocol_for(participant_name=toolkit.name, room_name=room_name, role="tool")
    await stay(protocol, _hosted(toolkit))


def _hosted(toolkit: Toolkit) -> RemoteToolkit:
    if isinstance(toolkit, RemoteToolkit):
        return toolkit
    return _Hosted(toolkit)


class _Hosted(RemoteToolkit):
    """Offers another toolkit, whose own `execute` is called."""

    def __init__(self, toolkit: Toolkit) -> None:
        super().__init__(
            name=toolkit.name,
            tools=[tool for tool in toolkit.tools if isinstance(tool, Tool)],
            title=toolkit.title,
            description=toolkit.description,
            thumbnail_url=toolkit.thumbnail_url,
            rules=toolkit.rules,
        )
        self.execute = toolkit.execute  # type: ignore[method-assign]
