"""The agents of a host in pages: which of them, in which order, and where the next page begins."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from meshhost.errors import CallRefusedError
from meshhost.supervision.spawn import Spawn
from meshhost.supervision.state import State

__all__ = ["DEFAULT_LIMIT", "MAX_LIMIT", "MIN_PREFIX", "AgentQuery", "page_of"]

DEFAULT_LIMIT = 1000
MAX_LIMIT = 10_000

MIN_PREFIX = 6
"""So many characters of an id at least are taken as the beginning of one."""

# An id, and when that agent was asked for: a cursor holds also after its agent has ended and was forgotten.
_CURSOR = re.compile(r"[0-9a-f]{1,64}(?:@[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e-[0-9]{1,2})?)?")
_BAD_CURSOR = "expected `next` of an answer, or the id of an agent"

_Place = tuple[float, str]


def _cursor(text: object) -> object:
    if not isinstance(text, str) or _CURSOR.fullmatch(text) is None:
        raise ValueError(_BAD_CURSOR)
    return text


class AgentQuery(BaseModel):
    """Which agents to list. `id` is the beginning of ids, `after` the last agent of the page before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(default=DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    after: Annotated[str, BeforeValidator(_cursor)] | None = None
    id: str | None = Field(default=None, min_length=MIN_PREFIX)
    tenant: str | None = None
    path: str | None = None
    room: str | None = None
    state: State | None = None

    def asks_for(self, spawn: Spawn) -> bool:
        """Whether the agent is one of those, on whatever page."""
        if self.state not in (None, spawn.state) or not spawn.id.startswith(self.id or ""):
            return False
        fields = spawn.spec.log_fields
        wanted = (("tenant", self.tenant), ("path", self.path), ("room", self.room))
        return all(value is None or str(fields.get(name, "")) == value for name, value in wanted)


def page_of(
    spawns: Iterable[Spawn], query: AgentQuery, *, find: Callable[[str], Spawn | None]
) -> tuple[list[Spawn], str | None]:
    """The agents of the page, oldest first, and the cursor of the next one if there is more.

    Over the pages that follow each other nobody is given twice, and nobody who lives all the time is left out. `find` gives
    an agent by its id. Raises CallRefusedError (400) for a cursor that is only the id of an agent that is not known any more.
    """
    start = _start(query.after, find)
    found = [spawn for spawn in spawns if _place(spawn) > start and query.asks_for(spawn)]
    found.sort(key=_place)
    page = found[: query.limit]
    if len(found) == len(page):
        return page, None
    last = page[-1]
    return page, f"{last.id}@{last.started_at!r}"


def _start(after: str | None, find: Callable[[str], Spawn | None]) -> _Place:
    if after is None:
        return (-math.inf, "")
    spawn_id, _, started_at = after.partition("@")
    if started_at:
        return (float(started_at), spawn_id)
    spawn = find(spawn_id)
    if spawn is None:
        raise CallRefusedError("after: no agent with this id is known any more; use `next` of an answer", status=400)
    return _place(spawn)


def _place(spawn: Spawn) -> _Place:
    return (spawn.started_at, spawn.id)
