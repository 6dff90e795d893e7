"""Which agent the running code belongs to.

`HostedAgents` starts the task of each agent inside `acting_for(key)`; tasks that the agent starts inherit the context. The
watchdog reads it from the context of whatever holds the event loop. Everything else has the agent's key at hand and must not
use this.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from meshhost.identity.tenant import AgentKey

__all__ = ["acting_for", "current_agent"]

_key: ContextVar[AgentKey | None] = ContextVar("meshhost_agent_key", default=None)


@contextmanager
def acting_for(key: AgentKey) -> Iterator[None]:
    """Code inside the block, and tasks that it starts, belong to this agent."""
    token = _key.set(key)
    try:
        yield
    finally:
        _key.reset(token)


def current_agent() -> AgentKey | None:
    """The agent that the running code belongs to; None for the host's own code."""
    return _key.get()
