"""The messages between a host and the processes of its agents, and how they become bytes. No I/O.

On the stream socket of each process a message is JSON with a four byte length before it. Both sides run the same version, so
there is no negotiation. A child runs code of tenants, so the host checks everything that it receives: types, sizes, and that
errors are rebuilt from text, never unpickled. Used by `process` in the host and by `child.channel` and `child.boot` inside.

Host and template have a second socket that keeps packets apart and carries descriptors: the packets at the end of this module.
"""

import builtins
import struct
import traceback
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from meshhost import errors
from meshhost.errors import MeshhostError, RemoteProtocolError
from meshhost.usage import UsageSums

__all__ = [
    "MAX_FRAME_BYTES",
    "Abort",
    "Assign",
    "Boot",
    "BootFailed",
    "Call",
    "Drain",
    "EndForGood",
    "Ended",
    "ForkReply",
    "FrameReader",
    "Log",
    "Message",
    "Ping",
    "Pong",
    "Ready",
    "RemoteError",
    "Renew",
    "Started",
    "Unforkable",
    "encode",
    "fork_request",
    "number_of_request",
    "sendable",
]

MAX_FRAME_BYTES = 16 * 1024 * 1024
_LENGTH = struct.Struct("!I")
_NUMBER = struct.Struct("!Q")
_REPLY = struct.Struct("!Qii")
_MAX_TEXT = 4_000
_MAX_TRACEBACK = 16_000


@dataclass(frozen=True, slots=True)
class RemoteError:
    """An error as text, bounded in size, for the other side to rebuild."""

    type: str
    text: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> "RemoteError":
        """Describe an error. A group that holds one error is described by that error."""
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        try:
            text = str(error)
        except BaseException:  # noqa: BLE001 - the error is an agent's own class and may fail in any way
            text = "(the error cannot be shown as text)"
        frames = "".join(traceback.format_exception(error))
        return cls(type(error).__name__, sendable(text[:_MAX_TEXT]), sendable(frames[-_MAX_TRACEBACK:]))

    def rebuilt(self) -> Exception:
        """An error of the same class when that is built in or of `meshhost.errors`, else a MeshhostError of the same name.

        The traceback of the other side is added as a note.
        """
        error = self._of_known_class() or self._of_same_name()
        if self.traceback:
            error.add_note(f"In the agent's process:\n{self.traceback}")
        return error

    def _of_known_class(self) -> Exception | None:
        cls = getattr(builtins, self.type, None) or getattr(errors, self.type, None)
        if not (isinstance(cls, type) and issubclass(cls, Exception)):
            return None
        try:
            error = cls(self.text)
        except TypeError:  # it takes other arguments
            return None
        return error if str(error) == self.text else None

    def _of_same_name(self) -> Exception:
        if not self.type.isidentifier():
            return MeshhostError(self.text)
        cls: type[MeshhostError] = type(self.type, (MeshhostError,), {"__doc__": "An error of an agent's process."})
        return cls(self.text)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was admitted; the members are those of `CallRequest`."""

    tenant: str
    room_name: str
    room_url: str
    identity: str
    arguments: dict[str, Any]
    expires_at: float | None
    token: str = field(repr=False)


# From the host to the child


@dataclass(frozen=True, slots=True)
class Boot:
    """Run this program until it comes to the host that serves these paths. `program` is a file, with `is_module` a module."""

    program: str
    is_module: bool
    argv: list[str]
    path: list[str]
    paths: list[str]
    log_level: int
    silence_seconds: float
    """A child whose interpreter lock is held for this long, so that none of its threads runs, ends itself."""
    kind: Literal["boot"] = "boot"


@dataclass(frozen=True, slots=True)
class Assign:
    """Run the agent of this path for this call. Sent once to each process."""

    path: str
    call: Call
    call_id: str
    grace: float
    log_fields: dict[str, str]
    trace: dict[str, str]
    kind: Literal["assign"] = "assign"


@dataclass(frozen=True, slots=True)
class Renew:
    """The call was repeated; its token is used from the next connection on."""

    call: Call
    kind: Literal["renew"] = "renew"


@dataclass(frozen=True, slots=True)
class Drain:
    """Finish the work in progress, then leave."""

    kind: Literal["drain"] = "drain"


@dataclass(frozen=True, slots=True)
class Abort:
    """Leave now."""

    kind: Literal["abort"] = "abort"


@dataclass(frozen=True, slots=True)
class Ping:
    """Answer with a pong. Unanswered while the event loop is blocked."""

    number: int
    kind: Literal["ping"] = "ping"


# From the child to the host


@dataclass(frozen=True, slots=True)
class Ready:
    """The program is imported and prewarmed, which took `seconds`."""

    seconds: float
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class BootFailed:
    """The program or a prewarm hook raised, or the program ended without running a host with the paths."""

    error: RemoteError
    kind: Literal["boot_failed"] = "boot_failed"


@dataclass(frozen=True, slots=True)
class Unforkable:
    """From a template: the program is imported, but a process forked from it would differ from a booted one."""

    reason: str
    kind: Literal["unforkable"] = "unforkable"


@dataclass(frozen=True, slots=True)
class Started:
    """The agent runs."""

    kind: Literal["started"] = "started"


@dataclass(frozen=True, slots=True)
class EndForGood:
    """The agent ends now and must not be started again. `renewals` counts the `Renew` messages that it has seen."""

    reason: str
    renewals: int = 0
    kind: Literal["end_for_good"] = "end_for_good"


@dataclass(frozen=True, slots=True)
class Ended:
    """The agent has ended, and the process exits next. `error` is what it crashed with; None after an orderly end."""

    error: RemoteError | None = None
    usage: UsageSums | None = None
    """What the agent reported since the last `Pong`; None when it reported nothing."""
    kind: Literal["ended"] = "ended"


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers a ping. `activity` is what the agent does, as text; `usage` what it reported since the last pong."""

    number: int
    activity: str | None = None
    usage: UsageSums | None = None
    kind: Literal["pong"] = "pong"


@dataclass(frozen=True, slots=True)
class Log:
    """A log record. `created` is in seconds since the epoch; `fields` come from `extra` and from the log context.

    `is_reported`: the agent's process gives it to the room server itself (`meshhost.work_log`).
    """

    name: str
    level: int
    text: str
    created: float
    where: str
    line: int
    fields: dict[str, str | int | float | bool | None]
    error: RemoteError | None = None
    is_reported: bool = False
    kind: Literal["log"] = "log"


Message = (
    Boot
    | Assign
    | Renew
    | Drain
    | Abort
    | Ping
    | Ready
    | BootFailed
    | Unforkable
    | Started
    | EndForGood
    | Ended
    | Pong
    | Log
)
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def sendable(text: str) -> str:
    """The text with lone surrogates replaced: JSON cannot carry them. File names that are not UTF-8 contain some."""
    return text.encode(errors="replace").decode()


def encode(message: Message) -> bytes:
    """The message as one frame. Raises ValueError when it is over MAX_FRAME_BYTES."""
    payload = _ADAPTER.dump_json(message)
    if len(payload) > MAX_FRAME_BYTES:
        raise ValueError(f"a {message.kind} message of {len(payload)} bytes: at most {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(payload)) + payload


class FrameReader:
    """Splits a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Add bytes; returns the messages that are complete now. Raises RemoteProtocolError for bytes that are not messages."""
        self._buffer += data
        messages = []
        while (payload := self._next()) is not None:
            try:
                messages.append(_ADAPTER.validate_json(payload))
            except ValidationError:
                raise RemoteProtocolError("an agent's process sent an invalid message") from None
        return messages

    def _next(self) -> bytes | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > MAX_FRAME_BYTES:
            raise RemoteProtocolError("an agent's process sent a frame that is too long")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return payload


# Between a host and its template, over a socket of their own that keeps packets apart and carries descriptors


def fork_request(number: int) -> bytes:
    """A packet that asks for a child. The descriptors of its socket and of its pipe for stack dumps are sent with it."""
    return _NUMBER.pack(number)


def number_of_request(packet: bytes) -> int:
    """The number of a request. Raises RemoteProtocolError for an invalid packet."""
    if len(packet) != _NUMBER.size:
        raise RemoteProtocolError("a host sent an invalid fork request")
    return int(_NUMBER.unpack(packet)[0])


@dataclass(frozen=True, slots=True)
class ForkReply:
    """The pid of the child; when the fork failed it is 0, and `errno` says why (0: unknown)."""

    number: int
    pid: int
    errno: int = 0

    def packed(self) -> bytes:
        """The reply as a packet."""
        return _REPLY.pack(self.number, self.pid, self.errno)

    @classmethod
    def unpacked(cls, packet: bytes) -> "ForkReply":
        """Parse a packet. Raises RemoteProtocolError for an invalid one."""
        if len(packet) != _REPLY.size:
            raise RemoteProtocolError("a template process sent an invalid reply")
        reply = cls(*_REPLY.unpack(packet))
        if reply.pid < 0:
            raise RemoteProtocolError("a template process sent an impossible pid")
        return reply
