"""Keeps one side of a room connection: message ids, requests and their replies (room-protocol §4). No I/O.

How it is driven: the owner feeds every packet it reads to `receive()` and gets at most one event back; it sends the
packets that `request()`, `reply()` and `notify()` return, those of one call in one piece and in call order. An error
raised by `receive()` means that the stream is broken: close it.
"""

from dataclasses import dataclass
from typing import Any

from meshhost.errors import InvalidRequestError, LimitExceededError, LocalProtocolError, RoomError
from meshhost.protocol.frames import (
    CLIENT_SLICE,
    Limits,
    Message,
    OversizedMessage,
    PacketAssembler,
    Packets,
    check_size,
    packets,
)
from meshhost.protocol.messages import (
    META,
    ErrorResponse,
    Header,
    Response,
    header_too_large,
    pack_body,
    pack_header,
    unpack_message,
    unpack_response,
)

__all__ = [
    "LOOK_HEADER",
    "NO_RESUME",
    "RESPONSE",
    "RESUME_HEADER",
    "Event",
    "MalformedMessage",
    "MessageReceived",
    "ReplyReceived",
    "RoomConnection",
    "packed_notice",
]

RESPONSE = "__response__"
# Sent at the handshake by clients that can resume: the resume token of the lost session, or NO_RESUME at first.
RESUME_HEADER = "Meshhost-Resume"
NO_RESUME = "-"
# Sent at the handshake by clients that only look: a room that sleeps need not wake for them.
LOOK_HEADER = "Meshhost-Look"


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A request or notification that was received. `trace` is the sender's W3C trace-context carrier, often empty."""

    id: int
    type: str
    header: Header
    payload: bytes
    trace: dict[str, str]


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """The reply to our request `id`. `extra` is the whole header, for members beyond the body's own."""

    id: int
    response: Response
    extra: Header


@dataclass(frozen=True, slots=True)
class MalformedMessage:
    """A message that cannot be read, or was too large to keep. The stream is intact: answer with the error, and go on."""

    id: int
    type: str
    error: RoomError


Event = MessageReceived | ReplyReceived | MalformedMessage


class RoomConnection:
    """Ids, awaited replies and framing of one side.

    `slice_bytes` is how large the packets are that we send; `limits` is what we take, and what we check before sending.
    """

    def __init__(self, *, limits: Limits = Limits(), slice_bytes: int = CLIENT_SLICE) -> None:  # noqa: B008 - immutable
        self._limits = limits
        self._slice_bytes = slice_bytes
        self._assembler = PacketAssembler(limits)
        self._why_dropped = ""
        self._next_id = 1
        # None while nothing is awaited, which is most of the time: an empty set takes more memory than the rest.
        self._awaited: set[int] | None = None

    @property
    def is_receiving(self) -> bool:
        """Whether a message of the other side has begun and is not complete."""
        return self._assembler.is_receiving

    @property
    def is_dropping(self) -> bool:
        """Whether nothing is kept of the message that is being received."""
        return self._assembler.is_dropping

    def drop_unfinished(self, why: str) -> None:
        """Keep nothing of the message that is being received. When its last packet comes, it is reported as malformed.

        `why` says what stands against it, after its size.
        """
        self._why_dropped = why
        self._assembler.drop()

    @property
    def awaited(self) -> frozenset[int]:
        """The ids of the requests that have no reply yet."""
        return frozenset(self._awaited or ())

    def request(
        self,
        type: str,
        header: Header,
        payload: bytes | None = None,
        *,
        trace: dict[str, str] | None = None,
    ) -> tuple[int, Packets]:
        """Make a request; return its id and its packets.

        Raises LimitExceededError or LocalProtocolError (the type is too long) before anything is changed.
        """
        message_id, packed = self.notify(type, header, payload, trace=trace)
        if self._awaited is None:
            self._awaited = set()
        self._awaited.add(message_id)
        return message_id, packed

    def notify(
        self,
        type: str,
        header: Header,
        payload: bytes | None = None,
        *,
        trace: dict[str, str] | None = None,
    ) -> tuple[int, Packets]:
        """Make a message that gets no `__response__`; return its id and its packets. Raises as `request` does."""
        return self.notify_packed(type, packed_notice(header, trace), payload or b"")

    def notify_packed(self, type: str, header: bytes, payload: bytes) -> tuple[int, Packets]:
        """Do as `notify`, with what `packed_notice` returned: of many receivers the first one's work serves for all."""
        packed = self._cut(self._next_id, type, header, payload)
        message_id, self._next_id = self._next_id, self._next_id + 1
        return message_id, packed

    def reply(self, request_id: int, response: Response, extra: Header | None = None) -> Packets:
        """Return the packets that answer the other side's request. Raises LimitExceededError."""
        return self.respond(request_id, RESPONSE, response, extra)

    def respond(self, message_id: int, type: str, response: Response, extra: Header | None = None) -> Packets:
        """Do as `reply`, with another type than `__response__`: for `agent.tool_call_response`. Raises LimitExceededError."""
        return self._cut(message_id, type, *pack_body(response, extra))

    def abandon(self, request_id: int) -> None:
        """Forget a request whose caller no longer waits. A late reply is then dropped."""
        self._settle(request_id)

    def receive(self, packet: bytes) -> Event | None:
        """Take a packet; return the event that it completes, or None.

        A reply to a request that is not awaited is dropped. Raises RemoteProtocolError when framing is broken.
        """
        message = self._assembler.receive(packet)
        if message is None:
            return None
        if isinstance(message, OversizedMessage):
            return self._malformed(message, self._not_kept(message))
        try:
            header, payload = unpack_message(message.data, max_header_bytes=self._limits.header_bytes)
            meta = header.pop(META, None)
            if message.type == RESPONSE:
                return self._receive_reply(message.id, header, payload)
        except (InvalidRequestError, LimitExceededError) as error:
            return self._malformed(message, error)
        return MessageReceived(message.id, message.type, header, payload, _trace(meta))

    def _receive_reply(self, message_id: int, header: Header, payload: bytes) -> ReplyReceived | None:
        if self._awaited is None or message_id not in self._awaited:
            return None
        response = unpack_response(header, payload)
        self._settle(message_id)
        return ReplyReceived(message_id, response, header)

    def _settle(self, message_id: int) -> bool:
        """Remove a request from those that await a reply; return whether it was among them."""
        awaited = self._awaited
        if awaited is None or message_id not in awaited:
            return False
        awaited.remove(message_id)
        if not awaited:
            self._awaited = None
        return True

    def _malformed(self, message: Message | OversizedMessage, error: RoomError) -> Event | None:
        if message.type != RESPONSE:
            return MalformedMessage(message.id, message.type, error)
        # A reply that cannot be read still ends the wait for it.
        if not self._settle(message.id):
            return None
        return ReplyReceived(message.id, ErrorResponse(text=f"unreadable reply: {error}"), {})

    def _not_kept(self, message: OversizedMessage) -> RoomError:
        if message.header_size:
            return header_too_large(message.header_size, self._limits.header_bytes)
        limit = self._limits.message_bytes
        text = f"at most {limit}" if message.size > limit else self._why_dropped
        return LimitExceededError(f"message of {message.size} bytes, {text}")

    def _cut(self, message_id: int, type: str, header: bytes, payload: bytes) -> Packets:
        check_size(len(header) + len(payload), self._limits)
        if len(type.encode()) > self._limits.type_bytes:
            raise LocalProtocolError(f"message type of over {self._limits.type_bytes} bytes")
        return packets(Message(message_id, type, header), slice_bytes=self._slice_bytes, tail=payload)


def packed_notice(header: Header, trace: dict[str, str] | None) -> bytes:
    """The header of a message that gets no `__response__`, as `notify_packed` takes it."""
    meta: Header = {META: {"v": 1, "otel": trace}} if trace is not None else {}
    return pack_header(header | meta)


def _trace(meta: Any) -> dict[str, str]:
    carrier = meta.get("otel") if isinstance(meta, dict) else None
    if not isinstance(carrier, dict):
        return {}
    return {key: value for key, value in carrier.items() if isinstance(key, str) and isinstance(value, str)}
