"""One supervised agent, through all its lives."""

import asyncio
import logging
import traceback
import uuid
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from meshhost.clock import Clock
from meshhost.errors import ConnectionLostError, LifecycleError, MeshhostError
from meshhost.supervision.deadlines import deadline
from meshhost.supervision.isolation import Aborted, Child, Crashed, Exit, Exited
from meshhost.supervision.policy import GiveUp, Outcome, RestartAfter, RestartPolicy, decide, recent
from meshhost.supervision.state import TERMINAL, Signal, State, next_state

__all__ = ["ABORT_SECONDS", "ChildSpec", "Failure", "Spawn", "Surroundings"]

logger = logging.getLogger(__name__)

ABORT_SECONDS = 5.0
"""How long an aborted child may take to clean up before it counts as one that will not leave."""

_MAX_TEXT = 1_000
_MAX_TRACEBACK = 2_048
_DEFAULT_POLICY = RestartPolicy()


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as kept and shown: no frames stay alive through it, and its size is bounded."""

    type: str
    text: str
    traceback: str
    """The end of the traceback, at most 2 KB."""

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """Describe the error; a group of one is described by that one."""
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        try:
            text = str(error)
        except Exception:  # noqa: BLE001 - the error is an agent's own class and may fail in any way
            text = "(the error cannot be shown as text)"
        frames = "".join(traceback.format_exception(error))
        return cls(type(error).__name__, text[:_MAX_TEXT], frames[-_MAX_TRACEBACK:])


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to supervise. `key` groups spawns and need not be unique; `factory` makes a child for each life.

    A child that does not report running within `start_timeout` seconds has crashed (None: it bounds its start itself); one
    that is asked to leave may take `drain_seconds`. `log_fields` mark all that is logged inside.
    """

    name: str
    key: Hashable
    factory: Callable[[], Child]
    policy: RestartPolicy = _DEFAULT_POLICY
    start_timeout: float | None = 30.0
    drain_seconds: float = 30.0
    log_fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all spawns of one supervisor share. `changed` is told of each new state: spawn, old, new; it never raises."""

    clock: Clock
    random: Callable[[], float]
    changed: Callable[["Spawn", State, State], None]


class Spawn:
    """A supervised agent. Its facts are for reading; made by a `Supervisor`.

    `started_at` (when it was first asked for) and `state_since` are seconds since the epoch; `restarts` counts the starts
    after the first; `reason` tells why it was given up or quarantined.
    """

    __slots__ = (
        "_aborting",
        "_around",
        "_child",
        "_delay",
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

    def __init__(self, spec: ChildSpec, around: Surroundings) -> None:
        self.id = uuid.uuid4().hex
        self.spec = spec
        self.state = State.STARTING
        self.restarts = 0
        self.last_error: Failure | None = None
        self.reason = ""
        self.started_at = self.state_since = around.clock.time()
        self._around = around
        self._since = around.clock.monotonic()
        self._child: Child | None = None
        self._aborting = False
        self._leave_by: float | None = None
        self._history: tuple[float, ...] = ()
        self._delay = 0.0
        self._waiters: tuple[tuple[Collection[State], asyncio.Future[State]], ...] = ()

    def __repr__(self) -> str:
        return f"<Spawn {self.spec.name!r} {self.id} {self.state} restarts={self.restarts}>"

    @property
    def name(self) -> str:
        """The name in its spec."""
        return self.spec.name

    @property
    def key(self) -> Hashable:
        """The key in its spec."""
        return self.spec.key

    @property
    def aborted(self) -> bool:
        """Whether its present or last child was told to end at once."""
        return self._aborting

    async def wait_state(self, *states: State) -> State:
        """Return the first of these states that it is in or comes to. LifecycleError when it ended in another."""
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
        """What its agent does now, in words; None when it does nothing or does not tell."""
        return None if self._child is None else self._child.activity()

    @property
    def seconds_left(self) -> float | None:
        """How long it may still take to leave; None when nobody waits for that."""
        if self._leave_by is None or self.state in TERMINAL:
            return None
        return max(0.0, self._leave_by - self._around.clock.monotonic())

    def leave_by(self, moment: float) -> float:
        """It has to be gone at `moment` on its clock's monotonic(), or when it was said before if that is earlier: returned."""
        self._leave_by = moment if self._leave_by is None else min(moment, self._leave_by)
        return self._leave_by

    def begin_drain(self) -> Child | None:
        """Never start it again. Returns the child that runs and is to be drained. Not for one that has ended."""
        self._signal(Signal.DRAIN)
        return self._child

    def abort(self) -> None:
        """Cut it short, without waiting for its end; no effect on one that has ended."""
        if self.state not in TERMINAL:
            self._signal(Signal.DRAIN)
            self._abort_child()

    async def quarantine(self, reason: str) -> None:
        """Abort it and hold it until `release`; returns when it has left, or FAILED because it would not.

        LifecycleError for one that drains or has ended.
        """
        self._signal(Signal.QUARANTINE)
        self.reason = reason
        child = self._child
        if child is not None and not await self._ousted(child) and self.state in (State.QUARANTINED, State.STARTING):
            self._give_up("would not leave when it was quarantined")

    def release(self) -> None:
        """Start it again with a clean slate. LifecycleError for one that is not in quarantine."""
        self._signal(Signal.RELEASE)
        self.reason = ""
        self._history = ()

    async def supervise(self) -> None:
        """Run it until it ends for good. The supervisor's task; for nobody else."""
        try:
            while self.state not in TERMINAL:
                if self._child is None:
                    await self._step()
                else:  # not in a method of its own: its frame would be kept for each agent that idles
                    ending = await self._child.wait()
                    self._child = None
                    self._settle(ending)
        except asyncio.CancelledError:
            self.abort()
            if self.state not in TERMINAL:
                self._signal(Signal.ABORTED)
            raise
        except Exception as error:
            # A fault of supervision itself, or of a Child that breaks its contract, must not look like a live agent.
            logger.exception("supervision of an agent failed", extra=self._fields())
            self.last_error = Failure.of(error)
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
        self._aborting, clock = False, self._around.clock
        try:
            self._child = self.spec.factory()
            seconds = self.spec.start_timeout
            if seconds is None:
                await self._child.start()
            else:
                async with deadline(clock, seconds, late=f"the agent did not report running within {seconds:g} s"):
                    await self._child.start()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever an agent raises is that agent's crash
            await self._start_failed(
                error if isinstance(error, Exception) else MeshhostError("the agent called exit()")
            )
        else:
            if self.state is State.STARTING and not self._aborting:
                self._signal(Signal.STARTED)

    async def _start_failed(self, error: Exception) -> None:
        if self._child is None or await self._ousted(self._child):
            self._child = None
            # The abort was part of the failed start, nobody asked for it.
            self._aborting = False
            self._settle(Crashed(error))
        elif self.state is State.STARTING:
            # To start another beside the one that hangs would run the agent twice. In other states somebody asked it to
            # leave: it stays watched, and is named by who asked.
            self.last_error = Failure.of(error)
            self._give_up("did not start, and would not leave either", error)

    async def _back_off(self) -> None:
        with suppress(TimeoutError):
            async with deadline(self._around.clock, self._delay):
                await self.wait_state(State.DRAINING, State.QUARANTINED)
        if self.state is State.BACKING_OFF:
            self.restarts += 1
            self._history = (*self._history, self._around.clock.monotonic())
            self._signal(Signal.RETRY_DUE)

    def _settle(self, ending: Exit) -> None:
        expected = self._aborting and isinstance(ending, Aborted)
        if self.state is State.DRAINING:
            self._leave(ending)
        elif self.state in (State.STARTING, State.RUNNING) and not expected:
            self._decide(_error_of(ending))

    def _leave(self, ending: Exit) -> None:
        if isinstance(ending, Crashed):
            self.last_error = Failure.of(ending.error)
            logger.warning("agent crashed while it drained", exc_info=ending.error, extra=self._fields())
            self._signal(Signal.CRASHED)
        else:
            self._signal(Signal.DRAINED if isinstance(ending, Exited) else Signal.ABORTED)

    def _decide(self, error: Exception | None) -> None:
        outcome: Outcome = "exit" if error is None else "crash"
        policy, now = self.spec.policy, self._around.clock.monotonic()
        ran = now - self._since if self.state is State.RUNNING else 0.0
        self._history = recent(policy, self._history, ran=ran)
        if error is not None:
            self.last_error = Failure.of(error)
        decision = decide(policy, self._history, now, outcome, self._around.random)
        if isinstance(decision, GiveUp) and isinstance(error, ConnectionLostError) and policy.restarts_after(outcome):
            # A room that cannot be reached is not the agent's fault: it tries for as long as it is wanted.
            decision = RestartAfter(self._around.random() * policy.longest(len(self._history) + 1))
        if isinstance(decision, RestartAfter):
            self._delay = decision.delay
            fields = self._fields(outcome=outcome, retry_in=decision.delay)
            logger.warning("agent ended and will be started again", exc_info=error, extra=fields)
            self._signal(Signal.EXITED if error is None else Signal.CRASHED)
        elif decision.failed:
            self._give_up(decision.reason, error)
        else:
            self.reason = decision.reason
            self._signal(Signal.FINISHED)

    def _give_up(self, reason: str, error: Exception | None = None) -> None:
        self.reason = reason
        logger.error("agent failed for good", exc_info=error, extra=self._fields(reason=reason))
        self._signal(Signal.GAVE_UP)

    def _abort_child(self) -> None:
        if self._child is None:
            return
        self._aborting = True
        try:
            self._child.abort()
        except Exception:
            # A child that breaks its contract must not keep the others from being aborted.
            logger.exception("agent could not be aborted", extra=self._fields())

    async def _ousted(self, child: Child) -> bool:
        self._abort_child()
        try:
            async with deadline(self._around.clock, ABORT_SECONDS):
                await child.wait()
        except TimeoutError:
            return False
        return True

    def _signal(self, signal: Signal) -> None:
        old, new = self.state, next_state(self.state, signal)
        if new is old:
            return
        self.state, self.state_since, self._since = new, self._around.clock.time(), self._around.clock.monotonic()
        logger.info("agent changed its state", extra=self._fields(state=new, was=old))
        for states, waiter in self._waiters:
            if new in states and not waiter.done():
                waiter.set_result(new)
            elif new in TERMINAL and not waiter.done():
                waiter.set_exception(LifecycleError(f"{self.name} is {new} for good"))
        self._around.changed(self, old, new)

    def _fields(self, **more: object) -> dict[str, object]:
        return {**self.spec.log_fields, "agent": self.name, "spawn_id": self.id, **more}


def _error_of(ending: Exit) -> Exception | None:
    if isinstance(ending, Aborted):
        return MeshhostError("the agent was aborted, but not by its supervisor")
    return ending.error if isinstance(ending, Crashed) else None
