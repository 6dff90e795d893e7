"""One supervised agent, through all its lives.

A `SupervisedAgent` makes a `Child` for each life, waits until it runs, waits until it ends, and asks `policy.decide` whether
to start another one. Its `supervise` coroutine is the only task that starts children and waits for their ends; the
`Supervisor` makes the agent and owns that task. `drain.py`, operators and quotas act on it from other tasks through
`begin_drain`, `abort`, `quarantine` and `release`. These only change the state and signal the child; what follows from the
child's end is decided in `supervise`.

Invariants: `state` changes in `_signal` only, along the table in `state.py`; at most one child runs at a time, so a child
that does not end is never replaced; after a terminal state nothing is ever started again. Cancelling a wait in here does not
end the child.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from meshhost.clock import Clock
from meshhost.containment import as_exception, is_requested
from meshhost.errors import ConnectionLostError, LifecycleError, MeshhostError
from meshhost.logs import describe_error
from meshhost.supervision.deadlines import deadline
from meshhost.supervision.error_report import ErrorReport
from meshhost.supervision.isolation import Aborted, Child, Crashed, Exit, Exited
from meshhost.supervision.policy import GiveUp, Outcome, RestartAfter, RestartPolicy, decide, recent
from meshhost.supervision.state import TERMINAL, Signal, State, next_state

__all__ = ["CLEANUP_SECONDS", "AgentSpec", "Environment", "Key", "KeyT", "SupervisedAgent"]

logger = logging.getLogger(__name__)

CLEANUP_SECONDS = 5.0
"""How long an aborted child may take to clean up before it counts as stuck."""

_DEFAULT_POLICY = RestartPolicy()


class Key(Hashable, Protocol):
    """Whose agent it is. Opaque here: supervision groups agents by it, and shows it in logs; its owner reads the fields."""

    def __str__(self) -> str:
        """For people: one line that tells agents apart in a log."""
        ...

    def log_fields(self) -> Mapping[str, object]:
        """What marks log records about the agent. Made on each request, so that no mapping is kept for each agent."""
        ...


KeyT = TypeVar("KeyT", bound=Key)


@dataclass(frozen=True, slots=True)
class AgentSpec(Generic[KeyT]):
    """What to supervise. `key` says whose agent it is and need not be unique; `factory` makes a child for each life.

    A child that does not report running within `start_timeout` seconds has crashed (None: the child bounds its start
    itself). A child that is asked to leave has `drain_seconds`.
    """

    name: str
    key: KeyT
    factory: Callable[[], Child]
    policy: RestartPolicy = _DEFAULT_POLICY
    start_timeout: float | None = 30.0
    drain_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Environment(Generic[KeyT]):
    """What all agents of one supervisor share.

    `changed` is called with (agent, old state, new state) on each change and must not raise. An aborted child has
    `cleanup_seconds` to end.
    """

    clock: Clock
    random: Callable[[], float]
    changed: Callable[["SupervisedAgent[KeyT]", State, State], None]
    cleanup_seconds: float = CLEANUP_SECONDS


class SupervisedAgent(Generic[KeyT]):
    """A supervised agent, made by a `Supervisor`. Its public attributes are read-only for others.

    `started_at` (when it was added) and `state_since` are seconds since the epoch; `restarts` counts the starts after the
    first; `reason` says why it was given up or quarantined.
    """

    __slots__ = (
        "_aborting",
        "_child",
        "_delay",
        "_environment",
        "_history",
        "_leave_by",
        "_since",
        "_waiters",
        "id",
        "last_error",
        "reason",
        "restarts",
        "spec",
        "started_at",
        "state",
        "state_since",
    )

    def __init__(self, spec: AgentSpec[KeyT], environment: Environment[KeyT]) -> None:
        self.id = uuid.uuid4().hex
        self.spec = spec
        self.state = State.STARTING
        self.restarts = 0
        self.last_error: ErrorReport | None = None
        self.reason = ""
        self.started_at = self.state_since = environment.clock.time()
        self._environment = environment
        self._since = environment.clock.monotonic()
        self._child: Child | None = None
        self._aborting = False
        self._leave_by: float | None = None
        self._history: tuple[float, ...] = ()
        self._delay = 0.0
        self._waiters: tuple[tuple[Collection[State], asyncio.Future[State]], ...] = ()

    def __repr__(self) -> str:
        return f"<SupervisedAgent {self.spec.name!r} {self.id} {self.state} restarts={self.restarts}>"

    @property
    def name(self) -> str:
        """The name in its spec."""
        return self.spec.name

    @property
    def key(self) -> KeyT:
        """The key in its spec."""
        return self.spec.key

    @property
    def aborted(self) -> bool:
        """Whether its current or last child was aborted."""
        return self._aborting

    async def wait_state(self, *states: State) -> State:
        """Wait until it is in one of these states and return that state. LifecycleError when it ends in another one."""
        if self.state in states:
            return self.state
        if self.state in TERMINAL:
            raise LifecycleError(f"{self.name} is {self.state} for good")
        reached: asyncio.Future[State] = asyncio.get_running_loop().create_future()
        self._waiters = (*self._waiters, (states, reached))
        try:
            return await reached
        finally:
            self._waiters = tuple(waiter for waiter in self._waiters if waiter[1] is not reached)

    @property
    def activity(self) -> str | None:
        """What the agent does now, as text for people; None when it does nothing or does not report it."""
        return None if self._child is None else self._child.activity()

    @property
    def seconds_left(self) -> float | None:
        """How long it may still take to leave; None when it was not asked to leave."""
        if self._leave_by is None or self.state in TERMINAL:
            return None
        return max(0.0, self._leave_by - self._environment.clock.monotonic())

    def leave_by(self, moment: float) -> float:
        """Set when it has to be gone, on `clock.monotonic()`; an earlier deadline stays. Returns the deadline that holds."""
        self._leave_by = moment if self._leave_by is None else min(moment, self._leave_by)
        return self._leave_by

    def begin_drain(self) -> Child | None:
        """Never start it again. Returns the running child for the caller to drain, if any. Not allowed after its end."""
        self._signal(Signal.DRAIN)
        return self._child

    def abort(self) -> None:
        """End it at once, without waiting for its end. No effect after its end."""
        if self.state not in TERMINAL:
            self._signal(Signal.DRAIN)
            self._abort_child()

    async def quarantine(self, reason: str) -> None:
        """Abort it and hold it until `release`. Returns when the child has ended, or when it is FAILED because it did not.

        LifecycleError when it is draining or has ended.
        """
        self._signal(Signal.QUARANTINE)
        self.reason = reason
        child = self._child
        if (
            child is not None
            and not await self._abort_and_wait(child)
            and self.state in (State.QUARANTINED, State.STARTING)
        ):
            self._give_up("would not leave when it was quarantined")

    def release(self) -> None:
        """Start it again with an empty restart history. LifecycleError when it is not in quarantine."""
        self._signal(Signal.RELEASE)
        self.reason = ""
        self._history = ()

    async def supervise(self) -> None:
        """Run it until it ends for good. Only for the task that the supervisor made for it."""
        try:
            while self.state not in TERMINAL:
                if self._child is None:
                    await self._step()
                else:  # not in a method: the frame of one would be kept for each idle agent
                    ending = await self._child.wait()
                    self._child = None
                    self._settle(ending)
        except asyncio.CancelledError:
            self.abort()
            if self.state not in TERMINAL:
                self._signal(Signal.ABORTED)
            raise
        except BaseException as error:
            # A bug in supervision, or a Child that breaks its contract: the agent must not look alive afterwards.
            logger.exception("supervision of an agent failed", extra=self._fields())
            self.last_error = ErrorReport.of(as_exception(error))
            self._abort_child()
            if self.state not in TERMINAL:
                self._give_up("supervision failed")

    async def _step(self) -> None:
        if self.state is State.STARTING:
            await self._start()
        elif self.state is State.BACKING_OFF:
            await self._back_off()
        elif self.state is State.DRAINING:
            self._signal(Signal.DRAINED)
        else:
            await self.wait_state(State.STARTING, State.DRAINING, *TERMINAL)

    async def _start(self) -> None:
        self._aborting, clock = False, self._environment.clock
        try:
            self._child = self.spec.factory()
            seconds = self.spec.start_timeout
            if seconds is None:
                await self._child.start()
            else:
                async with deadline(clock, seconds, late=f"the agent did not report running within {seconds:g} s"):
                    await self._child.start()
        except BaseException as error:  # whatever an agent raises is that agent's crash
            if isinstance(error, asyncio.CancelledError) or is_requested(error):
                raise
            is_exit = isinstance(error, SystemExit)
            await self._start_failed(MeshhostError("the agent called exit()") if is_exit else as_exception(error))
        else:
            if self.state is State.STARTING and not self._aborting:
                self._signal(Signal.STARTED)

    async def _start_failed(self, error: Exception) -> None:
        if self._child is None or await self._abort_and_wait(self._child):
            self._child = None
            # The abort was part of the failed start and was not requested.
            self._aborting = False
            self._settle(Crashed(error))
        elif self.state is State.STARTING:
            # A second child beside one that hangs would run the agent twice. In other states the agent was asked to
            # leave: it stays supervised, and the drain that asked it reports it as stuck.
            self._give_up("did not start, and would not leave either", error, self._remember(error))

    async def _back_off(self) -> None:
        with suppress(TimeoutError):
            async with deadline(self._environment.clock, self._delay):
                await self.wait_state(State.DRAINING, State.QUARANTINED)
        if self.state is State.BACKING_OFF:
            self.restarts += 1
            self._history = (*self._history, self._environment.clock.monotonic())
            self._signal(Signal.RETRY_DUE)

    def _settle(self, ending: Exit) -> None:
        expected = self._aborting and isinstance(ending, Aborted)
        if self.state is State.DRAINING:
            self._leave(ending)
        elif self.state in (State.STARTING, State.RUNNING) and not expected:
            self._decide(_error_of(ending))

    def _leave(self, ending: Exit) -> None:
        if isinstance(ending, Crashed):
            self.last_error = ErrorReport.of(ending.error)
            logger.warning("agent crashed while it drained", exc_info=ending.error, extra=self._fields())
            self._signal(Signal.CRASHED)
        else:
            self._signal(Signal.DRAINED if isinstance(ending, Exited) else Signal.ABORTED)

    def _decide(self, error: Exception | None) -> None:
        outcome: Outcome = "exit" if error is None else "crash"
        policy, now = self.spec.policy, self._environment.clock.monotonic()
        ran = now - self._since if self.state is State.RUNNING else 0.0
        self._history = recent(policy, self._history, ran=ran)
        fresh = self._remember(error)
        decision = decide(policy, self._history, now, outcome, self._environment.random)
        if isinstance(decision, GiveUp) and isinstance(error, ConnectionLostError) and policy.restarts_after(outcome):
            # An unreachable room is not the agent's fault: keep trying, with the longest delay of the policy.
            decision = RestartAfter(self._environment.random() * policy.longest(len(self._history) + 1))
        if isinstance(decision, RestartAfter):
            self._delay = decision.delay
            fields = self._error_fields(error, outcome=outcome, retry_in=decision.delay)
            logger.warning("agent ended and will be started again", exc_info=fresh, extra=fields)
            self._signal(Signal.EXITED if error is None else Signal.CRASHED)
        elif decision.failed:
            self._give_up(decision.reason, error, fresh)
        else:
            self.reason = decision.reason
            self._signal(Signal.FINISHED)

    def _remember(self, error: Exception | None) -> Exception | None:
        """Keep the error as the last one; return it if the log needs its traceback."""
        if error is None:
            return None
        before, self.last_error = self.last_error, ErrorReport.of(error)
        return error if self.last_error.needs_traceback(error, before) else None

    def _give_up(self, reason: str, error: Exception | None = None, fresh: Exception | None = None) -> None:
        self.reason = reason
        logger.error("agent failed for good", exc_info=fresh, extra=self._error_fields(error, reason=reason))
        self._signal(Signal.GAVE_UP)

    def _abort_child(self) -> None:
        if self._child is None:
            return
        self._aborting = True
        try:
            self._child.abort()
        except BaseException:
            # Log and go on: the other agents still have to be aborted.
            logger.exception("agent could not be aborted", extra=self._fields())

    async def _abort_and_wait(self, child: Child) -> bool:
        self._abort_child()
        try:
            async with deadline(self._environment.clock, self._environment.cleanup_seconds):
                await child.wait()
        except TimeoutError:
            return False
        return True

    def _signal(self, signal: Signal) -> None:
        old, new = self.state, next_state(self.state, signal)
        if new is old:
            return
        clock = self._environment.clock
        self.state, self.state_since, self._since = new, clock.time(), clock.monotonic()
        # For the others the log has a line with the reason, or the one that follows says it.
        level = logging.DEBUG if new in (State.STARTING, State.BACKING_OFF, State.FAILED) else logging.INFO
        logger.log(level, "agent changed its state", extra=self._fields(state=new, was=old))
        for states, waiter in self._waiters:
            if new in states and not waiter.done():
                waiter.set_result(new)
            elif new in TERMINAL and not waiter.done():
                waiter.set_exception(LifecycleError(f"{self.name} is {new} for good"))
        self._environment.changed(self, old, new)

    def _fields(self, **more: object) -> dict[str, object]:
        return {**self.key.log_fields(), "agent": self.name, "spawn_id": self.id, **more}

    def _error_fields(self, error: Exception | None, **more: object) -> dict[str, object]:
        return self._fields(**more) if error is None else self._fields(**more, error=describe_error(error))


def _error_of(ending: Exit) -> Exception | None:
    # `_settle` lets requested aborts pass, so this one was not.
    if isinstance(ending, Aborted):
        return MeshhostError("the agent was aborted, but not by its supervisor")
    return ending.error if isinstance(ending, Crashed) else None
