"""One life of a called agent: join the room, construct, start, wait, drain or stop, leave."""

import asyncio
import functools
import inspect
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from meshhost.errors import RequestTimeoutError, RoomError
from meshhost.hosting.calls.admission import CallRequest
from meshhost.room.call import CallContext
from meshhost.room.client import RoomClient
from meshhost.room.reconnect import is_final
from meshhost.room.services.messaging import RoomMessage
from meshhost.supervision.isolation import ChildContext
from meshhost.supervision.spawn import Spawn
from meshhost.supervision.state import TERMINAL, State
from meshhost.tasks import LightEvent, uninterrupted, until
from meshhost.transport.base import ClientProtocol
from meshhost.transport.websocket_client import WebSocketClientProtocol

__all__ = ["AgentLife", "AnyAgent", "Visit"]

logger = logging.getLogger(__name__)

STOP_TIMEOUT = 20.0


@runtime_checkable
class AnyAgent(Protocol):
    """What a host can run. Optional: `drain()` (finish what runs), `wait_ended()` (return or raise when it ended), and a
    property `activity` (what it does now, in words; None: nothing).
    """

    async def start(self, *, room: RoomClient) -> None:
        """Begin to take part."""
        ...

    async def stop(self) -> None:
        """End taking part."""
        ...


@dataclass(slots=True)
class Visit:
    """What a spawn is about: the call that made it (the latest, when it was repeated) and how its room is reached.

    `pid` is the process that it has to itself, while it has one.
    """

    request: CallRequest
    protocol: ClientProtocol
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    spawn: Spawn | None = None
    on_renew: Callable[[CallRequest], None] | None = None
    pid: int | None = None

    def renew(self, request: CallRequest) -> None:
        """The call was repeated and brings a fresh token: it is used when the agent has to connect again."""
        self.request = request
        if isinstance(self.protocol, WebSocketClientProtocol):
            self.protocol.renew(request.token)
        if self.on_renew is not None:
            self.on_renew(request)

    def context(self) -> CallContext:
        """The call as the agent sees it."""
        request = self.request
        return CallContext(
            tenant=request.tenant,
            room=request.room_name,
            identity=request.identity,
            arguments=request.arguments,
            call_id=self.id,
            deadline=request.expires_at,
        )

    def end_for_good(self, reason: str) -> None:
        """What comes now is the end, not a crash: the supervisor must not start the agent again."""
        spawn = self.spawn
        if spawn is not None and spawn.state not in TERMINAL and spawn.state is not State.DRAINING:
            spawn.reason = reason
            spawn.begin_drain()


@dataclass(frozen=True, slots=True)
class _Stopping:
    activity: str = "its stop"


_STOPPING = _Stopping()


class _Leaving(LightEvent):
    """Set when an agent shall leave, for whatever reason."""

    __slots__ = ("is_dismissed",)

    def __init__(self) -> None:
        super().__init__()
        self.is_dismissed = False

    def hear(self, message: RoomMessage) -> None:
        """Take a message of the room."""
        if message.type == "dismiss":
            self.is_dismissed = True
            self.set()


class AgentLife:
    """Runs an agent of a class for a visit, once. Made anew for each restart."""

    def __init__(self, cls: Callable[..., Any], visit: Visit, *, grace: float) -> None:
        self._cls = cls
        self._visit = visit
        self._grace = grace

    async def run(self, child: ChildContext) -> None:
        """Live. Returns when the agent left in order; raises what it crashed with."""
        call = self._visit.context()
        room = RoomClient(protocol=self._visit.protocol, call=call)
        leaving = _Leaving()
        room.messaging.on("message", leaving.hear)
        try:
            await room.connect()
        except RoomError as error:
            # A server that is slow to say hello may be quicker next time.
            if is_final(error) and not isinstance(error, RequestTimeoutError):
                self._visit.end_for_good(str(error))
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
            child.doer = agent
            child.started()
            leave = leaving.set
            child.draining.on_set(leave)
            room.on_closed(leave)
            await self._wait_end(room, agent, leaving)
            await self._drain(agent, room)
        finally:
            child.doer = _STOPPING
            await _stop(agent)

    async def _wait_end(self, room: RoomClient, agent: AnyAgent, leaving: _Leaving) -> None:
        """Return when the agent shall leave or has ended; raise what it ended with."""
        wait_ended = getattr(agent, "wait_ended", None)
        try:
            await (leaving.waiter() if wait_ended is None else until(leaving, wait_ended()))
        except RoomError:
            # An agent whose room ended may well raise: that is no crash of its own.
            if not room.is_closed:
                raise
        if leaving.is_dismissed:
            self._visit.end_for_good("dismissed")
        elif room.is_closed:
            self._visit.end_for_good(f"the room is closed: {await room.wait_closed()}")

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
            # As in `_wait_end`: nothing can be finished in a room that has ended.
            if not room.is_closed:
                raise


def _construct(cls: Callable[..., Any], call: CallContext) -> AnyAgent:
    agent: AnyAgent = cls(call=call) if _takes_call(cls) else cls()
    # By hand: to ask for the protocol takes ten times as long.
    if not (callable(getattr(agent, "start", None)) and callable(getattr(agent, "stop", None))):
        raise RoomError(f"{getattr(cls, '__name__', cls)} is no agent: it needs start(room=…) and stop()")
    return agent


def _takes_call(cls: Callable[..., Any]) -> bool:
    # Looked up once for a class: to read a signature takes a fifth of a start.
    return _class_takes_call(cls) if isinstance(cls, type) else _has_call(cls)


def _has_call(cls: Callable[..., Any]) -> bool:
    return "call" in inspect.signature(cls).parameters


_class_takes_call = functools.lru_cache(maxsize=256)(_has_call)


async def _stop(agent: AnyAgent) -> None:
    """Stop it whatever it is doing; an agent that cannot even stop is logged, not fatal to what comes after."""
    try:
        await uninterrupted(agent.stop(), timeout=STOP_TIMEOUT)
    except TimeoutError:
        logger.warning("agent did not stop in time", extra={"timeout": STOP_TIMEOUT})
    except Exception:
        logger.exception("agent could not stop")
