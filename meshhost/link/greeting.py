"""The first messages on each connection of a link: HELLO of the side that dials, WELCOME of the other. No I/O.

Both are JSON, so that later versions can add members; unknown ones are ignored. They say the version, what each side takes
(`LinkLimits`), and, after a loss, how many sequenced frames each side has received of the other.
"""

from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from meshhost.errors import RemoteProtocolError
from meshhost.link.frames import Kind, pack, unpack
from meshhost.validation import first_problem

__all__ = ["MAX_GREETING_BYTES", "VERSION", "Hello", "LinkLimits", "Welcome", "packed", "read_hello", "read_welcome"]

Greeting = TypeVar("Greeting", "Hello", "Welcome")

VERSION: Final = 1
MAX_GREETING_BYTES = 4096

_MAX = 2**31


class LinkLimits(BaseModel):
    """What one side of a link takes of the other, in bytes unless said otherwise.

    `window` is the credit of each channel: what may have been sent on it and not been consumed. A message has at most
    `message`, which is at most half of the window, so that a whole one always fits. The other side may have `channels` (a
    number) open, each asked for with at most `meta`. This side keeps at most `replay` until it is acknowledged, so the other
    side acknowledges each quarter of that.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    window: int = Field(default=256 * 1024, ge=1024, le=_MAX)
    message: int = Field(default=128 * 1024, ge=1, le=_MAX)
    channels: int = Field(default=20_000, ge=0, le=_MAX)
    meta: int = Field(default=32 * 1024, ge=0, le=_MAX)
    replay: int = Field(default=4 * 1024 * 1024, ge=4096, le=_MAX)

    @model_validator(mode="after")
    def _fits(self) -> "LinkLimits":
        if self.message * 2 > self.window:
            raise ValueError("expected a window of at least twice the largest message")
        return self


class Hello(BaseModel):
    """What the side that dials says. `token` is that of the link to go on with, None for a new one."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    versions: list[int] = Field(default=[VERSION], max_length=16)
    token: str | None = Field(default=None, max_length=128, repr=False)
    received: int = Field(default=0, ge=0)
    limits: LinkLimits = LinkLimits()


class Welcome(BaseModel):
    """What the other side answers. `resumed`: the link goes on; else it is a new one, and all channels of the old one are lost.

    `resume_seconds` is how long a lost link can be gone on with.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: int = VERSION
    token: str = Field(max_length=128, repr=False)
    resumed: bool = False
    received: int = Field(default=0, ge=0)
    resume_seconds: float = Field(default=0.0, ge=0)
    limits: LinkLimits = LinkLimits()


def packed(greeting: Hello | Welcome) -> bytes:
    """The frame of a greeting."""
    kind = Kind.HELLO if isinstance(greeting, Hello) else Kind.WELCOME
    return pack(kind, 0, greeting.model_dump_json().encode())


def read_hello(data: bytes) -> Hello:
    """Read the first message that the side that dials sent. Raises RemoteProtocolError."""
    if len(data) > MAX_GREETING_BYTES:
        raise RemoteProtocolError(f"a greeting of {len(data)} bytes: expected at most {MAX_GREETING_BYTES}")
    frames = list(unpack(data))
    if len(frames) != 1 or frames[0][0] is not Kind.HELLO:
        raise RemoteProtocolError("expected one frame of the kind HELLO first")
    return _parsed(Hello, frames[0][2])


def read_welcome(payload: bytes) -> Welcome:
    """Read the payload of WELCOME. Raises RemoteProtocolError."""
    if len(payload) > MAX_GREETING_BYTES:
        raise RemoteProtocolError(f"a greeting of {len(payload)} bytes: expected at most {MAX_GREETING_BYTES}")
    return _parsed(Welcome, payload)


def _parsed(model: type[Greeting], payload: bytes) -> Greeting:
    try:
        return model.model_validate_json(payload)
    except ValidationError as error:
        field, problem = first_problem(error)
        raise RemoteProtocolError(f"greeting: {field}: {problem}") from None
