"""`RoomLink`: what a service client needs of its room.

`QueuesClient`, `MessagingClient` and the others speak to the room only through this Protocol: they send requests, subscribe to
the server's messages, and restore their registrations after a reconnect. `RoomClient` implements it. Because the services
depend on the Protocol and not on the client, `client.py` can import every service without a circle, and a service can be tested
against, or used over, any other object of this shape.

Invariant: nothing in `room/services/` imports `room/client.py`, not even for type checking.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from meshhost.clock import Clock
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import Header, Response
from meshhost.room.state import CloseReason

__all__ = ["MessageHandler", "Reply", "Restorer", "RoomLink"]

Reply = tuple[Response, Header]
"""The body of a reply and its whole header; the header may carry fields beside the body, such as a lease."""

MessageHandler = Callable[[MessageReceived], Coroutine[Any, Any, None] | None]
"""Handles one message of the server. It runs in the task that reads the connection, so it must not block; a returned coroutine
runs as a task of its own."""

Restorer = Callable[[], Awaitable[None]]
"""Runs after each reconnect and registers again what the server forgot with the lost connection."""


class RoomLink(Protocol):
    """A participant's connection to one room, as the service clients see it."""

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, so that a request is sent at once."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether the room was left for good: nothing can be sent any more."""
        ...

    @property
    def extensions(self) -> dict[str, Any]:
        """What the server offers beyond the MeshAgent protocol. Raises RoomError before the first connection."""
        ...

    @property
    def clock(self) -> Clock:
        """The clock to wait on between tries."""
        ...

    @property
    def request_timeout(self) -> float:
        """Seconds that a request waits unless it says otherwise."""
        ...

    async def send_request(
        self, type: str, request: dict[str, Any], data: bytes | None = None, *, timeout: float | None = None
    ) -> Any:
        """Send a request and return the value of its reply: a JSON value, a text, a FileResponse, or None.

        Raises what `request` does, and RoomError for a reply of another kind.
        """
        ...

    async def request(
        self,
        type: str,
        header: Header,
        data: bytes | None = None,
        *,
        timeout: float | None = None,
        resume: str | None = None,
    ) -> Reply:
        """Send a request and return its reply. `timeout` is in seconds and includes the wait for a connection.

        `resume` names the extension under which the server does a request once that it gets twice. Where it is offered, a
        request whose connection is lost is sent again, unchanged, over the next one within `timeout`. Raises the error the
        server answered with, RequestTimeoutError, or ConnectionLostError.
        """
        ...

    async def notify(self, type: str, header: Header, data: bytes | None = None) -> None:
        """Send a message that gets no reply. Raises ConnectionLostError."""
        ...

    async def respond(self, message_id: int, type: str, response: Response) -> None:
        """Reply to a message of the server. Does nothing when the connection is lost: the reply could reach nobody."""
        ...

    def register_handler(self, type: str, handler: MessageHandler) -> None:
        """Subscribe to the server's messages of this type; one handler per type, the last one registered."""
        ...

    def unregister_handler(self, type: str) -> None:
        """Undo `register_handler`; an unknown type is ignored."""
        ...

    def add_restorer(self, restorer: Restorer) -> None:
        """Run `restorer` after each reconnect."""
        ...

    def on(self, event_name: str, func: Callable[..., Any]) -> None:
        """Call `func` at each event of this name: `reconnecting`, `reconnected`, `closed`."""
        ...

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a coroutine as a task that is cancelled when the room is closed; its error is logged."""
        ...

    async def wait_closed(self) -> CloseReason:
        """Wait until the room was left for good and return why."""
        ...
