"""What a service host and a room server say to each other over a link: the requests for channels, and the host's channel.

The host dials. It opens one channel of the kind `host`, on which both send JSON messages: the host announces itself
(`Announcement`) and reports its load (`Report`), the server calls agents (`Call`), the host answers (`Answer`). For each agent
that joins a room the host opens a channel of the kind `room` (`RoomRequest`), on which the room protocol is spoken as on a
WebSocket: its packets are the messages of the channel. Everything is parsed here, and unknown members are ignored, so that
either side may be newer.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo, field_validator

from meshhost.identity.grants import ApiScope
from meshhost.validation import invalid_request

__all__ = [
    "HOST_REQUEST",
    "Announcement",
    "Answer",
    "Call",
    "HostMessage",
    "HostPath",
    "Report",
    "RoomRequest",
    "ServerMessage",
    "dumped",
    "parse_host_message",
    "parse_request",
    "parse_server_message",
]

_Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
_Label = Annotated[str, Field(max_length=128)]
_Pattern = Annotated[str, Field(min_length=1, max_length=256)]
_MAX_TOKEN = 16 * 1024
# For numbers that are counted with: larger ones fit no float.
_MAX_COUNT = 2**53
# Services that one host may ask for: each path in each of its patterns of rooms is one.
_MAX_SERVED = 1000


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class HostRequest(_Message):
    """The request for the channel of a host."""

    kind: Literal["host"] = "host"


class RoomRequest(_Message):
    """The request for the channel of a participant: its room, its token, and the resume token of a session that was lost."""

    kind: Literal["room"] = "room"
    room: str = Field(min_length=1, max_length=256)
    token: str = Field(min_length=1, max_length=_MAX_TOKEN, repr=False)
    resume: str | None = Field(default=None, max_length=256, repr=False)


class HostPath(_Message):
    """A path of a host, and whom its agents take part as."""

    path: str = Field(pattern="^/", max_length=512)
    identity: str = Field(min_length=1, max_length=256)
    api: ApiScope | None = None


class Report(_Message):
    """How loaded a host is: its agents, its load from 0 to 1, and how many calls it has accepted on this channel.

    `refuses` is why it takes no calls now; None while it does.
    """

    type: Literal["report"] = "report"
    agents: int = Field(default=0, ge=0, le=_MAX_COUNT)
    load: float = Field(default=0.0, ge=0, le=1)
    calls: int = Field(default=0, ge=0, le=_MAX_COUNT)
    refuses: str | None = Field(default=None, max_length=200)


class Announcement(_Message):
    """What a host is: the first message on its channel.

    Hosts of one `name` run the same program. `host` tells them apart, also over several links of one host. Its agents belong
    in rooms whose names match one of `rooms` (none: in those that the server's configuration names).
    """

    type: Literal["announce"] = "announce"
    name: _Name
    host: str = Field(pattern=r"^[a-z0-9]{4,64}$")
    paths: list[HostPath] = Field(max_length=1000)
    rooms: list[_Pattern] = Field(default=[], max_length=100)
    labels: dict[_Label, _Label] = Field(default={}, max_length=64)
    max_agents: int = Field(ge=1, le=_MAX_COUNT)
    report: Report = Report()

    @field_validator("rooms")
    @classmethod
    def _not_too_many(cls, rooms: list[str], info: ValidationInfo) -> list[str]:
        if len(rooms) * len(info.data.get("paths", ())) > _MAX_SERVED:
            raise ValueError(f"expected at most {_MAX_SERVED} agents: each path counts in each of the rooms")
        return rooms


class Answer(_Message):
    """The answer to a call: `status` 200 and the agent that answers it, or why it was refused."""

    type: Literal["answer"] = "answer"
    id: int = Field(ge=0)
    status: int = Field(ge=100, le=599)
    spawn_id: str | None = Field(default=None, max_length=256)
    state: str | None = Field(default=None, max_length=64)
    error: str | None = Field(default=None, max_length=4096)
    retry_after: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class Call(_Message):
    """A call of an agent: `data` is that of a webhook `room.call`."""

    type: Literal["call"] = "call"
    id: int = Field(ge=0)
    path: str = Field(max_length=512)
    data: dict[str, Any] = Field(repr=False)


HostMessage = Announcement | Report | Answer
ServerMessage = Call
HOST_REQUEST = HostRequest().model_dump_json().encode()

_REQUESTS: TypeAdapter[HostRequest | RoomRequest] = TypeAdapter(
    Annotated[HostRequest | RoomRequest, Field(discriminator="kind")]
)
_HOST_MESSAGES: TypeAdapter[HostMessage] = TypeAdapter(Annotated[HostMessage, Field(discriminator="type")])


def dumped(message: BaseModel) -> bytes:
    """The bytes of a message or request."""
    return message.model_dump_json(exclude_none=True).encode()


def parse_request(meta: bytes) -> HostRequest | RoomRequest:
    """Read what a channel is asked for. Raises InvalidRequestError."""
    try:
        return _REQUESTS.validate_json(meta)
    except ValidationError as error:
        raise invalid_request(error) from None


def parse_host_message(data: bytes) -> HostMessage:
    """Read a message of a host. Raises InvalidRequestError."""
    try:
        return _HOST_MESSAGES.validate_json(data)
    except ValidationError as error:
        raise invalid_request(error) from None


def parse_server_message(data: bytes) -> ServerMessage | None:
    """Read a message of a server; None for one that this version does not know. Raises InvalidRequestError."""
    try:
        return Call.model_validate_json(data)
    except ValidationError as error:
        problem = invalid_request(error)
        if problem.field == "type":
            return None
        raise problem from None
