"""The headers of the requests that `queues.py` answers (room-protocol §9).

One model per request; `meshhost.server.core.dispatch` makes it from the header before the handler runs, so limits of names,
lease times and counts are checked here and nowhere else. Members that only clients of ours send have defaults, and those of
newer clients are ignored: a client of any age is understood.
"""

from typing import Any

from pydantic import Field

from meshhost.server.core.requests import Body
from meshhost.stores.queues import LONGEST_DELAY, LONGEST_LEASE, EndReason

__all__ = ["Dead", "Extend", "Leased", "Nack", "Named", "Nothing", "Receive", "Received", "Replay", "Send"]

MAX_NAME = 200
MAX_GIVEN_UP = 64


class Named(Body):
    """A request about one queue."""

    name: str = Field(min_length=1, max_length=MAX_NAME)


class Send(Named):
    """`message` is any JSON value. One that is sent again under the same `id` is stored once, and answered like the first."""

    message: Any
    id: str | None = Field(None, min_length=1, max_length=MAX_NAME)
    create: bool = True
    headers: dict[str, str] = Field(default_factory=dict)


class Receive(Named):
    """`lease` is for how long the client leases the message; without it the server keeps the lease for the client.

    `call` names the request. `given_up` are the calls whose replies the client lost with an earlier connection. `confirm`: the
    client will say when the reply reached its caller (`Received`).
    """

    create: bool = True
    wait: bool = True
    lease: float | None = Field(None, gt=0, le=LONGEST_LEASE)
    call: str | None = Field(None, max_length=MAX_NAME)
    given_up: list[str] = Field(default_factory=list, max_length=MAX_GIVEN_UP)
    confirm: bool = False


class Received(Named):
    """The reply to the receive of this `call` reached its caller."""

    call: str = Field(max_length=MAX_NAME)


class Leased(Named):
    """A request about a delivery; `lease` is what was handed out with it."""

    lease: str


class Nack(Leased):
    """`delay` is in seconds; None leaves it to the server."""

    reason: EndReason = EndReason.FAILED
    error: str = ""
    delay: float | None = Field(None, ge=0, le=LONGEST_DELAY)


class Extend(Leased):
    """Let the lease run for `seconds` from now."""

    seconds: float = Field(gt=0, le=LONGEST_LEASE)


class Dead(Named):
    """The newest `limit` dead messages; after the first page those before the time of death and the id of the last one."""

    limit: int = Field(100, ge=1, le=1000)
    before: tuple[float, int] | None = None


class Replay(Named):
    """The dead messages with these ids, or all."""

    ids: list[int] | None = None


class Nothing(Body):
    """A request without fields."""
