"""What a host and the processes of its agents tell each other: JSON in frames of four bytes of length. No I/O.

Both sides are of one version, so there is no negotiation; but a child runs foreign code, so what it sends is checked.
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
    """An error as it crosses the border: never unpickled, its size bounded."""

    type: str
    text: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> "RemoteError":
        """Describe the error; a group of one is described by that one."""
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        try:
            text = str(error)
        except Exception:  # noqa: BLE001 - the error is an agent's own class and may fail in any way
            text = "(the error cannot be shown as text)"
        frames = "".join(traceback.format_exception(error))
        return cls(type(error).__name__, sendable(text[:_MAX_TEXT]), sendable(frames[-_MAX_TRACEBACK:]))

    def rebuilt(self) -> Exception:
        """An error of the same class if it is a built-in one or one of ours, else a MeshhostError of the same name.

        The traceback from the other side is its note.
        """
        error = self._same() or self._namesake()
        if self.traceback:
            error.add_note(f"In the agent's process:\n{self.traceback}")
        return error

    def _same(self) -> Exception | None:
        cls = getattr(builtins, self.type, None) or getattr(errors, self.type, None)
        if not (isinstance(cls, type) and issubclass(cls, Exception)):
            return None
        try:
            error = cls(self.text)
        except TypeError:  # it wants other arguments
            return None
        return error if str(error) == self.text else None

    def _namesake(self) -> Exception:
        if not self.type.isidentifier():
            return MeshhostError(self.text)
        cls: type[MeshhostError] = type(self.type, (MeshhostError,), {"__doc__": "An error of an agent's process."})
        return cls(self.text)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was admitted, as `CallRequest`."""

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
    """The program to run (a file, or with `is_module` a module's name) up to its host that serves these paths."""

    program: str
    is_module: bool
    argv: list[str]
    path: list[str]
    paths: list[str]
    log_level: int
    silence_seconds: float
    """A child that holds its interpreter so long, deaf even to its own threads, ends itself."""
    kind: Literal["boot"] = "boot"


@dataclass(frozen=True, slots=True)
class Assign:
    """Run the agent of this path for this call; the one spawn of the process."""

    path: str
    call: Call
    call_id: str
    grace: float
    log_fields: dict[str, str]
    trace: dict[str, str]
    kind: Literal["assign"] = "assign"


@dataclass(frozen=True, slots=True)
class Renew:
    """The call was repeated: the token to use from the next connection on."""

    call: Call
    kind: Literal["renew"] = "renew"


@dataclass(frozen=True, slots=True)
class Drain:
    """Finish what runs, and leave."""

    kind: Literal["drain"] = "drain"


@dataclass(frozen=True, slots=True)
class Abort:
    """Leave now."""

    kind: Literal["abort"] = "abort"


@dataclass(frozen=True, slots=True)
class Ping:
    """Does your event loop turn?"""

    number: int
    kind: Literal["ping"] = "ping"


# From the child to the host


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything is imported and prewarmed; `seconds` is how long that took."""

    seconds: float
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class BootFailed:
    """The program or a prewarm hook raised, or never came to the host's paths."""

    error: RemoteError
    kind: Literal["boot_failed"] = "boot_failed"


@dataclass(frozen=True, slots=True)
class Unforkable:
    """From a template: everything is imported, but a child forked from it would not be what a booted process is."""

    reason: str
    kind: Literal["unforkable"] = "unforkable"


@dataclass(frozen=True, slots=True)
class Started:
    """The agent runs."""

    kind: Literal["started"] = "started"


@dataclass(frozen=True, slots=True)
class EndForGood:
    """What comes now is the end, not a crash."""

    reason: str
    kind: Literal["end_for_good"] = "end_for_good"


@dataclass(frozen=True, slots=True)
class Ended:
    """The agent's life is over, the process follows. `error` is what it crashed with."""

    error: RemoteError | None = None
    usage: UsageSums | None = None
    """What it reported since the last `Pong`; None when nothing."""
    kind: Literal["ended"] = "ended"


@dataclass(frozen=True, slots=True)
class Pong:
    """It does. `activity` is what the agent does, in words, `usage` what it reported since the one before; None: nothing."""

    number: int
    activity: str | None = None
    usage: UsageSums | None = None
    kind: Literal["pong"] = "pong"


@dataclass(frozen=True, slots=True)
class Log:
    """A log record; `created` is seconds since the epoch, `fields` what came with `extra` or the context."""

    name: str
    level: int
    text: str
    created: float
    where: str
    line: int
    fields: dict[str, str | int | float | bool | None]
    error: RemoteError | None = None
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
    """The text without what JSON cannot carry (lone surrogates, as in the name of a file that is no UTF-8)."""
    return text.encode(errors="replace").decode()


def encode(message: Message) -> bytes:
    """The message as one frame. Raises ValueError when it is over MAX_FRAME_BYTES."""
    payload = _ADAPTER.dump_json(message)
    if len(payload) > MAX_FRAME_BYTES:
        raise ValueError(f"a {message.kind} message of {len(payload)} bytes: at most {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(payload)) + payload


class FrameReader:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete now. Raises RemoteProtocolError for what is none."""
        self._buffer += data
        messages = []
        while (payload := self._next()) is not None:
            try:
                messages.append(_ADAPTER.validate_json(payload))
            except ValidationError:
                raise RemoteProtocolError("an agent's process sent what is no message") from None
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
    """A packet that asks for a child; with it go the descriptors of the child's socket and of its pipe for stack dumps."""
    return _NUMBER.pack(number)


def number_of_request(packet: bytes) -> int:
    """The number of a request. Raises RemoteProtocolError for what is none."""
    if len(packet) != _NUMBER.size:
        raise RemoteProtocolError("a host sent what is no request to fork")
    return int(_NUMBER.unpack(packet)[0])


@dataclass(frozen=True, slots=True)
class ForkReply:
    """The child's `pid`, or 0 and the `errno` (0: unknown) of why there is none."""

    number: int
    pid: int
    errno: int = 0

    def packed(self) -> bytes:
        """The reply as a packet."""
        return _REPLY.pack(self.number, self.pid, self.errno)

    @classmethod
    def unpacked(cls, packet: bytes) -> "ForkReply":
        """The reply in a packet. Raises RemoteProtocolError for what is none."""
        if len(packet) != _REPLY.size:
            raise RemoteProtocolError("a template process sent what is no reply")
        reply = cls(*_REPLY.unpack(packet))
        if reply.pid < 0:
            raise RemoteProtocolError("a template process named a process that cannot be")
        return reply
