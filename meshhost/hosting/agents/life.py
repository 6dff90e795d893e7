"""One life of an agent in its room: join, construct, start, wait, drain, stop, leave.

`AgentLife.run` is the code inside a `TaskChild`: in the host's event loop for isolation `task`, in the agent's own process for
isolation `process`. It holds the room connection and the agent object for one life; a restart makes a new `AgentLife` for the
same `Assignment`.

An agent leaves when the supervisor drains it, when the room dismisses it, or when the room is closed for good; then its
`drain()` runs within the grace time. In every case, also when the task is cancelled, `stop()` runs and the room connection is
closed. A dismissal or a closed room ends the agent for good: it is not a crash, and the supervisor must not restart it.
"""

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from meshhost.containment import exits_go_to, is_requested
from meshhost.errors import RequestTimeoutError, RoomError, RoomRefusedError, SettingsError
from meshhost.hosting.agents.assignment import Assignment
from meshhost.hosting.agents.classes import place_of_call
from meshhost.room.call import CallContext
from meshhost.room.client import RoomClient
from meshhost.room.reconnect import is_final
from meshhost.room.services.messaging import RoomMessage
from meshhost.supervision.isolation import ChildContext
from meshhost.tasks import LightEvent, uninterrupted, until

__all__ = ["STOP_SECONDS", "AgentLife", "AnyAgent"]

logger = logging.getLogger(__name__)

# How a room server refuses an agent whose place is gone, or taken by another.
_UNWANTED = frozenset({404, 409})
STOP_SECONDS = 20.0
"""How long an agent's `stop()` may take."""


@runtime_checkable
class AnyAgent(Protocol):
    """What a host can run.

    Optional members: `drain()` (finish the work in progress), `wait_ended()` (return or raise when the agent has ended), and
    a property `activity` (what it does now, as text for people; None for nothing).
    """

    async def start(self, *, room: RoomClient) -> None:
        """Begin to take part."""
        ...

    async def stop(self) -> None:
        """End taking part."""
        ...


@dataclass(frozen=True, slots=True)
class _Stopping:
    activity: str = "its stop"


_STOPPING = _Stopping()


class _Leaving(LightEvent):
    """Set when the agent must leave, for any reason."""

    __slots__ = ("_crash", "is_dismissed")

    def __init__(self) -> None:
        super().__init__()
        self.is_dismissed = False
        self._crash: Exception | None = None

    def crash(self, error: Exception) -> None:
        """One of the agent's tasks or handlers called `sys.exit()`."""
        logger.error("agent's code ends the program: only the agent ends", exc_info=error)
        self._crash = error
        self.set()

    def raise_crash(self) -> None:
        """Raise what `crash` was called with, once."""
        crash, self._crash = self._crash, None
        try:
            if crash is not None:
                raise crash
        finally:
            del crash  # or the error and this frame would hold each other

    def on_message(self, message: RoomMessage) -> None:
        """A message of the room: `dismiss` asks the agent to leave."""
        if message.type == "dismiss":
            self.is_dismissed = True
            self.set()


class AgentLife:
    """Runs an agent of a class for its assignment, once; each restart makes a new one. Times in seconds."""

    __slots__ = ("_assignment", "_cls", "_grace", "_stop_seconds")

    def __init__(
        self, cls: Callable[..., Any], assignment: Assignment, *, grace: float, stop_seconds: float = STOP_SECONDS
    ) -> None:
        self._cls = cls
        self._assignment = assignment
        self._grace = grace
        self._stop_seconds = stop_seconds

    async def run(self, child: ChildContext) -> None:
        """Returns when the agent has left in order; raises its crash."""
        call = self._assignment.context()
        room = RoomClient(protocol=self._assignment.protocol, call=call)
        leaving = _Leaving()
        # This task runs nothing but the agent, and all its tasks inherit the context.
        exits_go_to(leaving.crash)
        room.messaging.on("message", leaving.on_message)
        try:
            await room.connect()
        except RoomError as error:
            # A server that was too slow to answer may answer next time.
            if is_final(error) and not isinstance(error, RequestTimeoutError):
                self._assignment.end_for_good(str(error))
            if isinstance(error, RoomRefusedError) and error.status in _UNWANTED:
                logger.info("agent is not wanted in its room", extra={"reason": str(error)})
                return  # no crash: it came back from a ledger, and another has its place meanwhile
            raise
        try:
            await self._take_part(room, call, child, leaving)
        finally:
            await room.close()
            room.forget()

    async def _take_part(self, room: RoomClient, call: CallContext, child: ChildContext, leaving: _Leaving) -> None:
        agent = _construct(self._cls, call)
        try:
            await agent.start(room=room)
            child.current = agent
            child.started()
            leave = leaving.set
            child.draining.on_set(leave)
            room.on_closed(functools.partial(self._room_closed, room, leaving))
            await self._wait_end(room, agent, leaving)
            await self._drain(agent, room)
        finally:
            child.current = _STOPPING
            await self._stop(agent)

    def _room_closed(self, room: RoomClient, leaving: _Leaving) -> None:
        error = room.close_reason.error
        if error is not None:
            # At once, not when the agent's task runs next: a call in between must not be answered with an agent that ends.
            self._assignment.end_for_good(f"the room is closed: {error}")
        leaving.set()

    async def _wait_end(self, room: RoomClient, agent: AnyAgent, leaving: _Leaving) -> None:
        """Return when the agent must leave or has ended; raise the error that it ended with."""
        wait_ended = getattr(agent, "wait_ended", None)
        try:
            await (leaving.waiter() if wait_ended is None else until(leaving, wait_ended()))
        except RoomError:
            # An agent whose room was closed may raise: that is not a crash of its own.
            if not room.is_closed:
                raise
        leaving.raise_crash()
        if leaving.is_dismissed:
            self._assignment.end_for_good("dismissed")
        elif room.is_closed:
            self._assignment.end_for_good(f"the room is closed: {room.close_reason}")

    async def _drain(self, agent: AnyAgent, room: RoomClient) -> None:
        drain = getattr(agent, "drain", None)
        if drain is None:
            return
        try:
            async with asyncio.timeout(self._grace):
                await drain()
        except TimeoutError:
            logger.warning("agent did not drain in time", extra={"grace": self._grace})
        except RoomError:
            # As in `_wait_end`: no work can be finished in a closed room.
            if not room.is_closed:
                raise

    async def _stop(self, agent: AnyAgent) -> None:
        # Errors are logged, not raised: the room connection must still be closed, and an error in progress still raised.
        try:
            await uninterrupted(agent.stop(), timeout=self._stop_seconds)
        except TimeoutError:
            logger.warning("agent did not stop in time", extra={"timeout": self._stop_seconds})
        except BaseException as error:
            if is_requested(error):
                raise
            logger.exception("agent could not stop")


def _construct(cls: Callable[..., Any], call: CallContext) -> AnyAgent:
    agent: AnyAgent
    try:
        agent = cls(call=call) if _takes_call(cls) else cls()
    except TypeError as error:
        if (place := place_of_call(error)) is None:
            raise
        raise SettingsError(f"{getattr(cls, '__name__', cls)} cannot be made: {error} ({place})") from error
    # By hand: isinstance with the protocol takes ten times as long.
    if not (callable(getattr(agent, "start", None)) and callable(getattr(agent, "stop", None))):
        raise SettingsError(f"{getattr(cls, '__name__', cls)} is not an agent: it needs start(room=…) and stop()")
    return agent


def _takes_call(cls: Callable[..., Any]) -> bool:
    # Cached per class: reading a signature takes a fifth of the time of a start.
    return _class_takes_call(cls) if isinstance(cls, type) else _has_call(cls)


def _has_call(cls: Callable[..., Any]) -> bool:
    return "call" in inspect.signature(cls).parameters


_class_takes_call = functools.lru_cache(maxsize=256)(_has_call)
