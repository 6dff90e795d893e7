"""`RoomClient`: a participant's side of a room, kept open across connections."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, Self

from meshhost.clock import Clock, SystemClock
from meshhost.errors import ConnectionLostError, RequestTimeoutError, RoomError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.frames import Limits
from meshhost.protocol.messages import (
    EmptyResponse,
    FileResponse,
    Header,
    JsonResponse,
    Response,
    TextResponse,
)
from meshhost.room.call import CallContext
from meshhost.room.events import EventEmitter
from meshhost.room.handshake import Handshake, Welcome
from meshhost.room.participants import LocalParticipant, Participant, RemoteParticipant
from meshhost.room.reconnect import ReconnectPolicy, is_final
from meshhost.room.services.agents import AgentsClient
from meshhost.room.services.developer import DeveloperClient
from meshhost.room.services.messaging import MessagingClient
from meshhost.room.services.queues import QueuesClient
from meshhost.room.services.storage import StorageClient
from meshhost.room.services.sync import SyncClient
from meshhost.room.session import Reply, RoomSession
from meshhost.tasks import LightEvent, TaskOwner
from meshhost.transport.base import ClientProtocol

__all__ = ["CloseReason", "RoomClient", "RoomState"]

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT = 15.0
REQUEST_TIMEOUT = 60.0
CLOSE_TIMEOUT = 10.0
_RECONNECT = ReconnectPolicy()
_CLOCK = SystemClock()

Handler = Callable[[MessageReceived], Coroutine[Any, Any, None] | None]
Restorer = Callable[[], Awaitable[None]]


class RoomState(Enum):
    """Where a RoomClient stands."""

    NEW = "new"
    OPEN = "open"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class CloseReason:
    """Why a room was left for good. `error` is None when `close()` was called here."""

    error: RoomError | None = None

    def __str__(self) -> str:
        return "left" if self.error is None else str(self.error)


class RoomClient:
    """A participant's side of a room.

    Use it as `async with RoomClient(protocol=WebSocketClientProtocol(url=…, token=…)) as room`. Connecting raises
    RoomRefusedError, ConnectionLostError or RequestTimeoutError. Once open, a lost connection is dialled again until the
    server refuses or the room ends; requests that were under way fail with ConnectionLostError (nobody knows whether they
    were done), new ones wait for the connection within their timeout. Events: `reconnecting`, `reconnected` (after every
    service restored what it had registered), `closed` (with `reason`), `room.status`.

    `call` is the call that brought an agent here; `request_timeout` the seconds a request waits by default.
    """

    def __init__(
        self,
        *,
        protocol: ClientProtocol,
        call: CallContext | None = None,
        request_timeout: float = REQUEST_TIMEOUT,
        reconnect: ReconnectPolicy | None = None,
        clock: Clock | None = None,
        limits: Limits = Limits(),  # noqa: B008 - immutable
    ) -> None:
        self._protocol = protocol
        self._call = call
        self._request_timeout = request_timeout
        self._reconnect_policy = reconnect or _RECONNECT
        self._clock = clock or _CLOCK
        self._limits = limits
        self._tasks = TaskOwner("room")
        self._events = EventEmitter(self.spawn)
        self._handlers: dict[str, Handler] = {}
        self._restorers: list[Restorer] = []
        self._handshake = Handshake()
        self._state = RoomState.NEW
        self._state_changed = LightEvent()
        self._closed = LightEvent()
        self._session: RoomSession | None = None
        self._welcome: Welcome | None = None
        self._participant: LocalParticipant | None = None
        self._reason: CloseReason | None = None
        self._dialled_token = ""
        self._queues: QueuesClient | None = None
        self._messaging: MessagingClient | None = None
        self._storage: StorageClient | None = None
        self._agents: AgentsClient | None = None
        self._developer: DeveloperClient | None = None
        self._sync: SyncClient | None = None

    def __repr__(self) -> str:
        return f"<RoomClient {self._state.value} {self._session!r}>"

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def protocol(self) -> ClientProtocol:
        """How the room is reached: `protocol.url`, `protocol.token`."""
        return self._protocol

    @property
    def call(self) -> CallContext | None:
        """The call that brought this agent into the room, if one did."""
        return self._call

    @property
    def queues(self) -> QueuesClient:
        """Durable queues."""
        # Made when first used, as the others are: a host keeps a client for every agent that idles.
        if self._queues is None:
            self._queues = QueuesClient(room=self)
        return self._queues

    @property
    def messaging(self) -> MessagingClient:
        """Messages between participants, and who is there."""
        if self._messaging is None:
            self._messaging = MessagingClient(room=self)
        return self._messaging

    @property
    def storage(self) -> StorageClient:
        """Files."""
        if self._storage is None:
            self._storage = StorageClient(room=self)
        return self._storage

    @property
    def agents(self) -> AgentsClient:
        """Agents and tools: find, use and offer them."""
        if self._agents is None:
            self._agents = AgentsClient(room=self)
        return self._agents

    @property
    def developer(self) -> DeveloperClient:
        """The room's developer log."""
        if self._developer is None:
            self._developer = DeveloperClient(room=self)
        return self._developer

    @property
    def sync(self) -> SyncClient:
        """Documents that several edit at once."""
        if self._sync is None:
            self._sync = SyncClient(room=self)
        return self._sync

    @property
    def state(self) -> RoomState:
        """Where the client stands."""
        return self._state

    @property
    def is_open(self) -> bool:
        """Whether a request would be sent at once."""
        return self._state is RoomState.OPEN

    @property
    def is_closed(self) -> bool:
        """Whether the room was left for good."""
        return self._state is RoomState.CLOSED

    @property
    def room_name(self) -> str:
        """The room's name. Raises RoomError before the first connection, as the next four do."""
        return self._welcomed().room_name

    @property
    def room_url(self) -> str:
        """The room's WebSocket URL, as the server knows it."""
        return self._welcomed().room_url

    @property
    def session_id(self) -> str:
        """Which life of the room this is."""
        return self._welcomed().session_id

    @property
    def extensions(self) -> dict[str, Any]:
        """What the server offers beyond the MeshAgent protocol; empty for other servers."""
        return self._welcomed().extensions

    @property
    def local_participant(self) -> LocalParticipant:
        """Ourselves."""
        if self._participant is None:
            raise RoomError("the room is not connected yet")
        return self._participant

    def participant(self, participant_id: Any) -> Participant | None:
        """Who has this id: ourselves, one who enabled messaging, or else somebody of whom only the id is known."""
        if not isinstance(participant_id, str):
            return None
        if participant_id == self.local_participant.id:
            return self.local_participant
        return self.messaging.get_participant(participant_id) or RemoteParticipant(id=participant_id)

    async def connect(self) -> None:
        """Join the room; `__aenter__` does it. Raises what the class says."""
        if self._state is not RoomState.NEW:
            raise RoomError(f"this room client is {self._state.value}: make a new one to join again")
        try:
            ended = await self._dial(resume=None)
        except BaseException as error:
            await self._tasks.stop(timeout=CLOSE_TIMEOUT)
            self._reason = CloseReason(error if isinstance(error, RoomError) else None)
            self._set_state(RoomState.CLOSED)
            raise
        self._set_state(RoomState.OPEN)
        ended.add_done_callback(self._session_ended)

    async def close(self) -> None:
        """Leave the room in order. Idempotent; never raises."""
        session, self._session = self._session, None
        self._reason = self._reason or CloseReason()
        self._set_state(RoomState.CLOSED)
        if session is not None:
            await session.close()
        left = await self._tasks.stop(timeout=CLOSE_TIMEOUT)
        if left:
            logger.warning("tasks did not end with the room", extra={"tasks": left})

    def forget(self) -> None:
        """Let go of all that refers back to this client, which is closed and not used any more.

        It is freed at once then. Else that is left to the next full collection of garbage, which is rare where thousands of
        clients live.
        """
        self._queues = self._messaging = self._storage = self._agents = self._developer = self._sync = None
        self._participant = None
        self._handlers.clear()
        self._restorers.clear()
        self._events.close()

    async def wait_closed(self) -> CloseReason:
        """Return when the room is left for good, and why."""
        await self._closed.wait()
        return self._reason or CloseReason()

    def on_closed(self, callback: Callable[[], object]) -> None:
        """Call this once when the room is left for good, here or by its end; at once when it was. It must not raise."""
        self._closed.on_set(callback)

    def on(self, event_name: str, func: Callable[..., Any]) -> None:
        """Call `func` at every event of this name."""
        self._events.on(event_name, func)

    def off(self, event_name: str, func: Callable[..., Any]) -> None:
        """Undo `on`."""
        self._events.off(event_name, func)

    def emit(self, event_name: str, **kwargs: Any) -> None:
        """Tell the handlers of an event."""
        self._events.emit(event_name, **kwargs)

    async def send_request(
        self, type: str, request: dict[str, Any], data: bytes | None = None, *, timeout: float | None = None
    ) -> Any:
        """Ask the room server; the answer is a JSON value, a text, a FileResponse, or None. Raises RoomError."""
        response, _ = await self.request(type, request, data, timeout=timeout)
        match response:
            case JsonResponse():
                return response.json
            case TextResponse():
                return response.text
            case FileResponse():
                return response
            case EmptyResponse():
                return None
            case _:
                raise RoomError(f"unexpected {response.type} reply to {type}")

    # For the service clients, and for agents that speak messages of their own.

    async def request(
        self, type: str, header: Header, data: bytes | None = None, *, timeout: float | None = None
    ) -> Reply:
        """Ask the room server; returns the body and the reply's whole header.

        Raises the error that was answered, RequestTimeoutError, or ConnectionLostError.
        """
        timeout = self._request_timeout if timeout is None else timeout
        began = self._clock.monotonic()
        session = await self._open_session(timeout)
        return await session.request(type, header, data, timeout=max(timeout - (self._clock.monotonic() - began), 0.0))

    async def notify(self, type: str, header: Header, data: bytes | None = None) -> None:
        """Tell the room server something that it does not answer."""
        session = await self._open_session(self._request_timeout)
        await session.notify(type, header, data)

    async def respond(self, message_id: int, type: str, response: Response) -> None:
        """Answer a message of the server. When the connection is gone, so is whoever asked: nothing is sent."""
        if self._session is not None:
            with contextlib.suppress(ConnectionLostError):
                await self._session.respond(message_id, type, response)

    def register_handler(self, type: str, handler: Handler) -> None:
        """Let `handler` take the server's messages of this type. One that returns a coroutine runs as a task."""
        self._handlers[type] = handler

    def unregister_handler(self, type: str) -> None:
        """Undo `register_handler`."""
        self._handlers.pop(type, None)

    def add_restorer(self, restorer: Restorer) -> None:
        """Run `restorer` after each reconnect, before `reconnected`: it registers again what a connection loses."""
        self._restorers.append(restorer)

    def remove_restorer(self, restorer: Restorer) -> None:
        """Undo `add_restorer`."""
        if restorer in self._restorers:
            self._restorers.remove(restorer)

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a coroutine as a task that ends with the room; its error is logged."""
        task = self._tasks.spawn(_logged(coroutine, name), name=name)
        # When the room ends before the task ran at all, nobody else closes the coroutine.
        task.add_done_callback(lambda _: coroutine.close())
        return task

    async def _open_session(self, timeout: float) -> RoomSession:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._state is RoomState.RECONNECTING:
                    await self._wait_state_change()
        if self._session is not None and self._state is RoomState.OPEN:
            return self._session
        if self._state is RoomState.CLOSED and self._reason is not None and self._reason.error is not None:
            raise self._reason.error
        raise ConnectionLostError(f"the room is not open: it is {self._state.value}")

    def _session_ended(self, ended: asyncio.Task[RoomError]) -> None:
        # No task waits for this while the connection lasts: there are many rooms, and they idle.
        if self._state is not RoomState.CLOSED and not ended.cancelled():
            self._tasks.spawn(self._recover(ended.result()), name="connection")

    async def _recover(self, error: RoomError) -> None:
        logger.info("room connection lost", extra={"reason": str(error)})
        self._session = None
        # A token that was renewed meanwhile deserves a try, although the old one has expired.
        if is_final(error) and self._protocol.token == self._dialled_token:
            self._give_up(error)
            return
        self._set_state(RoomState.RECONNECTING)
        self.emit("reconnecting")
        ended = await self._dial_again()
        if ended is not None:
            self._set_state(RoomState.OPEN)
            self.spawn(self._restore(), "restore")
            ended.add_done_callback(self._session_ended)

    async def _dial_again(self) -> asyncio.Task[RoomError] | None:
        resume = self.extensions.get("resume_token")
        attempt = 0
        while True:
            attempt += 1
            await self._clock.sleep(self._reconnect_policy.delay(attempt, random.random))
            try:
                return await self._dial(resume=resume if isinstance(resume, str) else None)
            except RoomError as error:
                if is_final(error) and not isinstance(error, RequestTimeoutError):
                    self._give_up(error)
                    return None
                logger.info("room connection failed again", extra={"attempt": attempt, "reason": str(error)})

    async def _dial(self, *, resume: str | None) -> asyncio.Task[RoomError]:
        """Connect and shake hands; returns the task that ends with the connection."""
        self._handshake.reset()
        self._dialled_token = self._protocol.token
        transport = await self._protocol.connect(resume=resume)
        session = RoomSession(transport, self._on_message, limits=self._limits)
        ended = self._tasks.spawn(session.run(), name="session")
        shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handshake.complete.on_set(functools.partial(_resolve, shaken))
        waited: set[asyncio.Future[Any]] = {ended, shaken}
        try:
            await asyncio.wait(waited, timeout=HANDSHAKE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            self._take_welcome(ended)
        except BaseException:
            ended.cancel()
            await transport.close()
            raise
        finally:
            shaken.cancel()
        self._session = session
        return ended

    def _take_welcome(self, ended: asyncio.Task[RoomError]) -> None:
        if not self._handshake.complete.is_set():
            raise ended.result() if ended.done() else RequestTimeoutError("the room server did not say hello in time")
        welcome, told = self._handshake.welcome(), self._handshake.attributes()
        self._welcome = welcome
        self._handshake.reset()
        before = self._participant
        attributes = {**before.attributes, **told} if before else told
        self._participant = LocalParticipant(
            id=welcome.participant_id, attributes=attributes, tell=self._tell_attributes
        )

    async def _tell_attributes(self, changed: dict[str, Any]) -> None:
        await self.notify("set_attributes", changed)

    async def _restore(self) -> None:
        own = {key: value for key, value in self.local_participant.attributes.items() if key != "name"}
        if own:
            await self.notify("set_attributes", own)
        session = self._session
        for restorer in tuple(self._restorers):
            try:
                await restorer()
            except ConnectionLostError:
                raise  # lost again: the next connection restores everything
            except Exception:
                # One service that cannot be restored must not keep the others from it.
                logger.exception("not restored after a reconnect", extra={"restorer": repr(restorer)})
            if session is not self._session:
                return
        self.emit("reconnected")

    def _give_up(self, error: RoomError) -> None:
        self._reason = CloseReason(error)
        self._set_state(RoomState.CLOSED)
        self.emit("closed", reason=self._reason)

    def _on_message(self, message: MessageReceived) -> None:
        handler = self._handlers.get(message.type) or self._own_handler(message.type)
        if handler is None:
            logger.debug("message without a handler", extra={"message_type": message.type})
            return
        try:
            result = handler(message)
        except Exception:
            logger.exception("message handler raised", extra={"message_type": message.type})
            return
        if result is not None:
            self.spawn(result, message.type)

    def _own_handler(self, type: str) -> Handler | None:
        # Not in the dictionary, which would be three times as large in each client.
        if type in ("connected", "room_ready"):
            return self._handshake.take
        return self._on_status if type == "room.status" else None

    def _on_status(self, message: MessageReceived) -> None:
        self.emit("room.status", **message.header)

    def _welcomed(self) -> Welcome:
        if self._welcome is None:
            raise RoomError("the room is not connected yet")
        return self._welcome

    def _set_state(self, state: RoomState) -> None:
        self._state = state
        self._state_changed.set()
        if state is RoomState.CLOSED:
            self._closed.set()

    async def _wait_state_change(self) -> None:
        self._state_changed.clear()
        await self._state_changed.wait()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _logged(coroutine: Coroutine[Any, Any, None], name: str) -> None:
    try:
        await coroutine
    except ConnectionLostError:
        logger.debug("ended with the connection", extra={"task": name})
    except Exception:
        logger.exception("room task failed", extra={"task": name})
