"""Owns many supervised agents: adds them, finds them, drains them together.

`Supervisor.add` makes a `SupervisedAgent` and one task that runs its `supervise`; that task is the agent's for all its
lives, and a crash in one agent never reaches another. Observers in `on_change` learn of each change of state; hosting counts
metrics and enforces quotas there. The supervisor keeps the last 100 agents that ended, so that an operator can read why, and
apart from them those that failed for good, as long as no other agent has their key.

After `drain_all` or `abort_all` no agent can be added: a host that stops cannot fill up again behind the drain.
"""

import logging
from collections import deque
from collections.abc import Callable, ItemsView, Iterator, Mapping
from random import random as system_random
from typing import Any, Generic

from meshhost.clock import Clock
from meshhost.errors import LifecycleError
from meshhost.logs import log_context_of
from meshhost.supervision.agent import CLEANUP_SECONDS, AgentSpec, Environment, KeyT, SupervisedAgent
from meshhost.supervision.drain import DrainReport, drain_together
from meshhost.supervision.state import TERMINAL, State
from meshhost.tasks import TaskOwner

__all__ = ["Observer", "Supervisor"]

logger = logging.getLogger(__name__)

Observer = Callable[[SupervisedAgent[KeyT], State, State], None]

_MAX_FINISHED = 100
# Of agents that failed for good: how many are kept, and for how long.
_MAX_FAILED = 100
_FAILED_SECONDS = 3600.0


class _AgentMarks(Mapping[str, object]):
    """The log context of an agent: its key's fields, its name and id. Computed when read: a dict per agent costs 200 bytes."""

    __slots__ = ("_agent",)

    def __init__(self, agent: SupervisedAgent[Any]) -> None:
        self._agent = agent

    def __getitem__(self, name: str) -> object:
        return self._fields()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields())

    def __len__(self) -> int:
        return len(self._fields())

    def items(self) -> ItemsView[str, object]:
        """Once for each log record: one dictionary, where the inherited view would make one for each field."""
        return self._fields().items()

    def _fields(self) -> dict[str, object]:
        return {**self._agent.key.log_fields(), "agent": self._agent.name, "spawn_id": self._agent.id}


class Supervisor(Generic[KeyT]):
    """Starts agents, restarts them by their policies and ends them within bounds.

    `on_change` are called with (agent, old state, new state) on each change, in order; one that raises is logged. `random`
    returns numbers from 0 to 1. An aborted agent has `cleanup_seconds` to end before it counts as stuck.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        random: Callable[[], float] = system_random,
        cleanup_seconds: float = CLEANUP_SECONDS,
    ) -> None:
        self.on_change: list[Observer[KeyT]] = []
        self._environment: Environment[KeyT] = Environment(clock, random, self._changed, cleanup_seconds)
        self._tasks = TaskOwner("supervisor")
        self._live: dict[str, SupervisedAgent[KeyT]] = {}
        self._by_key: dict[KeyT, tuple[SupervisedAgent[KeyT], ...]] = {}
        self._finished: deque[SupervisedAgent[KeyT]] = deque(maxlen=_MAX_FINISHED)
        self._failed: dict[KeyT, SupervisedAgent[KeyT]] = {}
        self._closing = False

    def __repr__(self) -> str:
        return f"<Supervisor live={len(self._live)} finished={len(self._finished)}>"

    @property
    def live(self) -> tuple[SupervisedAgent[KeyT], ...]:
        """The agents that have not ended, oldest first."""
        return tuple(self._live.values())

    @property
    def count(self) -> int:
        """How many agents have not ended."""
        return len(self._live)

    @property
    def finished(self) -> tuple[SupervisedAgent[KeyT], ...]:
        """The last 100 agents that ended, oldest first."""
        return tuple(self._finished)

    @property
    def failed(self) -> tuple[SupervisedAgent[KeyT], ...]:
        """The agents that failed for good within the last hour, oldest first: at most 100.

        One for each key, until another agent gets the key.
        """
        since = self._environment.clock.time() - _FAILED_SECONDS
        for key in [key for key, agent in self._failed.items() if agent.state_since < since]:
            del self._failed[key]
        return tuple(self._failed.values())

    def with_key(self, key: KeyT) -> tuple[SupervisedAgent[KeyT], ...]:
        """The agents with this key that have not ended, oldest first."""
        return self._by_key.get(key, ())

    def find(self, agent_id: str) -> SupervisedAgent[KeyT] | None:
        """The agent with this id, if it lives or is among the last that ended or failed."""
        if (agent := self._live.get(agent_id)) is not None:
            return agent
        return next((agent for agent in (*self._finished, *self.failed) if agent.id == agent_id), None)

    def add(self, spec: AgentSpec[KeyT]) -> SupervisedAgent[KeyT]:
        """Start supervising; returns at once. LifecycleError after `drain_all` or `abort_all`."""
        if self._closing:
            raise LifecycleError("the supervisor is draining and takes no more agents")
        agent = SupervisedAgent(spec, self._environment)
        self._live[agent.id] = agent
        self._by_key[spec.key] = (*self.with_key(spec.key), agent)
        self._failed.pop(spec.key, None)
        # The task copies the context here, so no context manager stays open for each idle agent.
        with log_context_of(_AgentMarks(agent)):
            self._tasks.spawn(agent.supervise(), name=spec.name)
        return agent

    async def stop(self, agent: SupervisedAgent[KeyT], grace: float | None = None) -> DrainReport:
        """Drain one agent for at most `grace` seconds (default: its spec's), then abort it.

        Never raises for the agent's fault.
        """
        return await self._drain((agent,), grace)

    async def drain_all(self, grace: float | None = None) -> DrainReport:
        """Take no more agents and drain all at once, each for its own time or all for `grace` seconds.

        An agent that is late is aborted; the report names those that did not end even then. The progress is logged.
        """
        self._closing = True
        return await self._drain(self.live, grace, log_progress=True)

    def abort_all(self) -> None:
        """Take no more agents and abort all, without waiting. A `drain_all(0)` afterwards waits and reports."""
        self._closing = True
        for agent in self.live:
            agent.abort()

    async def _drain(
        self, agents: tuple[SupervisedAgent[KeyT], ...], grace: float | None, *, log_progress: bool = False
    ) -> DrainReport:
        environment = self._environment
        return await drain_together(
            agents,
            environment.clock,
            grace=grace,
            cleanup_seconds=environment.cleanup_seconds,
            log_progress=log_progress,
        )

    def _changed(self, agent: SupervisedAgent[KeyT], old: State, new: State) -> None:
        if new in TERMINAL:
            self._retire(agent)
        for observer in self.on_change:
            try:
                observer(agent, old, new)
            except Exception:
                # A fault of one observer must not affect the agent or the other observers.
                logger.exception("observer of agents failed", extra={"agent": agent.name, "spawn_id": agent.id})

    def _retire(self, agent: SupervisedAgent[KeyT]) -> None:
        del self._live[agent.id]
        if others := tuple(other for other in self.with_key(agent.key) if other is not agent):
            self._by_key[agent.key] = others
        else:
            del self._by_key[agent.key]
        self._finished.append(agent)
        if agent.state is State.FAILED and agent.key not in self._by_key:
            self._failed.pop(agent.key, None)
            self._failed[agent.key] = agent
            if len(self._failed) > _MAX_FAILED:
                del self._failed[next(iter(self._failed))]
