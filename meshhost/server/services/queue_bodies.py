"""The headers of the requests that `queues.py` answers (room-protocol §9).

One model per request; `meshhost.server.core.dispatch` makes it from the header before the handler runs, so limits of names,
lease times and counts are checked here and nowhere else. Members that only clients of ours send have defaults, and those of
newer clients are ignored: a client of any age is understood.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from meshhost.errors import InvalidRequestError
from meshhost.protocol.json_values import dump_json
from meshhost.server.core.requests import Body
from meshhost.stores.messages import HIGHEST_PRIORITY, EndReason, MessageQuery, MessageState
from meshhost.stores.queue_settings import LONGEST_RESULT_TTL
from meshhost.stores.queues import LONGEST_DELAY, LONGEST_LEASE, MAX_BATCH
from meshhost.stores.rates import MAX_BURST, check_rate

__all__ = [
    "Ack",
    "AckMany",
    "Configure",
    "Dead",
    "Extend",
    "Find",
    "Get",
    "Leased",
    "Message",
    "Nack",
    "Named",
    "Nothing",
    "OfMessage",
    "Peek",
    "Receive",
    "Received",
    "Replay",
    "Send",
    "SendMany",
    "Settings",
]

MAX_NAME = 200
MAX_GIVEN_UP = 64
MAX_ACKS = 100
# Deliveries in one answer.
MAX_LEASED = 50


def _message_id(value: Any) -> Any:
    # Ids are answered as texts.
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19 else value


MessageId = Annotated[int, BeforeValidator(_message_id), Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(gt=0, le=LONGEST_DELAY, allow_inf_nan=False)]
Time = Annotated[float, Field(allow_inf_nan=False)]


class Named(Body):
    """A request about one queue."""

    name: str = Field(min_length=1, max_length=MAX_NAME)


class Message(Body):
    """`message` is any JSON value. One that is sent again under the same `id` is stored once, and answered like the first.

    `upload` is the handle of an upload that is the message instead. `id` is remembered for `id_seconds`. The message waits
    `delay` seconds, or until `at` (seconds since the epoch).
    """

    message: Any
    id: str | None = Field(None, min_length=1, max_length=MAX_NAME)
    headers: dict[str, str] = Field(default_factory=dict)
    id_seconds: Seconds | None = None
    delay: float | None = Field(None, ge=0, le=LONGEST_DELAY, allow_inf_nan=False)
    at: Time | None = None
    priority: int = Field(0, ge=-HIGHEST_PRIORITY, le=HIGHEST_PRIORITY)
    key: str | None = Field(None, min_length=1, max_length=MAX_NAME)
    ttl: Seconds | None = None
    upload: str | None = Field(None, max_length=MAX_NAME)


class Send(Named, Message):
    """One message."""

    create: bool = True


class SendMany(Named):
    """Messages that are stored in this order, all or none."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_BATCH)
    create: bool = True


class Receive(Named):
    """`lease` is for how long the client leases the message; without it the server keeps the lease for the client.

    `call` names the request. `given_up` are the calls whose replies the client lost with an earlier connection. `confirm`: the
    client will say when the reply reached its caller (`Received`). With `limit` up to so many are leased, and lists answered.
    `by_reference`: the client fetches large bodies itself.
    """

    create: bool = True
    wait: bool = True
    lease: float | None = Field(None, gt=0, le=LONGEST_LEASE)
    call: str | None = Field(None, max_length=MAX_NAME)
    given_up: list[str] = Field(default_factory=list, max_length=MAX_GIVEN_UP)
    confirm: bool = False
    limit: int | None = Field(None, ge=1, le=MAX_LEASED)
    by_reference: bool = False


class Received(Named):
    """The reply to the receive of this `call` reached its caller."""

    call: str = Field(max_length=MAX_NAME)


class Leased(Named):
    """A request about a delivery; `lease` is what was handed out with it."""

    lease: str


class Ack(Leased):
    """`result` is any JSON value; null is none. `upload` is the handle of an upload that is the result instead."""

    result: Any = None
    upload: str | None = Field(None, max_length=MAX_NAME)


class Settled(Body):
    """A delivery that is done: what was handed out with it, and its result (any JSON value; null is none)."""

    lease: str
    result: Any = None


class AckMany(Named):
    """Deliveries of one queue that are done."""

    acks: list[Settled] = Field(min_length=1, max_length=MAX_ACKS)


class Nack(Leased):
    """`delay` is in seconds; None leaves it to the server."""

    reason: EndReason = EndReason.FAILED
    error: str = ""
    delay: float | None = Field(None, ge=0, le=LONGEST_DELAY)


class Extend(Leased):
    """Let the lease run for `seconds` from now. `progress` is any JSON value; null leaves what was reported before."""

    seconds: float = Field(gt=0, le=LONGEST_LEASE)
    progress: Any = None


class OfMessage(Named):
    """A request about the message with this id."""

    id: MessageId


class Get(OfMessage):
    """With `wait`, in seconds, the answer comes when the message has ended, or is not as the client has `seen` it."""

    wait: float | None = Field(None, ge=0, allow_inf_nan=False)
    seen: str | None = Field(None, max_length=MAX_NAME)


class Find(Named):
    """The messages that fit all of these, the newest first. `before` is the `next` of the page before."""

    states: list[MessageState] | None = None
    key: str | None = Field(None, max_length=MAX_NAME)
    text: str | None = Field(None, min_length=1, max_length=MAX_NAME)
    since: Time | None = None
    until: Time | None = None
    before: MessageId | None = None
    limit: int = Field(50, ge=1, le=200)

    def query(self) -> MessageQuery:
        """The request as a store understands it."""
        return MessageQuery(
            states=None if self.states is None else frozenset(self.states),
            key=self.key,
            text=None if self.text is None else _as_stored(self.text),
            since=self.since,
            until=self.until,
            before=self.before,
            limit=self.limit,
        )


class Peek(Named):
    """The next `limit` messages."""

    limit: int = Field(1, ge=1, le=MAX_LEASED)


class Settings(BaseModel):
    """Those that are to be changed. Null is the server's default. One that is unknown is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paused: bool | None = None
    max_attempts: int | None = Field(None, ge=1, lt=2**31)
    retry_seconds: Seconds | None = None
    max_retry_seconds: Seconds | None = None
    max_depth: int | None = Field(None, ge=1, lt=2**31)
    deadline: Seconds | None = None
    concurrency: int | None = Field(None, ge=1, lt=2**31)
    result_ttl: float | None = Field(None, ge=0, le=LONGEST_RESULT_TTL, allow_inf_nan=False)
    rate: str | None = Field(None, max_length=40)
    burst: int | None = Field(None, ge=1, le=MAX_BURST)
    key_rate: str | None = Field(None, max_length=40)

    def changes(self, *, path: str = "") -> Mapping[str, Any]:
        """What was given, by name. Raises InvalidRequestError, which names the setting below `path`, for null where there is no
        server's default."""
        given = self.model_dump(exclude_unset=True)
        for name in ("paused", "result_ttl"):
            if name in given and given[name] is None:
                raise InvalidRequestError(f"{path}{name}", "expected a value, not null")
        for name in ("rate", "key_rate"):
            if given.get(name) is not None:
                check_rate(f"{path}{name}", given[name])
        return given


class Configure(Named):
    """Changes some settings of the queue and keeps the others."""

    settings: Settings


class Dead(Named):
    """The newest `limit` dead messages; after the first page those before the time of death and the id of the last one."""

    limit: int = Field(100, ge=1, le=1000)
    before: tuple[Time, MessageId] | None = None
    by_reference: bool = False


class Replay(Named):
    """The dead messages with these ids, or all."""

    ids: list[MessageId] | None = Field(None, max_length=MAX_BATCH)


class Nothing(Body):
    """A request without fields."""


def _as_stored(text: str) -> str:
    """The text as it is within a stored message, whose JSON is ASCII."""
    return re.sub(r"[^\x00-\x7f]", lambda letter: dump_json(letter[0])[1:-1], text)
