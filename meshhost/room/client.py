"""`RoomClient`: a participant's side of a room, kept open across connections.

Every agent, tool and command of ours enters a room through this class, and programs written for MeshAgent use it by the same
names. It is a facade over three parts: a `ConnectionKeeper` holds the connection and makes it again when it is lost, one client
per service (`queues`, `messaging`, `storage` and so on) speaks that service's requests, and an `EventEmitter` tells the
application what happened. The service clients know this class only as a `RoomLink`.

Messages of the server are handled in the task that reads the connection, in the order of arrival; a handler that returns a
coroutine runs as a task of its own. All tasks belong to one `TaskOwner` and are cancelled when the room is closed.

Invariant: after a reconnect every registered restorer runs before the event `reconnected`. Because a host keeps one client for
each idle agent, what is not always needed is made at first use, and loaded then, too: a command uses one service.

Longer than 400 lines because every service has its property here, and everything here is part of MeshAgent's API or documented.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from meshhost.clock import Clock, SystemClock
from meshhost.containment import is_contained
from meshhost.errors import ConnectionLostError, RoomError
from meshhost.guard import guarding
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.frames import Limits
from meshhost.protocol.messages import Header, Response
from meshhost.room.call import CallContext
from meshhost.room.environment import protocol_of_environment
from meshhost.room.events import EventEmitter, logged
from meshhost.room.handshake import Welcome
from meshhost.room.keeper import HANDSHAKE_TIMEOUT, REQUEST_TIMEOUT, ConnectionKeeper
from meshhost.room.link import MessageHandler, Reply, Restorer
from meshhost.room.participants import LocalParticipant, Participant, RemoteParticipant
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.room.replies import value_of
from meshhost.room.state import CloseReason, RoomState
from meshhost.tasks import TaskOwner
from meshhost.transport.base import ClientProtocol

if TYPE_CHECKING:
    from meshhost.room.services.agents import AgentsClient
    from meshhost.room.services.developer import DeveloperClient
    from meshhost.room.services.livekit import LivekitClient
    from meshhost.room.services.messaging import MessagingClient
    from meshhost.room.services.queues import QueuesClient
    from meshhost.room.services.reports.log_lines import LogLinesClient
    from meshhost.room.services.reports.traces import TracesClient
    from meshhost.room.services.storage import StorageClient
    from meshhost.room.services.sync import SyncClient
    from meshhost.room.services.tables.database import DatabaseClient

__all__ = ["CloseReason", "RoomClient", "RoomState"]

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 10.0
# Shared by all clients that are not given their own.
_RECONNECT = ReconnectPolicy()
_CLOCK = SystemClock()


class RoomClient:
    """A participant's side of a room.

    Use it as `async with RoomClient(protocol=WebSocketClientProtocol(url=…, token=…)) as room`. Connecting raises
    RoomRefusedError, ConnectionLostError or RequestTimeoutError. Once open, a lost connection is made again until the server
    refuses or the room ends. Requests that were under way then fail with ConnectionLostError: it is unknown whether the server
    did them; `queues.send` asks again by itself. New ones wait for the connection within their timeout.

    Events: `reconnecting`, `reconnected` (after every service restored its registrations), `closed` (with `reason`; not after
    our own `close()`), `room.status` (with the fields of the server's message).

    Without a `protocol` (or a `protocol_factory` that makes it) the room is MESHHOST_ROOM at MESHHOST_API_URL and the token
    MESHHOST_TOKEN; SettingsError names what is missing. `call` is the call that brought an agent here. `request_timeout` and
    `handshake_timeout` are in seconds: how long a request waits unless it says otherwise, and how long a new connection waits
    for the server's greeting.
    """

    def __init__(
        self,
        *,
        protocol: ClientProtocol | None = None,
        protocol_factory: Callable[[], ClientProtocol] | None = None,
        call: CallContext | None = None,
        request_timeout: float = REQUEST_TIMEOUT,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        reconnect: ReconnectPolicy | None = None,
        clock: Clock | None = None,
        limits: Limits = Limits(),  # noqa: B008 - immutable
    ) -> None:
        if protocol is None:
            protocol = protocol_of_environment() if protocol_factory is None else protocol_factory()
        self._protocol, self._call = protocol, call
        self.request_timeout, self.clock = request_timeout, clock or _CLOCK
        self._tasks = TaskOwner("room")
        self._events = EventEmitter(self.spawn)
        self._handlers: dict[str, MessageHandler] = {}
        self._restorers: list[Restorer] = []
        self._keeper = ConnectionKeeper(
            protocol,
            self._tasks,
            on_message=self._on_message,
            on_change=self._on_change,
            policy=reconnect or _RECONNECT,
            clock=self.clock,
            limits=limits,
            request_timeout=request_timeout,
            handshake_timeout=handshake_timeout,
        )
        self._queues: QueuesClient | None = None
        self._messaging: MessagingClient | None = None
        self._storage: StorageClient | None = None
        self._agents: AgentsClient | None = None
        self._developer: DeveloperClient | None = None
        self._livekit: LivekitClient | None = None
        self._sync: SyncClient | None = None
        self._traces: TracesClient | None = None
        self._log_lines: LogLinesClient | None = None
        self._database: DatabaseClient | None = None

    def __repr__(self) -> str:
        return f"<RoomClient {self.state.value} {self._keeper.session!r}>"

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def protocol(self) -> ClientProtocol:
        """The URL, the token and the way to connect: `protocol.url`, `protocol.token`."""
        return self._protocol

    @property
    def call(self) -> CallContext | None:
        """The call that brought this agent into the room; None for other participants."""
        return self._call

    @property
    def queues(self) -> QueuesClient:
        """Durable queues."""
        if self._queues is None:
            from meshhost.room.services.queues import QueuesClient

            self._queues = QueuesClient(room=self)
        return self._queues

    @property
    def messaging(self) -> MessagingClient:
        """Messages between participants, and presence."""
        if self._messaging is None:
            from meshhost.room.services.messaging import MessagingClient

            self._messaging = MessagingClient(room=self)
        return self._messaging

    @property
    def storage(self) -> StorageClient:
        """Files."""
        if self._storage is None:
            from meshhost.room.services.storage import StorageClient

            self._storage = StorageClient(room=self)
        return self._storage

    @property
    def database(self) -> DatabaseClient:
        """Tables."""
        if self._database is None:
            from meshhost.room.services.tables.database import DatabaseClient

            self._database = DatabaseClient(room=self)
        return self._database

    @property
    def agents(self) -> AgentsClient:
        """The registry of agents and tools: find, use and offer them."""
        if self._agents is None:
            from meshhost.room.services.agents import AgentsClient

            self._agents = AgentsClient(room=self)
        return self._agents

    @property
    def developer(self) -> DeveloperClient:
        """The room's developer log."""
        if self._developer is None:
            from meshhost.room.services.developer import DeveloperClient

            self._developer = DeveloperClient(room=self)
        return self._developer

    @property
    def livekit(self) -> LivekitClient:
        """Voice sessions on a LiveKit server."""
        if self._livekit is None:
            from meshhost.room.services.livekit import LivekitClient

            self._livekit = LivekitClient(room=self)
        return self._livekit

    @property
    def sync(self) -> SyncClient:
        """Documents that several participants edit at once."""
        if self._sync is None:
            from meshhost.room.services.sync import SyncClient

            self._sync = SyncClient(room=self)
        return self._sync

    @property
    def traces(self) -> TracesClient:
        """Reports what this participant's work took, for the traces of the room."""
        if self._traces is None:
            from meshhost.room.services.reports.traces import TracesClient

            self._traces = TracesClient(room=self)
        return self._traces

    @property
    def log_lines(self) -> LogLinesClient:
        """Reports what this participant logs while it works on messages, for the log of the room."""
        if self._log_lines is None:
            from meshhost.room.services.reports.log_lines import LogLinesClient

            self._log_lines = LogLinesClient(room=self)
        return self._log_lines

    @property
    def state(self) -> RoomState:
        """Whether the client is new, open, reconnecting or closed."""
        return self._keeper.state

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, so that a request is sent at once."""
        return self._keeper.state is RoomState.OPEN

    @property
    def is_closed(self) -> bool:
        """Whether the room was left for good."""
        return self._keeper.state is RoomState.CLOSED

    @property
    def room_name(self) -> str:
        """The room's name. Raises RoomError before the first connection, as the next three do."""
        return self._welcomed().room_name

    @property
    def room_url(self) -> str:
        """The room's WebSocket URL, as the server states it."""
        return self._welcomed().room_url

    @property
    def session_id(self) -> str:
        """The id of this run of the room; it changes when the server opens the room anew."""
        return self._welcomed().session_id

    @property
    def extensions(self) -> dict[str, Any]:
        """What the server offers beyond the MeshAgent protocol; empty for other servers."""
        return self._welcomed().extensions

    @property
    def local_participant(self) -> LocalParticipant:
        """This client as a participant. Raises RoomError before the first connection."""
        if self._keeper.participant is None:
            raise RoomError("the room is not connected yet")
        return self._keeper.participant

    def participant(self, participant_id: Any) -> Participant | None:
        """Find a participant: ourselves, or one who enabled messaging. An unknown id gives a stub that has only the id."""
        if not isinstance(participant_id, str):
            return None
        if participant_id == self.local_participant.id:
            return self.local_participant
        return self.messaging.get_participant(participant_id) or RemoteParticipant(id=participant_id)

    async def connect(self) -> None:
        """Join the room; `async with` calls it. Raises the errors that the class names, RoomError when called again."""
        if self.state is not RoomState.NEW:
            raise RoomError(f"this room client is {self.state.value}: make a new one to join again")
        await self._keeper.connect()

    async def close(self, *, timeout: float = CLOSE_TIMEOUT) -> None:
        """Leave the room: send what waits, close, end the tasks; log those that outlive `timeout`. Idempotent; never raises."""
        if self._log_lines is not None:
            await self._log_lines.finish()
        if self._traces is not None:
            await self._traces.finish()
        await self._keeper.close()
        if left := await self._tasks.stop(timeout=timeout):
            logger.warning("tasks did not end with the room", extra={"tasks": left})

    def forget(self) -> None:
        """Break the reference cycles of this closed client: its memory is freed at once, not by a rare full collection."""
        self._queues = self._messaging = self._storage = self._agents = self._developer = self._sync = None
        self._traces = self._log_lines = self._livekit = self._database = None
        self._handlers.clear()
        self._restorers.clear()
        self._events.close()
        self._keeper.break_cycles()

    @property
    def close_reason(self) -> CloseReason:
        """Why the room was left for good, once it was."""
        return self._keeper.reason or CloseReason()

    async def wait_closed(self) -> CloseReason:
        """Wait until the room was left for good and return why."""
        await self._keeper.closed.wait()
        return self.close_reason

    def on_closed(self, callback: Callable[[], object]) -> None:
        """Call `callback` once when the room is left for good, for any reason; at once if it was already. It must not raise."""
        self._keeper.closed.on_set(callback)

    def on(self, event_name: str, func: Callable[..., Any]) -> None:
        """Call `func` at each event of this name; see the class for the names and their fields."""
        self._events.on(event_name, func)

    def off(self, event_name: str, func: Callable[..., Any]) -> None:
        """Undo `on`."""
        self._events.off(event_name, func)

    def emit(self, event_name: str, **kwargs: Any) -> None:
        """Call the handlers of this event with these fields."""
        self._events.emit(event_name, **kwargs)

    async def send_request(
        self, type: str, request: dict[str, Any], data: bytes | None = None, *, timeout: float | None = None
    ) -> Any:
        """Send a request and return the value of its reply: a JSON value, a text, a FileResponse, or None.

        Raises what `request` does, and RoomError for a reply of another kind.
        """
        return value_of((await self.request(type, request, data, timeout=timeout))[0], type)

    # For the service clients, and for agents that define messages of their own.

    async def request(
        self,
        type: str,
        header: Header,
        data: bytes | None = None,
        *,
        timeout: float | None = None,
        resume: str | None = None,
    ) -> Reply:
        """Send a request and return the body of the reply and its whole header; see `RoomLink.request`."""
        timeout = self.request_timeout if timeout is None else timeout
        return await self._keeper.request(type, header, data, timeout=timeout, resume=resume)

    async def notify(self, type: str, header: Header, data: bytes | None = None) -> None:
        """Send a message that gets no reply. Raises ConnectionLostError."""
        session = await self._keeper.open_session(self.request_timeout)
        await session.notify(type, header, data)

    async def respond(self, message_id: int, type: str, response: Response) -> None:
        """Reply to a message of the server. Does nothing when the connection is lost: the reply could reach nobody."""
        session = self._keeper.session
        if session is not None:
            with contextlib.suppress(ConnectionLostError):
                await session.respond(message_id, type, response)

    def register_handler(self, type: str, handler: MessageHandler) -> None:
        """Subscribe to the server's messages of this type, in place of an earlier handler.

        It must not block: it runs in the task that reads the connection. A coroutine that it returns runs as a task.
        """
        self._handlers[type] = handler

    def unregister_handler(self, type: str) -> None:
        """Undo `register_handler`; an unknown type is ignored."""
        self._handlers.pop(type, None)

    def add_restorer(self, restorer: Restorer) -> None:
        """Run `restorer` after each reconnect, before `reconnected`, to register again what was lost with the connection."""
        self._restorers.append(restorer)

    def remove_restorer(self, restorer: Restorer) -> None:
        """Undo `add_restorer`; an unknown one is ignored."""
        if restorer in self._restorers:
            self._restorers.remove(restorer)

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a coroutine as a task that is cancelled when the room is closed; its error is logged."""
        task = self._tasks.spawn(logged(coroutine, name), name=name)
        # When the room is closed before the task ran at all, nothing else closes the coroutine.
        task.add_done_callback(lambda _: coroutine.close())
        return task

    def _on_change(self, state: RoomState) -> None:
        """React to a change of the connection that `connect` and `close` did not make."""
        if state is RoomState.RECONNECTING:
            self.emit("reconnecting")
        elif state is RoomState.OPEN:
            self.spawn(self._restore(), "restore")
        else:
            self.emit("closed", reason=self._keeper.reason)

    async def _restore(self) -> None:
        """Register again what the server forgot; ends early when the connection is lost meanwhile."""
        own = {key: value for key, value in self.local_participant.attributes.items() if key != "name"}
        if own:
            await self._keeper.send_attributes(own)
        session = self._keeper.session
        for restorer in tuple(self._restorers):
            try:
                await restorer()
            except ConnectionLostError:
                raise  # lost again: after the next connection all restorers run again
            except BaseException as error:
                if not is_contained(error):
                    raise
                # One service that cannot be restored must not keep the others from it.
                logger.exception("not restored after a reconnect", extra={"restorer": repr(restorer)})
            if session is not self._keeper.session:
                return
        self.emit("reconnected")

    def _on_message(self, message: MessageReceived) -> None:
        handler = self._handlers.get(message.type)
        # Not an entry of the dictionary: an empty dictionary is three times smaller, and most clients have no other handler.
        if handler is None and message.type == "room.status":
            handler = self._on_status
        if handler is None:
            logger.debug("message without a handler", extra={"message_type": message.type})
            return
        try:
            with guarding():
                result = handler(message)
        except BaseException as error:
            if not is_contained(error):
                raise
            logger.exception("message handler raised", extra={"message_type": message.type})
            return
        if result is not None:
            self.spawn(result, message.type)

    def _on_status(self, message: MessageReceived) -> None:
        self.emit("room.status", **message.header)

    def _welcomed(self) -> Welcome:
        if self._keeper.welcome is None:
            raise RoomError("the room is not connected yet")
        return self._keeper.welcome
