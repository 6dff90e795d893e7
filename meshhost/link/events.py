"""What a `LinkCore` reports to its driver: one value for each thing that happened, in the order in which it happened.

`LinkCore.receive` returns them; `running.Link` passes those of a channel to it. `Lost` and `Ended` are the only two that say
that something may not have arrived.
"""

from dataclasses import dataclass

from meshhost.errors import RemoteProtocolError

__all__ = [
    "Accepted",
    "Closed",
    "Drained",
    "Ended",
    "Event",
    "Greeted",
    "Lost",
    "MessageReceived",
    "Offered",
    "Refused",
]


@dataclass(frozen=True, slots=True)
class Greeted:
    """The connection is ready. `resumed`: the link goes on where it was; else it is a new one."""

    resumed: bool


@dataclass(frozen=True, slots=True)
class Offered:
    """The other side asks for a channel. Answer with `accept` or `refuse`."""

    channel: int
    meta: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """The other side accepted the channel that we asked for."""

    channel: int
    meta: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The other side refused the channel that we asked for. It is over."""

    channel: int
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A whole message. `cost` is its credit: pass it to `consumed` when the message is taken."""

    channel: int
    data: bytes
    cost: int


@dataclass(frozen=True, slots=True)
class Drained:
    """What waited to be sent on this channel has fallen below what the driver asked for."""

    channel: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The other side closed the channel. It is over; messages before it have been reported."""

    channel: int
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The channel is over because the link could not be gone on with: what was under way may have arrived or not."""

    channel: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The link is over for good. `error`: the other side broke the protocol; None: it said goodbye."""

    code: int
    text: str
    error: RemoteProtocolError | None = None


Event = Greeted | Offered | Accepted | Refused | MessageReceived | Drained | Closed | Lost | Ended
