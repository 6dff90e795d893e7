"""`LinkCore`: one side of a link, without I/O.

How it is driven: when there is a connection, call `attach`; pass each message that comes to `receive`, which returns events;
send what `data_to_send` returns, one message of the connection each time, until it returns nothing; call `detach` when the
connection is lost, and `attach` again with the next one. Everything else (`open`, `accept`, `send`, `close`, `consumed`) may be
called at any time and only changes what `data_to_send` returns next.

States of a link: DETACHED (no connection) → GREETING (waiting for HELLO or WELCOME) → OPEN → DETACHED …; ENDED is final.

Order of sending: what concerns this connection, then frames that are sent again, then those about channels, then pieces of
messages. Channels with something to send and credit for it take turns, a piece each, so neither a large message nor a channel
without credit holds up another one.

Invariants, pinned by property tests with cuts at any point: every message accepted by `send` is reported once at the other
side, in the order of its channel, unless the channel or the link ends first; no side sends more than its credit; what is kept
to be sent again is bounded.

Longer than 400 lines because the two directions of a link and its resumption share their state.
"""

from collections import deque
from collections.abc import Mapping
from enum import Enum

from meshhost.errors import LocalProtocolError, RemoteProtocolError, TooLargeError
from meshhost.link.channels import PIECE_COST, Channel, ChannelState
from meshhost.link.events import (
    Accepted,
    Closed,
    Drained,
    Ended,
    Event,
    Greeted,
    Lost,
    MessageReceived,
    Offered,
    Refused,
)
from meshhost.link.frames import (
    HEAD_BYTES,
    Kind,
    is_sequenced,
    pack,
    pack_count,
    pack_credit,
    pack_reason,
    unpack,
    unpack_count,
    unpack_credit,
    unpack_reason,
)
from meshhost.link.greeting import VERSION, Hello, LinkLimits, Welcome, packed, read_welcome

__all__ = ["BATCH_BYTES", "PIECE_BYTES", "TRANSITIONS", "GoodbyeCode", "LinkCore", "LinkSignal", "LinkState"]

PIECE_BYTES = 16 * 1024
"""The largest piece of a message: what a channel may send before the next one has its turn."""
BATCH_BYTES = 32 * 1024
"""About how large the messages of the connection are."""

# How many answers may wait for a side that does not acknowledge, beside two for each channel.
_MOST_ANSWERS = 1000


class LinkState(Enum):
    """See the module."""

    DETACHED = "detached"
    GREETING = "greeting"
    OPEN = "open"
    ENDED = "ended"


class LinkSignal(Enum):
    """What changes the state of a link."""

    ATTACH = "attach"
    GREET = "greet"
    DETACH = "detach"
    END = "end"


TRANSITIONS: Mapping[LinkState, Mapping[LinkSignal, LinkState]] = {
    LinkState.DETACHED: {LinkSignal.ATTACH: LinkState.GREETING, LinkSignal.END: LinkState.ENDED},
    LinkState.GREETING: {
        LinkSignal.GREET: LinkState.OPEN,
        LinkSignal.DETACH: LinkState.DETACHED,
        LinkSignal.END: LinkState.ENDED,
    },
    LinkState.OPEN: {LinkSignal.DETACH: LinkState.DETACHED, LinkSignal.END: LinkState.ENDED},
    LinkState.ENDED: {LinkSignal.DETACH: LinkState.ENDED, LinkSignal.END: LinkState.ENDED},
}
"""State and signal to the next state; what is missing is illegal."""


class GoodbyeCode:
    """Why a link ends for good."""

    NORMAL = 0
    PROTOCOL = 1
    VERSION = 2
    STOPPING = 3
    ACCESS_REVOKED = 4
    LIMIT = 5


class LinkCore:
    """One side. The side that `dials` says HELLO. `limits` is what this side takes.

    Raises LocalProtocolError where the driver does what the state does not allow; nothing is changed then.
    """

    def __init__(self, *, dials: bool, limits: LinkLimits | None = None) -> None:
        self._dials = dials
        self._limits = limits or LinkLimits()
        self._peer = LinkLimits()
        self._state = LinkState.DETACHED
        self._was_greeted = False
        self.token: str | None = None
        self.resume_seconds = 0.0
        self._channels: dict[int, Channel] = {}
        self._reset()

    def _reset(self) -> None:
        # Odd ids are those of the side that dials.
        self._next_id = 1 if self._dials else 2
        self._last_theirs = 0
        self._theirs = 0
        # Sequenced frames that were received and sent; those of the latter that are not acknowledged.
        self._received = self._sent = 0
        self._unacked: deque[bytes] = deque()
        self._unacked_bytes = 0
        self._unreported_bytes = 0
        self._replay: deque[bytes] = deque()
        self._unsequenced: list[bytes] = []
        # One answer for all the PINGs since the last one: they must not pile up for a side that reads nothing.
        self._owes_pong = False
        self._control: deque[bytes] = deque()
        self._credits: dict[int, None] = {}
        self._ready: deque[Channel] = deque()

    def __repr__(self) -> str:
        return (
            f"<LinkCore {self._state.value} channels={len(self._channels)} sent={self._sent} received={self._received} "
            f"unacked={self._unacked_bytes}>"
        )

    @property
    def state(self) -> LinkState:
        """See the module."""
        return self._state

    @property
    def channels(self) -> int:
        """How many channels there are."""
        return len(self._channels)

    @property
    def unacknowledged(self) -> int:
        """Bytes that are kept to be sent again."""
        return self._unacked_bytes

    @property
    def max_message_bytes(self) -> int:
        """The largest message that the other side takes."""
        return self._peer.message

    def queued(self, channel_id: int) -> int:
        """Bytes that wait to be sent on a channel; 0 for one that is over."""
        channel = self._channels.get(channel_id)
        return 0 if channel is None else channel.queued

    # The connection.

    def attach(self) -> None:
        """There is a connection. The side that dials says HELLO at once."""
        self._change(LinkSignal.ATTACH)
        if self._dials:
            hello = Hello(token=self.token, received=self._received if self.token else 0, limits=self._limits)
            self._unsequenced.append(packed(hello))

    def welcome(self, hello: Hello, *, token: str, resume_seconds: float) -> list[Event]:
        """Answer HELLO, which `greeting.read_hello` read; for the side that was dialled, after `attach`.

        The link goes on if this core was greeted before; the caller chose it by the token. `token` is what the other side has
        to show the next time.
        """
        if VERSION not in hello.versions:
            text = f"this side speaks version {VERSION} of the link, and the other one {hello.versions}"
            return [self._fail(RemoteProtocolError(text), GoodbyeCode.VERSION)]
        resumed = self._was_greeted
        self.token, self.resume_seconds = token, resume_seconds
        answer = Welcome(
            token=token,
            resumed=resumed,
            received=self._received,
            resume_seconds=resume_seconds,
            limits=self._limits,
        )
        self._unsequenced.append(packed(answer))
        try:
            self._greet(hello.limits, hello.received if resumed else 0)
        except RemoteProtocolError as error:
            return [self._fail(error, GoodbyeCode.PROTOCOL)]
        return [Greeted(resumed)]

    def detach(self) -> None:
        """The connection is lost. What was not acknowledged is sent again over the next one."""
        if self._state is LinkState.DETACHED:
            return
        self._change(LinkSignal.DETACH)
        self._unsequenced.clear()
        self._owes_pong = False
        self._replay.clear()

    def end(self, code: int, text: str) -> list[Event]:
        """End the link for good: the other side is told, if there is a connection. All channels are lost. Idempotent."""
        if self._state is LinkState.ENDED:
            return []
        if self._state is not LinkState.DETACHED:
            self._unsequenced.append(pack(Kind.GOODBYE, 0, pack_reason(code, text)))
        self._change(LinkSignal.END)
        return self._lose_channels()

    def ping(self) -> None:
        """Ask for a sign of life, which is a PONG; it also acknowledges what has been received."""
        if self._state is LinkState.OPEN:
            self._unsequenced.append(pack(Kind.PING, 0, pack_count(self._received)))
            self._unreported_bytes = 0

    # Channels.

    def open(self, meta: bytes = b"") -> int:
        """Ask for a channel; `meta` says what for. Returns its id."""
        if self._state is LinkState.ENDED:
            raise LocalProtocolError("the link has ended")
        if len(meta) > self._peer.meta:
            raise TooLargeError(f"a request for a channel of {len(meta)} bytes: the other side takes {self._peer.meta}")
        channel = Channel(self._next_id, is_ours=True, credit=self._peer.window, granted=self._limits.window)
        self._next_id += 2
        self._channels[channel.id] = channel
        self._control.append(pack(Kind.OPEN, channel.id, meta))
        return channel.id

    def accept(self, channel_id: int, meta: bytes = b"") -> None:
        """Accept a channel that was offered."""
        self._channel(channel_id).sending(Kind.ACCEPT)
        self._control.append(pack(Kind.ACCEPT, channel_id, meta))

    def refuse(self, channel_id: int, code: int, text: str) -> None:
        """Refuse a channel that was offered, and forget it."""
        channel = self._channel(channel_id)
        channel.sending(Kind.REFUSE)
        self._forget(channel)
        self._control.append(pack(Kind.REFUSE, channel_id, pack_reason(code, text)))

    def send(self, channel_id: int, message: bytes) -> None:
        """Send a message, as soon as there is credit. Raises TooLargeError for one that the other side does not take."""
        channel = self._channel(channel_id)
        if channel.state is not ChannelState.OPEN or channel.closing is not None:
            raise LocalProtocolError(f"channel {channel_id} is not open")
        if len(message) > self._peer.message:
            raise TooLargeError(f"a message of {len(message)} bytes: the other side takes {self._peer.message}")
        if channel.queue is None:
            channel.queue = deque()
        channel.queue.append(message)
        channel.queued += len(message) + PIECE_COST
        self._make_ready(channel)

    def close(self, channel_id: int, code: int, text: str = "", *, drop: bool = False) -> None:
        """Close a channel after what waits to be sent, or without it (`drop`). What comes of it until the end is dropped.

        Idempotent, also for a channel that is over.
        """
        channel = self._channels.get(channel_id)
        if channel is None or channel.state is ChannelState.CLOSING:
            return
        if channel.state is ChannelState.OFFERED:
            self.refuse(channel_id, code, text)
            return
        if channel.closing is None:
            channel.closing = code, text
        if drop or not channel.queue:
            self._send_close(channel)

    def consumed(self, channel_id: int, cost: int) -> None:
        """A message of this cost was taken: the other side may send as much again. Nothing for a channel that is over."""
        channel = self._channels.get(channel_id)
        if channel is None or channel.state is not ChannelState.OPEN:
            return
        channel.unreported += cost
        if channel.unreported >= self._limits.window // 4:
            self._credits[channel_id] = None

    # Receiving.

    def receive(self, data: bytes) -> list[Event]:
        """Take a message of the connection; return what it brought. A broken one ends the link: the last event says so.

        Send what `data_to_send` returns then, too: it tells the other side.
        """
        events: list[Event] = []
        try:
            for kind, channel_id, payload in unpack(data):
                if self._state is LinkState.ENDED:
                    break
                if is_sequenced(kind):
                    self._count_received(kind, payload)
                    self._receive_sequenced(kind, channel_id, payload, events)
                else:
                    self._receive_unsequenced(kind, payload, events)
        except RemoteProtocolError as error:
            events += self._lose_channels()
            events.append(self._fail(error, GoodbyeCode.PROTOCOL))
        return events

    def _count_received(self, kind: Kind, payload: bytes) -> None:
        if self._state is not LinkState.OPEN:
            raise RemoteProtocolError(f"{kind.name} before the greeting")
        self._received += 1
        self._unreported_bytes += HEAD_BYTES + len(payload)

    def _receive_unsequenced(self, kind: Kind, payload: bytes, events: list[Event]) -> None:
        if kind is Kind.GOODBYE:
            code, text = unpack_reason(payload)
            self._change(LinkSignal.END)
            events += self._lose_channels()
            events.append(Ended(code, text))
        elif kind is Kind.WELCOME and self._dials and self._state is LinkState.GREETING:
            self._receive_welcome(read_welcome(payload), events)
        elif kind in (Kind.ACK, Kind.PING, Kind.PONG) and self._state is LinkState.OPEN:
            self._acknowledged(unpack_count(payload))
            if kind is Kind.PING:
                self._owes_pong = True
        else:
            raise RemoteProtocolError(f"{kind.name} while the link is {self._state.value}")

    def _receive_welcome(self, welcome: Welcome, events: list[Event]) -> None:
        if welcome.version != VERSION:
            raise RemoteProtocolError(f"the other side chose version {welcome.version}, which was not offered")
        if welcome.resumed and not self._was_greeted:
            raise RemoteProtocolError("the other side goes on with a link that is new")
        if self._was_greeted and not welcome.resumed:
            events += self._lose_channels()
            self._reset()
        self.token, self.resume_seconds = welcome.token, welcome.resume_seconds
        self._greet(welcome.limits, welcome.received if welcome.resumed else 0)
        events.append(Greeted(welcome.resumed))

    def _receive_sequenced(self, kind: Kind, channel_id: int, payload: bytes, events: list[Event]) -> None:
        if kind is Kind.OPEN:
            events.append(self._offered(channel_id, payload))
            return
        channel = self._channels.get(channel_id)
        if channel is None:
            # It crossed our REFUSE, after which we forgot the channel.
            if kind is Kind.CLOSE and 0 < channel_id <= self._last_theirs and self._is_theirs(channel_id):
                return
            raise RemoteProtocolError(f"{kind.name} on channel {channel_id}, which is not there")
        was = channel.state
        channel.receiving(kind)
        if kind in (Kind.PIECE, Kind.LAST):
            self._receive_piece(channel, payload, events, is_last=kind is Kind.LAST)
        elif kind is Kind.CREDIT:
            self._receive_credit(channel, unpack_credit(payload))
        elif kind is Kind.ACCEPT:
            if channel.state is ChannelState.OPEN:
                events.append(Accepted(channel_id, payload))
        else:
            self._receive_end(channel, kind, payload, events, was_closing=was is ChannelState.CLOSING)

    def _receive_end(
        self, channel: Channel, kind: Kind, payload: bytes, events: list[Event], *, was_closing: bool
    ) -> None:
        self._forget(channel)
        code, text = unpack_reason(payload)
        if was_closing:
            return  # nobody waits for it any more
        if kind is Kind.REFUSE:
            events.append(Refused(channel.id, code, text))
        else:
            self._control.append(pack(Kind.CLOSE, channel.id, pack_reason(1000, "")))
            events.append(Closed(channel.id, code, text))

    def _offered(self, channel_id: int, meta: bytes) -> Offered:
        if not self._is_theirs(channel_id) or channel_id <= self._last_theirs:
            raise RemoteProtocolError(f"OPEN with the id {channel_id}, which is not the next one")
        if len(meta) > self._limits.meta:
            raise RemoteProtocolError(f"a request for a channel of {len(meta)} bytes: at most {self._limits.meta}")
        if self._theirs >= self._limits.channels:
            raise RemoteProtocolError(f"more than {self._limits.channels} channels")
        if len(self._control) > _MOST_ANSWERS + 2 * self._limits.channels:
            raise RemoteProtocolError("channels are asked for, and the answers are not taken")
        self._last_theirs = channel_id
        self._theirs += 1
        self._channels[channel_id] = Channel(
            channel_id, is_ours=False, credit=self._peer.window, granted=self._limits.window
        )
        return Offered(channel_id, meta)

    def _receive_piece(self, channel: Channel, payload: bytes, events: list[Event], *, is_last: bool) -> None:
        cost = len(payload) + PIECE_COST
        if cost > channel.granted:
            raise RemoteProtocolError(f"channel {channel.id}: more than its credit")
        channel.granted -= cost
        if channel.state is ChannelState.CLOSING:
            return
        if is_last and channel.partial is None:
            if len(payload) > self._limits.message:
                raise RemoteProtocolError(f"channel {channel.id}: a message over {self._limits.message} bytes")
            events.append(MessageReceived(channel.id, payload, cost))
            return
        if channel.partial is None:
            channel.partial = []
        channel.partial.append(payload)
        channel.partial_bytes += len(payload)
        if channel.partial_bytes > self._limits.message:
            raise RemoteProtocolError(f"channel {channel.id}: a message over {self._limits.message} bytes")
        if is_last:
            pieces, channel.partial, channel.partial_bytes = channel.partial, None, 0
            data = b"".join(pieces)
            events.append(MessageReceived(channel.id, data, len(data) + PIECE_COST * len(pieces)))

    def _receive_credit(self, channel: Channel, size: int) -> None:
        if channel.credit + size > self._peer.window:
            raise RemoteProtocolError(f"channel {channel.id}: more credit than its window")
        channel.credit += size
        self._make_ready(channel)

    # Sending.

    def data_to_send(self, low: int = -1) -> tuple[bytes, list[Event]]:
        """The next message of the connection, empty when there is none now, and what its sending brought: `Drained` for
        channels on which no more than `low` bytes wait any longer.
        """
        events: list[Event] = []
        out, self._unsequenced = self._unsequenced, []
        if self._state is not LinkState.OPEN:
            return b"".join(out), events
        if self._owes_pong:
            self._owes_pong, self._unreported_bytes = False, 0
            out.append(pack(Kind.PONG, 0, pack_count(self._received)))
        size = sum(map(len, out))
        while self._replay and size < BATCH_BYTES:
            out.append(self._replay.popleft())
            size += len(out[-1])
        if not self._replay:
            self._grant()
            # ACK is not sequenced, so the other side can always make room here.
            while self._control and size < BATCH_BYTES and self._unacked_bytes < self._limits.replay:
                out.append(self._sending(self._control.popleft()))
                size += len(out[-1])
            while self._ready and size < BATCH_BYTES and self._unacked_bytes < self._limits.replay:
                out.append(self._sending(self._next_piece(low, events)))
                size += len(out[-1])
        if self._unreported_bytes >= self._peer.replay // 4:
            self._unreported_bytes = 0
            out.append(pack(Kind.ACK, 0, pack_count(self._received)))
        return b"".join(out), events

    def _next_piece(self, low: int, events: list[Event]) -> bytes:
        channel = self._ready.popleft()
        channel.is_ready = False
        assert channel.queue
        message, start = channel.queue[0], channel.sent_of_head
        end = min(start + PIECE_BYTES, len(message))
        kind = Kind.LAST if end == len(message) else Kind.PIECE
        channel.sending(kind)
        was = channel.queued
        channel.credit -= end - start + PIECE_COST
        channel.queued -= end - start
        channel.sent_of_head = end
        if kind is Kind.LAST:
            channel.queue.popleft()
            channel.sent_of_head = 0
            channel.queued -= PIECE_COST
        frame = pack(kind, channel.id, message if end - start == len(message) else message[start:end])
        if channel.queue:
            self._make_ready(channel)
        else:
            channel.queue = None
            if channel.closing is not None:
                self._send_close(channel)
        if was > low >= channel.queued:
            events.append(Drained(channel.id))
        return frame

    def _grant(self) -> None:
        for channel_id in self._credits:
            channel = self._channels.get(channel_id)
            if channel is not None and channel.state is ChannelState.OPEN and channel.unreported:
                size, channel.unreported = channel.unreported, 0
                channel.granted += size
                self._control.append(pack(Kind.CREDIT, channel_id, pack_credit(size)))
        self._credits.clear()

    def _send_close(self, channel: Channel) -> None:
        code, text = channel.closing or (1000, "")
        channel.sending(Kind.CLOSE)
        channel.queue, channel.queued, channel.partial, channel.partial_bytes = None, 0, None, 0
        self._unready(channel)
        self._control.append(pack(Kind.CLOSE, channel.id, pack_reason(code, text)))

    def _sending(self, frame: bytes) -> bytes:
        self._sent += 1
        self._unacked.append(frame)
        self._unacked_bytes += len(frame)
        return frame

    def _acknowledged(self, count: int) -> None:
        first = self._sent - len(self._unacked)
        if not first <= count <= self._sent:
            raise RemoteProtocolError(f"{count} frames are acknowledged: expected {first} to {self._sent}")
        for _ in range(count - first):
            self._unacked_bytes -= len(self._unacked.popleft())

    # Helpers.

    def _greet(self, peer: LinkLimits, received: int) -> None:
        if self._was_greeted:
            self._acknowledged(received)
        for channel in self._channels.values():  # asked for before the first greeting
            if not self._was_greeted:
                channel.credit = peer.window
        self._peer = peer
        self._was_greeted = True
        self._replay = deque(self._unacked)
        self._change(LinkSignal.GREET)

    def _fail(self, error: RemoteProtocolError, code: int) -> Ended:
        self._unsequenced.append(pack(Kind.GOODBYE, 0, pack_reason(code, str(error))))
        self._change(LinkSignal.END)
        self._lose_channels()
        return Ended(code, str(error), error)

    def _lose_channels(self) -> list[Event]:
        lost: list[Event] = [Lost(channel_id) for channel_id in self._channels]
        self._channels.clear()
        self._ready.clear()
        self._control.clear()
        self._credits.clear()
        self._theirs = 0
        return lost

    def _change(self, signal: LinkSignal) -> None:
        after = TRANSITIONS[self._state].get(signal)
        if after is None:
            raise LocalProtocolError(f"the link is {self._state.value}: {signal.value} is not possible")
        self._state = after

    def _channel(self, channel_id: int) -> Channel:
        channel = self._channels.get(channel_id)
        if channel is None:
            raise LocalProtocolError(f"channel {channel_id} is over")
        return channel

    def _forget(self, channel: Channel) -> None:
        del self._channels[channel.id]
        channel.queue, channel.queued = None, 0
        self._unready(channel)
        if not channel.is_ours:
            self._theirs -= 1

    def _make_ready(self, channel: Channel) -> None:
        cost = channel.next_cost(PIECE_BYTES)
        if cost and not channel.is_ready and channel.credit >= cost and channel.state is ChannelState.OPEN:
            channel.is_ready = True
            self._ready.append(channel)

    def _unready(self, channel: Channel) -> None:
        if channel.is_ready:
            channel.is_ready = False
            self._ready.remove(channel)

    def _is_theirs(self, channel_id: int) -> bool:
        return channel_id % 2 == (0 if self._dials else 1)
