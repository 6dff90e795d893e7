"""The dialect of MeshAgent SDK 0.6 and of meshhost's own client (docs/reference/room-protocol.md describes it).

The server's operations have the names of this dialect, except for documents, which SDK 0.6 treats as requests of the room
itself. Bodies are the server's own, so translation is a look-up of the name. meshhost's client is recognised by a header of the
handshake; it can resume and it understands cancelled calls. A client of the SDK gets the same greeting and ignores the members
that it does not know.
"""

from collections.abc import Callable

from meshhost.protocol.connection import LOOK_HEADER, RESUME_HEADER, MessageReceived
from meshhost.protocol.messages import Header, Response, wire_safe
from meshhost.server.core.peer import Capability, CloseReason, Event
from meshhost.server.core.requests import Operations
from meshhost.server.wire.dialect import Handshake, Welcome, WireEvent
from meshhost.tenant_names import name_of

__all__ = ["SDK_06", "Sdk06"]

_VERSION = 1
# Extensions of the protocol that this server offers; clients of the SDK ignore them.
_EXTENSIONS = (
    "leases",
    "resume",
    "dead_letters",
    "cancel",
    "cancel_request",
    "send_id",
    "confirm_receive",
    "ack_many",
    "message_life",
    "large_bodies",
    "resume_uploads",
    "traces",
    "tool_progress",
    "log_lines",
    "table_rows",
)

# Message types that differ from the operation's name.
_OPERATIONS = {
    "room.create": "sync.create",
    "room.connect": "sync.open",
    "room.sync": "sync.update",
    "room.disconnect": "sync.close",
}
# Message types that differ from the event's name.
_EVENT_TYPES = {
    "sync.update": "room.sync",
    "messaging.message": "messaging.send",
}
_CLOSE_CODES = {
    CloseReason.TOO_SLOW: 1013,
    CloseReason.SERVER_STOPPING: 1001,
    CloseReason.RESUMED_ELSEWHERE: 4000,
    CloseReason.ACCESS_REVOKED: 4001,
    CloseReason.ROOM_ENDED: 4004,
}


def _tool_call(event: Event) -> WireEvent:
    # The client registers a handler per toolkit: the name is part of the message type.
    header = dict(event.body)
    return f"agent.tool_call.{header.pop('toolkit')}", header, event.payload


def _refused_attributes(event: Event) -> WireEvent:
    return "room.status", {"status": "refused", **event.body}, event.payload


def _waiting_request(event: Event) -> WireEvent:
    return "room.status", {"status": "waiting", **event.body}, event.payload


# Events whose body differs too.
_EVENTS: dict[str, Callable[[Event], WireEvent]] = {
    "agent.tool_call": _tool_call,
    "attributes.refused": _refused_attributes,
    "request.waits": _waiting_request,
}


class _Translator:
    """See `Translator`. Remembers nothing, so all connections with the same capabilities share one."""

    def __init__(self, capabilities: frozenset[Capability]) -> None:
        self._capabilities = capabilities

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See Translator."""
        return self._capabilities

    def greeting(self, welcome: Welcome) -> list[WireEvent]:
        """See Translator."""
        ready = {"room_name": welcome.room_name, "room_url": welcome.room_url, "session_id": welcome.session_id}
        connected = {
            "type": "init",
            "participantId": welcome.participant_id,
            "attributes": welcome.attributes,
            "meshhost": {
                "version": _VERSION,
                "extensions": list(_EXTENSIONS),
                "resume_token": welcome.resume_token,
                "resume_seconds": welcome.resume_seconds,
                "lease_seconds": welcome.lease_seconds,
                "max_message_bytes": welcome.max_message_bytes,
                "tenant": {"id": welcome.tenant, "name": name_of(welcome.tenant)},
            },
        }
        return [("room_ready", ready, b""), ("connected", connected, b"")]

    def request(self, message: MessageReceived) -> tuple[str, MessageReceived]:
        """See Translator."""
        return _OPERATIONS.get(message.type, message.type), message

    def answer(self, operation: str, response: Response, extra: Header | None) -> tuple[Response, Header | None]:
        """See Translator."""
        return wire_safe(response), extra

    def event(self, event: Event) -> WireEvent:
        """See Translator."""
        translate = _EVENTS.get(event.name)
        if translate is not None:
            return translate(event)
        return _EVENT_TYPES.get(event.name, event.name), event.body, event.payload

    def close_code(self, reason: CloseReason) -> int:
        """See Translator."""
        return _CLOSE_CODES[reason]


_SDK = _Translator(frozenset())
_MESHHOST = _Translator(frozenset({Capability.RESUME, Capability.CANCEL}))
_LOOKING = _Translator(frozenset({Capability.RESUME, Capability.CANCEL, Capability.LOOK}))


class Sdk06:
    """See `Dialect`. Recognises every client, so it comes last."""

    name = "sdk-0.6"

    def matches(self, handshake: Handshake) -> bool:
        """See Dialect."""
        return True

    def resume_token(self, handshake: Handshake) -> str | None:
        """See Dialect."""
        return _asked(handshake, RESUME_HEADER, "resume")

    def refusal_status(self, status: int) -> int:
        """See Dialect."""
        return status

    def operations(self, shared: Operations) -> Operations:
        """See Dialect."""
        return shared

    def translator(self, handshake: Handshake) -> _Translator:
        """See Dialect. A client that can resume says so at its first handshake already, with a placeholder."""
        if self.resume_token(handshake) is None:
            return _SDK
        return _MESHHOST if _asked(handshake, LOOK_HEADER, "look") is None else _LOOKING


def _asked(handshake: Handshake, header: str, parameter: str) -> str | None:
    """What a client asks for by a header of its handshake; a page in a browser, which can send none, by a parameter."""
    return handshake.headers.get(header, handshake.query.get(parameter))


SDK_06 = Sdk06()
