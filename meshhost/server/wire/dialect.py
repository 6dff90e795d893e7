"""What a dialect is: the wire of one generation of clients, translated to and from the server's own words.

The server's services know operations, events and close reasons by names of the server. What these are called on the wire, how
their bodies look, how a client is greeted and with which code it is disconnected differs between generations of the SDK. A
`Dialect` object knows all of that for one generation. `RoomServer` is given a list of them; the handshake asks each in turn
whether it recognises the client (`Dialects.choose`) and makes a `Translator` for the connection.

To add a dialect, write one module with a class that implements `Dialect` and register one object; `sdk06.py` is the example.
A dialect whose translation needs no memory returns the same translator for every connection. One that must remember something
per connection (such as the open streams of SDK 0.56) makes a new translator each time, and one that needs requests that no
service offers adds them in `operations`. Translation is on the path of every message: use table look-ups, and return the
message itself where nothing changes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from meshhost.errors import InvalidRequestError
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import Header, Response
from meshhost.server.core.peer import Capability, CloseReason, Event
from meshhost.server.core.requests import Operations

__all__ = ["Dialect", "Dialects", "Handshake", "Translator", "Welcome", "WireEvent"]

# An event as it goes onto the wire: message type, header, payload.
WireEvent = tuple[str, Header, bytes]


@dataclass(frozen=True, slots=True)
class Handshake:
    """The request with which a client asks for its connection. Names of headers are case-insensitive."""

    headers: Mapping[str, str]
    query: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a participant learns when it has joined. Times in seconds; `tenant` is the id."""

    room_name: str
    room_url: str
    session_id: str
    participant_id: str
    attributes: dict[str, Any]
    resume_token: str
    resume_seconds: float
    lease_seconds: float
    max_message_bytes: int
    tenant: str


class Translator(Protocol):
    """Translates the messages of one connection. All methods are called in the connection's event loop and must not wait."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the client can do beyond the dialect's minimum."""
        ...

    def greeting(self, welcome: Welcome) -> Sequence[WireEvent]:
        """The messages that greet a participant that has joined, in order."""
        ...

    def request(self, message: MessageReceived) -> tuple[str, MessageReceived]:
        """The operation that a message asks for, and the message with its header and payload in the server's form.

        An unknown type is returned as it is: the dispatcher refuses it. A message that could not be read is passed with an
        empty header. Raises RoomError for a body that cannot be translated.
        """
        ...

    def answer(self, operation: str, response: Response, extra: Header | None) -> tuple[Response, Header | None]:
        """The answer to an operation, as this client reads it; `extra` are members beside those of the body."""
        ...

    def event(self, event: Event) -> WireEvent:
        """An event in this client's form."""
        ...

    def close_code(self, reason: CloseReason) -> int | None:
        """The WebSocket close code for a reason; None where the connection has to end without a close frame."""
        ...


class Dialect(Protocol):
    """One generation of clients."""

    @property
    def name(self) -> str:
        """Unique among the dialects of a server."""
        ...

    def matches(self, handshake: Handshake) -> bool:
        """Whether the client that sent this handshake speaks this dialect."""
        ...

    def resume_token(self, handshake: Handshake) -> str | None:
        """The resume token that the client shows, if it comes back."""
        ...

    def refusal_status(self, status: int) -> int:
        """The HTTP status that tells this client of a refusal, where the server would use `status`.

        For clients that take some statuses as a reason to try again for ever.
        """
        ...

    def operations(self, shared: Operations) -> Operations:
        """The operations that this dialect's requests may ask for: those of the services, and its own if it has any."""
        ...

    def translator(self, handshake: Handshake) -> Translator:
        """The translator for the connection that follows this handshake."""
        ...


class Dialects:
    """The dialects of a server. The first one that recognises a client serves it, so the most general one comes last."""

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self._dialects = tuple(dialects)

    def __iter__(self) -> Iterator[Dialect]:
        return iter(self._dialects)

    def choose(self, handshake: Handshake) -> Dialect:
        """The dialect of a client. Raises InvalidRequestError when none recognises it."""
        for dialect in self._dialects:
            if dialect.matches(handshake):
                return dialect
        raise InvalidRequestError("handshake", "this room server does not speak this client's protocol")
