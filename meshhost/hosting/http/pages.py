"""Lists the agents of a host in pages: filter, order, and where the next page begins; and what may be asked of its logs.

`GET /agents` uses it. Agents come and go between two requests, so a page does not count positions: a cursor holds the start
time and id of the last agent, and the next page begins after that place in the order.
"""

import heapq
import math
import re
from collections.abc import Callable, Iterable
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from meshhost.errors import CallRefusedError
from meshhost.hosting.agents.assignment import HostedAgent
from meshhost.supervision.state import State
from meshhost.tenant_names import known_name_of

__all__ = ["DEFAULT_LIMIT", "MAX_LIMIT", "MIN_PREFIX", "AgentQuery", "LogQuery", "page_of"]

DEFAULT_LIMIT = 1000
MAX_LIMIT = 10_000

MIN_PREFIX = 6
"""Fewest characters that are accepted as the beginning of an id."""

# An id and the start time of its agent: the cursor stays valid after the agent was forgotten.
_CURSOR = re.compile(r"[0-9a-f]{1,64}(?:@[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e-[0-9]{1,2})?)?")
_BAD_CURSOR = "expected `next` of an answer, or the id of an agent"

_Place = tuple[float, str]


def _cursor(text: object) -> object:
    if not isinstance(text, str) or _CURSOR.fullmatch(text) is None:
        raise ValueError(_BAD_CURSOR)
    return text


class AgentQuery(BaseModel):
    """Which agents to list. `id` is the beginning of an id, `after` the cursor of the page before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(default=DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    after: Annotated[str, BeforeValidator(_cursor)] | None = None
    id: str | None = Field(default=None, min_length=MIN_PREFIX)
    tenant: str | None = None
    path: str | None = None
    room: str | None = None
    state: State | None = None

    @property
    def is_filter(self) -> bool:
        """Whether it leaves out any agent, on any page."""
        return any(value is not None for value in (self.id, self.tenant, self.path, self.room, self.state))

    def asks_for(self, agent: HostedAgent) -> bool:
        """Whether the agent passes the filter, on any page."""
        if self.state not in (None, agent.state) or not agent.id.startswith(self.id or ""):
            return False
        key = agent.key
        if self.tenant not in (None, key.tenant, known_name_of(key.tenant)):
            return False
        wanted = ((key.path, self.path), (key.room.name, self.room))
        return all(value is None or own == value for own, value in wanted)


class LogQuery(BaseModel):
    """Which log records to show: the newest `limit` after the number `after`. `id` is the beginning of an agent's id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(default=DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    after: int = Field(default=0, ge=0)
    id: str | None = Field(default=None, min_length=MIN_PREFIX)
    tenant: str | None = None
    path: str | None = None
    room: str | None = None

    @property
    def fields(self) -> dict[str, str]:
        """The fields that a record must have."""
        wanted = {"spawn_id": self.id, "tenant": self.tenant, "path": self.path, "room": self.room}
        return {name: value for name, value in wanted.items() if value is not None}


def page_of(
    agents: Iterable[HostedAgent], query: AgentQuery, *, find: Callable[[str], HostedAgent | None]
) -> tuple[list[HostedAgent], str | None]:
    """The agents of the page, oldest first, and the cursor of the next page, if there is one.

    Over successive pages no agent is listed twice, and none that lives the whole time is left out. `find` looks up an agent by
    id. Raises CallRefusedError (400) for a cursor that is only the id of an agent that is not known any more.
    """
    start = _start(query.after, find)
    later = agents if query.after is None else [agent for agent in agents if _place(agent) > start]
    asked = filter(query.asks_for, later) if query.is_filter else later
    # They are more or less in order, so that the smallest are found by a comparison each.
    found = heapq.nsmallest(query.limit + 1, asked, key=_place)
    page = found[: query.limit]
    if len(found) == len(page):
        return page, None
    last = page[-1]
    return page, f"{last.id}@{last.started_at!r}"


def _start(after: str | None, find: Callable[[str], HostedAgent | None]) -> _Place:
    if after is None:
        return (-math.inf, "")
    agent_id, _, started_at = after.partition("@")
    if started_at:
        return (float(started_at), agent_id)
    agent = find(agent_id)
    if agent is None:
        raise CallRefusedError("after: no agent with this id is known any more; use `next` of an answer", status=400)
    return _place(agent)


def _place(agent: HostedAgent) -> _Place:
    return (agent.started_at, agent.id)
