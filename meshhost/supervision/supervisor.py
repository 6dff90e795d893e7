"""Owns many supervised agents: adds them, finds them, drains them together. A crash in one never reaches another."""

import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from random import random as system_random

from meshhost.clock import Clock
from meshhost.errors import LifecycleError
from meshhost.logs import log_context_of
from meshhost.supervision.drain import DrainReport, drain_together
from meshhost.supervision.spawn import ChildSpec, Spawn, Surroundings
from meshhost.supervision.state import TERMINAL, State
from meshhost.tasks import TaskOwner

__all__ = ["Observer", "Supervisor"]

logger = logging.getLogger(__name__)

Observer = Callable[[Spawn, State, State], None]

_REMEMBERED = 100


class _Marks(Mapping[str, object]):
    """What marks all that is logged inside a spawn. No dictionary: one would be kept for each agent."""

    __slots__ = ("_spawn",)

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn

    def __getitem__(self, name: str) -> object:
        match name:
            case "agent":
                return self._spawn.name
            case "spawn_id":
                return self._spawn.id
            case _:
                return self._spawn.spec.log_fields[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._spawn.spec.log_fields
        yield from ("agent", "spawn_id")

    def __len__(self) -> int:
        return len(self._spawn.spec.log_fields) + 2


class Supervisor:
    """Starts agents, restarts them by their policies and ends them within bounds.

    `on_change` are called with (spawn, old state, new state) at each change, in order; one that raises is logged. `random`
    returns numbers from 0 to 1.
    """

    def __init__(self, *, clock: Clock, random: Callable[[], float] = system_random) -> None:
        self.on_change: list[Observer] = []
        self._clock = clock
        self._around = Surroundings(clock, random, self._changed)
        self._tasks = TaskOwner("supervisor")
        self._live: dict[str, Spawn] = {}
        self._by_key: dict[Hashable, tuple[Spawn, ...]] = {}
        self._finished: deque[Spawn] = deque(maxlen=_REMEMBERED)
        self._closing = False

    def __repr__(self) -> str:
        return f"<Supervisor live={len(self._live)} finished={len(self._finished)}>"

    @property
    def live(self) -> tuple[Spawn, ...]:
        """The spawns that have not ended, oldest first."""
        return tuple(self._live.values())

    @property
    def count(self) -> int:
        """How many have not ended."""
        return len(self._live)

    @property
    def finished(self) -> tuple[Spawn, ...]:
        """The last spawns that ended (at most 100), oldest first."""
        return tuple(self._finished)

    def with_key(self, key: Hashable) -> tuple[Spawn, ...]:
        """The spawns with this key that have not ended, oldest first."""
        return self._by_key.get(key, ())

    def find(self, spawn_id: str) -> Spawn | None:
        """The spawn with this id, if it lives or is still remembered."""
        if (spawn := self._live.get(spawn_id)) is not None:
            return spawn
        return next((spawn for spawn in self._finished if spawn.id == spawn_id), None)

    def add(self, spec: ChildSpec) -> Spawn:
        """Start supervising; returns at once. LifecycleError after `drain_all` or `abort_all`."""
        if self._closing:
            raise LifecycleError("the supervisor is draining and takes no more agents")
        spawn = Spawn(spec, self._around)
        self._live[spawn.id] = spawn
        self._by_key[spec.key] = (*self.with_key(spec.key), spawn)
        # The task copies the context once, here: no context manager stays open for each idle agent.
        with log_context_of(_Marks(spawn)):
            self._tasks.spawn(spawn.supervise(), name=spec.name)
        return spawn

    async def stop(self, spawn: Spawn, grace: float | None = None) -> DrainReport:
        """Drain one agent for at most `grace` seconds (default: its spec's), then abort it.

        Never raises for the agent's fault.
        """
        return await drain_together((spawn,), self._clock, grace=grace)

    async def drain_all(self, grace: float | None = None) -> DrainReport:
        """Take no more agents and drain all at once, each for its own time or all for `grace` seconds.

        At its deadline who is late is aborted; who would not leave is named. The log tells how it goes.
        """
        self._closing = True
        return await drain_together(self.live, self._clock, grace=grace, tell=True)

    def abort_all(self) -> None:
        """Take no more agents and cut all short, without waiting. `drain_all(0)` then tells who would not leave."""
        self._closing = True
        for spawn in self.live:
            spawn.abort()

    def _changed(self, spawn: Spawn, old: State, new: State) -> None:
        if new in TERMINAL:
            self._retire(spawn)
        for observer in self.on_change:
            try:
                observer(spawn, old, new)
            except Exception:
                # An observer only looks on: its fault must not touch the agent or the other observers.
                logger.exception("observer of agents failed", extra={"agent": spawn.name, "spawn_id": spawn.id})

    def _retire(self, spawn: Spawn) -> None:
        del self._live[spawn.id]
        if others := tuple(other for other in self.with_key(spawn.key) if other is not spawn):
            self._by_key[spawn.key] = others
        else:
            del self._by_key[spawn.key]
        self._finished.append(spawn)
