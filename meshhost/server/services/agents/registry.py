"""The toolkits and agents that participants of a room have registered, and which of them a request means.

Of several public toolkits, or agents, with one name the newest registration answers; when it goes, the one before takes over.
A private toolkit hides public ones from its owner, and from a request that names its owner and is made by an agent or tool
which the owner has asked (`services.asking`); nobody else sees it. A registration belongs to the connection that made it and
ends with it.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from meshhost.errors import LimitExceededError, NotFoundError
from meshhost.server.core.participants import Participant
from meshhost.server.services.asking import has_asked

__all__ = [
    "MAX_DESCRIPTIONS",
    "MAX_REGISTRATIONS",
    "NotRegisteredError",
    "Registered",
    "Registry",
    "agent_card",
    "callable_card",
    "task_tool",
    "tool_list",
    "toolkit_card",
]

MAX_REGISTRATIONS = 256
# Characters of JSON that one participant may register in total: a list of everything must stay far below a message's limit.
MAX_DESCRIPTIONS = 4 * 1024 * 1024


class NotRegisteredError(NotFoundError):
    """Nothing of this `name` is in the room for this caller, as far as registrations go."""

    def __init__(self, what: str, name: str, more: str = "") -> None:
        super().__init__(f"no {what} {name!r} in this room{more}")
        self.name = name


@dataclass(frozen=True, slots=True)
class Registered:
    """A registered toolkit or agent. `description` is what its participant sent, `size` its length as JSON."""

    id: str
    participant: Participant
    name: str
    is_public: bool
    description: dict[str, Any]
    size: int

    @property
    def is_agent(self) -> bool:
        """Whether this is what an agent of SDK 0.56 offers: a toolkit of its name with the one tool that asks it."""
        return list(self.description.get("tools", ())) == [task_tool(self.name)]


class Registry:
    """What is registered in one room. Both dicts keep the order of registration."""

    def __init__(self) -> None:
        self.toolkits: dict[str, Registered] = {}
        self.agents: dict[str, Registered] = {}

    def add_toolkit(
        self, owner: Participant, name: str, description: dict[str, Any], size: int, *, public: bool
    ) -> str:
        """Register a toolkit; returns the registration's id. Raises LimitExceededError."""
        return self._add(self.toolkits, owner, name, description, size, is_public=public)

    def add_agent(self, owner: Participant, name: str, description: dict[str, Any], size: int) -> str:
        """Register an agent; returns the registration's id. Raises LimitExceededError."""
        return self._add(self.agents, owner, name, description, size, is_public=True)

    def drop(self, owner: Participant) -> None:
        """Remove everything that a participant registered."""
        for registered in (self.toolkits, self.agents):
            for mine in [entry for entry in registered.values() if entry.participant is owner]:
                del registered[mine.id]

    def agent(self, name: str) -> Registered | None:
        """The agent that answers to this name."""
        return _newest(entry for entry in self.agents.values() if entry.name == name)

    def newest_agents(self) -> list[Registered]:
        """One agent per name, the one that answers."""
        return list({entry.name: entry for entry in self.agents.values()}.values())

    def toolkit(self, name: str, caller: Participant, participant_id: str | None) -> Registered:
        """The toolkit that a caller means by this name. Raises NotFoundError."""
        visible = self.visible_toolkits(caller, participant_id)
        found = _newest(entry for entry in visible if entry.name == name)
        if found is None:
            raise NotRegisteredError("toolkit", name)
        return found

    def agent_toolkit(self, name: str) -> Registered | None:
        """The toolkit that an agent of SDK 0.56 offers in place of registering itself."""
        return _newest(entry for entry in self.toolkits.values() if entry.name == name and entry.is_agent)

    def visible_toolkits(self, caller: Participant, participant_id: str | None) -> list[Registered]:
        """Public toolkits, the caller's own, and those of the participant with this id; one per name, the nearest.

        A participant that has not asked the caller shows its private ones to itself only; but one that is an agent of SDK
        0.56 may be asked by who may ask agents, and names it.
        """
        agents = caller.scope.agents
        is_asked = participant_id is not None and has_asked(participant_id, caller)
        by_name: dict[str, Registered] = {}
        for entry in self.toolkits.values():
            owner = entry.participant
            if agents is None:
                continue
            # An agent is asked by who may ask agents, whatever toolkits they may use.
            may_use, may_ask = agents.can_use_toolkit(entry.name), entry.is_agent and agents.use_agents
            is_named = owner.id == participant_id and ((may_use and is_asked) or may_ask)
            is_seen = entry.is_public or owner is caller
            if not (is_named or (is_seen and (may_use or may_ask))):
                continue
            present = by_name.get(entry.name)
            if present is None or _nearness(entry, caller, participant_id) >= _nearness(
                present, caller, participant_id
            ):
                by_name[entry.name] = entry
        return list(by_name.values())

    def _add(
        self,
        registered: dict[str, Registered],
        owner: Participant,
        name: str,
        description: dict[str, Any],
        size: int,
        *,
        is_public: bool,
    ) -> str:
        mine = [entry for entry in (*self.toolkits.values(), *self.agents.values()) if entry.participant is owner]
        if len(mine) >= MAX_REGISTRATIONS:
            raise LimitExceededError(f"over {MAX_REGISTRATIONS} registrations of one participant")
        if size + sum(entry.size for entry in mine) > MAX_DESCRIPTIONS:
            raise LimitExceededError(f"over {MAX_DESCRIPTIONS} characters of descriptions of one participant")
        entry = Registered(str(uuid.uuid4()), owner, name, is_public, description, size)
        registered[entry.id] = entry
        return entry.id


def task_tool(agent: str) -> str:
    """The name of the tool by which an agent of SDK 0.56 is asked."""
    return f"run_{agent}_task"


def toolkit_card(entry: Registered) -> dict[str, Any]:
    """A toolkit as `agent.list_toolkits` shows it, with every member that a client of SDK 0.6 reads."""
    description = entry.description
    return {
        "title": description.get("title") or entry.name,
        "description": description.get("description") or "",
        "thumbnail_url": description.get("thumbnail_url"),
        "tools": {name: _tool_card(name, tool) for name, tool in description["tools"].items()},
    }


def callable_card(entry: Registered) -> dict[str, Any]:
    """A toolkit as clients of SDK 0.56 list it."""
    annotations = entry.description.get("annotations")
    more = {"participant_id": entry.participant.id, "annotations": annotations if isinstance(annotations, dict) else {}}
    return toolkit_card(entry) | more


def agent_card(entry: Registered) -> dict[str, Any]:
    """An agent as the toolkit that it would be in SDK 0.56: with the one tool that asks it."""
    agent = entry.description
    title, description = agent.get("title") or entry.name, agent.get("description") or ""
    tool = {"title": title, "description": description, "input_schema": agent.get("input_schema")}
    more = {"participant_id": entry.participant.id, "annotations": {}}
    return {"title": title, "description": description, "tools": {task_tool(entry.name): tool}} | more


def tool_list(entry: Registered, wanted: list[Any] | None) -> dict[str, Any]:
    """A toolkit in the list form in which an ask carries it (§11.5), with the wanted tools (None: all)."""
    card = toolkit_card(entry)
    tools = [{"name": name} | tool for name, tool in card["tools"].items() if wanted is None or name in wanted]
    return {"name": entry.name} | card | {"tools": tools}


def _tool_card(name: str, tool: dict[str, Any]) -> dict[str, Any]:
    defaults = {"title": name, "description": "", "input_schema": {"type": "object"}, "thumbnail_url": None}
    return defaults | {key: value for key, value in tool.items() if value is not None}


def _newest(registered: Iterable[Registered]) -> Registered | None:
    return next(iter(reversed(list(registered))), None)


def _nearness(entry: Registered, caller: Participant, participant_id: str | None) -> int:
    if entry.participant.id == participant_id:
        return 2
    return 1 if participant_id is None and entry.participant is caller else 0
