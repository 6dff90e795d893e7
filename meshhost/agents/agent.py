"""`Agent` and `SingleRoomAgent`: what every agent has, whatever it does."""

import asyncio
import importlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from meshhost.agents.context import AgentCallContext as AgentCallContext
from meshhost.agents.context import AgentChatContext
from meshhost.errors import NotFoundError, RoomError
from meshhost.protocol.messages import Response
from meshhost.room.requirements import RequiredSchema, RequiredToolkit, Requirement
from meshhost.room.services.agents import ToolDescription, ToolkitDescription
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.agents.task_runner import RunTaskTool as RunTaskTool
    from meshhost.agents.task_runner import TaskRunner as TaskRunner
    from meshhost.room.client import RoomClient

__all__ = ["Agent", "RoomTool", "SingleRoomAgent", "toolkit_of_room"]

logger = logging.getLogger(__name__)

# How long a requirement that was called into the room may take to appear.
INSTALL_TIMEOUT = 30.0
_FIRST_LOOK = 0.05
_MAX_LOOK = 1.0
# Names that are no URLs are looked for among the room server's own services, by MeshAgent's convention (room-protocol §11.6).
_BUILT_IN = "http://localhost:8080"


def __getattr__(name: str) -> Any:
    # MeshAgent programs import these two from here; their module builds on this one.
    if name in ("RunTaskTool", "TaskRunner"):
        return getattr(importlib.import_module("meshhost.agents.task_runner"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Agent:
    """A named participant with a purpose. `requires` must be in its room before it works."""

    def __init__(
        self,
        *,
        name: str,
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        self._name = name
        self._title = name if title is None else title
        self._description = "" if description is None else description
        self._labels = list(labels or ())
        self._requires: list[Requirement] = []
        self.init_requirements(list(requires or ()))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}>"

    @property
    def name(self) -> str:
        """The agent's name."""
        return self._name

    @property
    def title(self) -> str:
        """The name as people see it."""
        return self._title

    @property
    def description(self) -> str:
        """What it is for."""
        return self._description

    @property
    def requires(self) -> list[Requirement]:
        """What must be in the room."""
        return self._requires

    @property
    def labels(self) -> list[str]:
        """Words to find it by."""
        return self._labels

    @property
    def activity(self) -> str | None:
        """What the agent does now, in words for its operator; None when it does nothing.

        Override it in an agent of your own: a host asks when it lists its agents and, while it waits for them to leave, every
        few seconds. Tell the kind of work and since when, no payload and nothing secret: it is logged.
        """
        return None

    def init_requirements(self, requires: list[Requirement]) -> None:
        """Take over the requirements; override to add some."""
        self._requires = requires

    async def init_chat_context(self) -> AgentChatContext:
        """An empty conversation; override to begin it otherwise."""
        return AgentChatContext()

    def to_json(self) -> dict[str, Any]:
        """The wire form (room-protocol §11.1)."""
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "requires": [requirement.to_json() for requirement in self.requires],
            "labels": self.labels,
        }


class RoomTool(Tool):
    """A tool that another participant offers, as if it were ours."""

    def __init__(
        self,
        *,
        toolkit_name: str,
        name: str,
        input_schema: dict[str, Any],
        title: str | None = None,
        description: str | None = None,
        rules: list[str] | None = None,
        thumbnail_url: str | None = None,
        participant_id: str | None = None,
        on_behalf_of_id: str | None = None,
        defs: dict[str, Any] | None = None,
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
        self.toolkit_name = toolkit_name
        self._participant_id = participant_id
        self._on_behalf_of_id = on_behalf_of_id

    async def execute(self, context: ToolContext, **kwargs: Any) -> Response:
        """Invoke it in the room. Raises RoomError with what its provider answered."""
        on_behalf_of = None if context.on_behalf_of is None else context.on_behalf_of.id
        return await context.room.agents.invoke_tool(
            toolkit=self.toolkit_name,
            tool=self.name,
            arguments=kwargs,
            participant_id=self._participant_id,
            on_behalf_of_id=self._on_behalf_of_id or on_behalf_of,
            caller_context=context.caller_context,
        )


class SingleRoomAgent(Agent):
    """An agent that takes part in one room, from `start` to `stop`."""

    def __init__(
        self,
        *,
        name: str,
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name=name, title=title, description=description, requires=requires, labels=labels)
        self._room: RoomClient | None = None

    @property
    def room(self) -> "RoomClient":
        """The room. Raises RoomError when the agent is not started."""
        if self._room is None:
            raise RoomError(f"agent {self.name!r} is not started")
        return self._room

    async def start(self, *, room: "RoomClient") -> None:
        """Begin to take part: `room` is connected, and what is required is made sure of. Raises RoomError."""
        if self._room is not None:
            raise RoomError(f"agent {self.name!r} is started already")
        self._room = room
        try:
            await self.install_requirements()
        except BaseException:
            self._room = None
            raise

    async def stop(self) -> None:
        """End taking part. Idempotent."""
        self._room = None

    async def install_requirements(self, participant_id: str | None = None) -> None:
        """Call what is missing into the room, and return when all is there.

        Raises NotFoundError naming what is missing and may not be called, or did not come within INSTALL_TIMEOUT.
        """
        missing = await self._missing(participant_id)
        for requirement in missing:
            if not requirement.callable:
                raise NotFoundError(f"agent {self.name!r} requires {requirement.name!r}, which is not in the room")
            await self._call_in(requirement)
        if missing:
            await self._wait_installed(participant_id)

    async def get_required_toolkits(self, context: ToolContext) -> list[Toolkit]:
        """The required toolkits, with tools that are invoked in the room. Raises NotFoundError."""
        required = [requirement for requirement in self.requires if isinstance(requirement, RequiredToolkit)]
        return await self.get_toolkits(context, required) if required else []

    async def get_toolkits(self, context: ToolContext, remote_toolkits: Sequence[RequiredToolkit]) -> list[Toolkit]:
        """These toolkits of the room as the caller sees them. Raises NotFoundError for one that is not there."""
        caller = context.on_behalf_of or context.caller
        present = {toolkit.name: toolkit for toolkit in await self.room.agents.list_toolkits(participant_id=caller.id)}
        result = []
        for required in remote_toolkits:
            if required.name not in present:
                raise NotFoundError(f"no toolkit {required.name!r} in this room")
            result.append(_toolkit(present[required.name], required, caller.id))
        return result

    async def _missing(self, participant_id: str | None) -> list[Requirement]:
        if not self.requires:
            return []
        schemas = {entry.name.removesuffix(".json") for entry in await self.room.storage.list(path=".schemas")}
        toolkits = {toolkit.name for toolkit in await self.room.agents.list_toolkits(participant_id=participant_id)}
        return [
            requirement
            for requirement in self.requires
            if requirement.name not in (schemas if isinstance(requirement, RequiredSchema) else toolkits)
        ]

    async def _call_in(self, requirement: Requirement) -> None:
        kind = "schemas" if isinstance(requirement, RequiredSchema) else "toolkits"
        is_url = requirement.name.startswith(("http://", "https://"))
        url = requirement.name if is_url else f"{_BUILT_IN}/{kind}/{requirement.name}"
        logger.info("calling a requirement into the room", extra={"agent": self.name, "requirement": requirement.name})
        await self.room.agents.make_call(name=requirement.name, url=url, arguments={})

    async def _wait_installed(self, participant_id: str | None) -> None:
        pause, missing = _FIRST_LOOK, self.requires
        try:
            async with asyncio.timeout(INSTALL_TIMEOUT):
                while missing := await self._missing(participant_id):
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _MAX_LOOK)
        except TimeoutError:
            names = ", ".join(repr(requirement.name) for requirement in missing)
            raise NotFoundError(f"{names} did not come into the room within {INSTALL_TIMEOUT:g} s") from None


def _toolkit(description: ToolkitDescription, required: RequiredToolkit, participant_id: str) -> Toolkit:
    wanted = description.tools if required.tools is None else [_named(description, name) for name in required.tools]
    return toolkit_of_room(description, wanted, participant_id)


def toolkit_of_room(
    description: ToolkitDescription, tools: Sequence[ToolDescription], participant_id: str | None
) -> Toolkit:
    """A toolkit whose tools are invoked in the room, as the participant of that id sees them."""
    return Toolkit(
        name=description.name,
        title=description.title,
        description=description.description,
        thumbnail_url=description.thumbnail_url,
        tools=[
            RoomTool(
                toolkit_name=description.name,
                name=tool.name,
                title=tool.title,
                description=tool.description,
                input_schema=tool.input_schema or {"type": "object", "properties": {}},
                defs=tool.defs,
                thumbnail_url=tool.thumbnail_url,
                participant_id=participant_id,
            )
            for tool in tools
        ],
    )


def _named(description: ToolkitDescription, name: str) -> ToolDescription:
    tool = description.get_tool(name)
    if tool is None:
        raise NotFoundError(f"toolkit {description.name!r} has no tool {name!r}")
    return tool
