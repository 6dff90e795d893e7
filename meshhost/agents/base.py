"""What every agent has in common: its description, its requirements, and its life in one room.

`Agent` describes an agent: name, title, labels and what it requires. `SingleRoomAgent` adds the life cycle that a host
drives: `start(room=…)` with a connected RoomClient, then `stop()`. Worker, TaskRunner and ChatBot build on it; the service
host knows agents only by these methods, by `drain()` where an agent has one, and by `activity`.

`start` first makes sure that the required schemas and toolkits are in the room: what is missing is *called* into it
(room-protocol §11.6) and awaited. Invariant: `_room` is set exactly from a successful `start` to `stop`, so an agent whose
start failed can be started again.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from meshhost.agents.context import AgentChatContext
from meshhost.agents.room_tools import required_toolkit
from meshhost.errors import NotFoundError, RoomError
from meshhost.room.requirements import RequiredSchema, RequiredToolkit, Requirement
from meshhost.tools.tool import ToolContext
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["Agent", "SingleRoomAgent"]

logger = logging.getLogger(__name__)

# Seconds between two looks for a requirement that was called into the room: the first pause, doubled up to the last.
_FIRST_PAUSE = 0.05
_MAX_PAUSE = 1.0
# The place before each word of a class's name, but the first.
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# Programs require it for what a person's browser offers; MeshAgent's SDK, too, never waits for it (0.6.13, agents/agent.py).
_UI = "ui"


class Agent:
    """A named participant with a purpose. `requires` must be in its room before it works.

    Without a `name` it is called as its class: a `StorageWorker` is `storage-worker`.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        self._name = _WORD.sub("-", type(self).__name__).lower() if name is None else name
        self._title = self._name if title is None else title
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
        """The name shown to people."""
        return self._title

    @property
    def description(self) -> str:
        """What the agent is for."""
        return self._description

    @property
    def requires(self) -> list[Requirement]:
        """The schemas and toolkits that must be in the room."""
        return self._requires

    @property
    def labels(self) -> list[str]:
        """Words to find the agent by."""
        return self._labels

    @property
    def activity(self) -> str | None:
        """What the agent is doing now, in words for its operator; None when it is idle.

        Override it in your own agents. A host reads it when it lists its agents and, while it drains, every few seconds.
        Name the kind of work and how long it has been running, but no payload and no secret: the text is logged.
        """
        return None

    def init_requirements(self, requires: list[Requirement]) -> None:
        """Store the requirements; override to add some."""
        self._requires = requires

    async def init_chat_context(self) -> AgentChatContext:
        """Return an empty conversation; override to begin it differently."""
        return AgentChatContext()

    def to_json(self) -> dict[str, Any]:
        """Return the wire form (room-protocol §11.1)."""
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "requires": [requirement.to_json() for requirement in self.requires],
            "labels": self.labels,
        }


class SingleRoomAgent(Agent):
    """An agent that takes part in one room, from `start` to `stop`.

    A subclass or an instance may set these, in seconds: `install_seconds`, how long a requirement that was called into the
    room may take to appear; `stop_seconds`, how long `stop` waits for tasks that it has cancelled. `built_in_url` is where
    requirements are called whose name is not a URL.
    """

    install_seconds: float = 30.0
    stop_seconds: float = 15.0
    # By MeshAgent's convention (room-protocol §11.6) such a requirement is one of the room server's own services, and is
    # called at this fixed address, whatever the room server's real address is.
    built_in_url: str = "http://localhost:8080"

    def __init__(
        self,
        *,
        name: str | None = None,
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
        """Begin to take part in `room`, which must be connected, once all requirements are there. Raises RoomError."""
        if self._room is not None:
            raise RoomError(f"agent {self.name!r} is started already")
        self._room = room
        try:
            await self.install_requirements()
        except BaseException:
            self._room = None
            raise

    async def stop(self) -> None:
        """Leave the room. Idempotent."""
        self._room = None

    async def install_requirements(self, participant_id: str | None = None) -> None:
        """Call what is missing into the room, and return when all requirements are there.

        `participant_id` names the participant whose view of the room counts; None for the agent's own. Raises NotFoundError
        that names a requirement which is missing and not callable, or which did not appear within `install_seconds`.
        """
        missing = await self._missing(participant_id)
        for requirement in missing:
            if not requirement.callable:
                raise NotFoundError(f"agent {self.name!r} requires {requirement.name!r}, which is not in the room")
            await self._call_in(requirement)
        if missing:
            await self._wait_installed(participant_id)

    async def get_required_toolkits(self, context: ToolContext) -> list[Toolkit]:
        """Return the required toolkits; their tools are invoked in the room. Raises NotFoundError."""
        required = [requirement for requirement in self.requires if isinstance(requirement, RequiredToolkit)]
        return await self.get_toolkits(context, required) if required else []

    async def get_toolkits(self, context: ToolContext, remote_toolkits: Sequence[RequiredToolkit]) -> list[Toolkit]:
        """Return these toolkits of the room as the caller sees them. Raises NotFoundError for one that is not there."""
        caller = context.on_behalf_of or context.caller
        present = {toolkit.name: toolkit for toolkit in await self.room.agents.list_toolkits(participant_id=caller.id)}
        result = []
        for required in remote_toolkits:
            if required.name not in present:
                if required.name == _UI and required.callable:
                    continue
                raise NotFoundError(f"no toolkit {required.name!r} in this room")
            result.append(required_toolkit(present[required.name], required, caller.id))
        return result

    async def _missing(self, participant_id: str | None) -> list[Requirement]:
        if not self.requires:
            return []
        schemas = {entry.name.removesuffix(".json") for entry in await self.room.storage.list(path=".schemas")}
        toolkits = {toolkit.name for toolkit in await self.room.agents.list_toolkits(participant_id=participant_id)}
        return [
            requirement
            for requirement in self.requires
            if not (requirement.name == _UI and isinstance(requirement, RequiredToolkit) and requirement.callable)
            and requirement.name not in (schemas if isinstance(requirement, RequiredSchema) else toolkits)
        ]

    async def _call_in(self, requirement: Requirement) -> None:
        kind = "schemas" if isinstance(requirement, RequiredSchema) else "toolkits"
        is_url = requirement.name.startswith(("http://", "https://"))
        url = requirement.name if is_url else f"{self.built_in_url}/{kind}/{requirement.name}"
        logger.info("calling a requirement into the room", extra={"agent": self.name, "requirement": requirement.name})
        await self.room.agents.make_call(name=requirement.name, url=url, arguments={})

    async def _wait_installed(self, participant_id: str | None) -> None:
        # By polling: a room sends no event when a toolkit is registered or a schema stored.
        pause, missing = _FIRST_PAUSE, self.requires
        try:
            async with asyncio.timeout(self.install_seconds):
                while missing := await self._missing(participant_id):
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _MAX_PAUSE)
        except TimeoutError:
            names = ", ".join(repr(requirement.name) for requirement in missing)
            raise NotFoundError(f"{names} did not come into the room within {self.install_seconds:g} s") from None
