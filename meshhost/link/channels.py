"""The state of one channel, as a table. No I/O.

All rules about what may be sent and received on a channel when are the two tables below; `core.py` asks them before it changes
anything. A channel is the same at both ends: the tables do not know which side dialled. An id is never used twice.

    OPENING   we asked for it and wait for the answer        OFFERED   the other side asked, and we have not answered
    OPEN      messages and credit go both ways               CLOSING   we sent CLOSE and wait for that of the other side
    CLOSED    over; forgotten

A side that receives CLOSE answers with CLOSE, unless it has sent its own. So after both have sent one nothing of this channel
is under way, except a CLOSE that crossed a REFUSE.
"""

from collections import deque
from collections.abc import Mapping
from enum import Enum

from meshhost.errors import LocalProtocolError, RemoteProtocolError
from meshhost.link.frames import Kind

__all__ = ["PIECE_COST", "RECEIVE", "SEND", "Channel", "ChannelState"]

PIECE_COST = 16
"""Bytes of credit that each piece of a message takes beside its own: many empty messages are bounded, too."""


class ChannelState(Enum):
    """See the module."""

    OPENING = "opening"
    OFFERED = "offered"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


_S = ChannelState
Table = Mapping[ChannelState, Mapping[Kind, ChannelState]]

SEND: Table = {
    _S.OPENING: {Kind.CLOSE: _S.CLOSING},
    _S.OFFERED: {Kind.ACCEPT: _S.OPEN, Kind.REFUSE: _S.CLOSED},
    _S.OPEN: {Kind.PIECE: _S.OPEN, Kind.LAST: _S.OPEN, Kind.CREDIT: _S.OPEN, Kind.CLOSE: _S.CLOSING},
    _S.CLOSING: {},
    _S.CLOSED: {},
}
"""What we may send in each state, and the state after it. A CLOSE that answers one belongs to RECEIVE."""

RECEIVE: Table = {
    _S.OPENING: {Kind.ACCEPT: _S.OPEN, Kind.REFUSE: _S.CLOSED},
    _S.OFFERED: {Kind.CLOSE: _S.CLOSED},
    _S.OPEN: {Kind.PIECE: _S.OPEN, Kind.LAST: _S.OPEN, Kind.CREDIT: _S.OPEN, Kind.CLOSE: _S.CLOSED},
    _S.CLOSING: {
        Kind.ACCEPT: _S.CLOSING,
        Kind.REFUSE: _S.CLOSED,
        Kind.PIECE: _S.CLOSING,
        Kind.LAST: _S.CLOSING,
        Kind.CREDIT: _S.CLOSING,
        Kind.CLOSE: _S.CLOSED,
    },
    _S.CLOSED: {},
}
"""What the other side may send in each state, and the state after it."""


class Channel:
    """One end of a channel: its state, what waits to be sent, and the credit of both directions in bytes."""

    __slots__ = (
        "closing",
        "credit",
        "granted",
        "id",
        "is_ours",
        "is_ready",
        "partial",
        "partial_bytes",
        "queue",
        "queued",
        "sent_of_head",
        "state",
        "unreported",
    )

    def __init__(self, id: int, *, is_ours: bool, credit: int, granted: int) -> None:
        self.id = id
        self.is_ours = is_ours
        self.state = ChannelState.OPENING if is_ours else ChannelState.OFFERED
        # What we may send, what the other side may, and what was consumed and is not granted again yet.
        self.credit, self.granted, self.unreported = credit, granted, 0
        # Made when needed: most channels are idle most of the time.
        self.queue: deque[bytes] | None = None
        self.queued, self.sent_of_head = 0, 0
        self.is_ready = False
        self.closing: tuple[int, str] | None = None
        self.partial: list[bytes] | None = None
        self.partial_bytes = 0

    def __repr__(self) -> str:
        return f"<Channel {self.id} {self.state.value} queued={self.queued} credit={self.credit}>"

    def sending(self, kind: Kind) -> None:
        """Take the state after we sent this. Raises LocalProtocolError, and then nothing has changed."""
        after = SEND[self.state].get(kind)
        if after is None:
            raise LocalProtocolError(f"channel {self.id} is {self.state.value}: {kind.name} cannot be sent")
        self.state = after

    def receiving(self, kind: Kind) -> None:
        """Take the state after the other side sent this. Raises RemoteProtocolError, and then nothing has changed."""
        after = RECEIVE[self.state].get(kind)
        if after is None:
            raise RemoteProtocolError(f"{kind.name} on channel {self.id}, which is {self.state.value}")
        self.state = after

    def next_cost(self, piece_bytes: int) -> int:
        """The credit that the next piece needs; 0 when nothing waits."""
        if not self.queue:
            return 0
        return min(len(self.queue[0]) - self.sent_of_head, piece_bytes) + PIECE_COST
