"""What participants and connections hold in the queues: the memory of `queues.py`, without its rules.

A client with leases settles each delivery itself. All that is kept of it here is which answer handed it over (`HandedOver`),
and only until the client shows the lease: when it gave up that request, or lost the answer with its connection, the delivery
goes back at once instead of waiting for the end of its lease. For a client without leases the connection keeps the leases.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from meshhost.server.core.peer import Peer
from meshhost.stores.queues import HolderId, Lease

__all__ = ["ConnectionLeases", "HandedOver", "ParticipantLeases", "Waiting"]

# A client gives up a request within one round trip of its answer, or when it comes back after a lost connection.
MAX_RECENT = 64


def _new_holder() -> HolderId:
    return HolderId(uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A delivery and the request that it answered: its connection, message id and, if the client named it, its call."""

    peer: Peer
    message_id: int
    lease: Lease
    call: str | None = None


@dataclass(slots=True)
class ParticipantLeases:
    """What a participant that receives with leases holds."""

    holder: HolderId = field(default_factory=_new_holder)
    has_leased: bool = False
    is_dismissed: bool = False
    _recent: dict[tuple[int, int], HandedOver] = field(default_factory=dict)

    @property
    def recent(self) -> tuple[HandedOver, ...]:
        """The newest unsettled deliveries."""
        return tuple(self._recent.values())

    def hand_over(self, delivery: HandedOver) -> None:
        """Remember a delivery until it is settled, or until there are too many newer ones."""
        self.has_leased = True
        self._recent[_key(delivery.lease)] = delivery
        if len(self._recent) > MAX_RECENT:
            del self._recent[next(iter(self._recent))]

    def settled(self, lease: Lease) -> None:
        """Forget a delivery: its client has received it."""
        self._recent.pop(_key(lease), None)

    def take_back(self, peer: Peer, message_id: int) -> list[Lease]:
        """Remove and return what the answer to this request handed over."""
        return self._take([each for each in self.recent if each.peer is peer and each.message_id == message_id])

    def take_back_calls(self, calls: list[str]) -> list[Lease]:
        """Remove and return what the answers to these calls handed over, on any connection."""
        return self._take([each for each in self.recent if each.call in calls])

    def _take(self, given_up: list[HandedOver]) -> list[Lease]:
        for each in given_up:
            del self._recent[_key(each.lease)]
        return [each.lease for each in given_up]


@dataclass(slots=True, eq=False)
class ConnectionLeases:
    """What a connection that receives without leases holds: unsettled deliveries by queue, and how many receives wait."""

    holder: HolderId = field(default_factory=_new_holder)
    unsettled: dict[str, list[HandedOver]] = field(default_factory=dict)
    waiting: int = 0

    def hand_over(self, delivery: HandedOver) -> None:
        """Remember a delivery until it is settled."""
        self.unsettled.setdefault(delivery.lease.queue.name, []).append(delivery)

    def leases(self) -> list[Lease]:
        """All leases that are held."""
        return [each.lease for deliveries in self.unsettled.values() for each in deliveries]

    def discard(self, lease: Lease) -> None:
        """Forget a delivery; an unknown one is ignored."""
        name = lease.queue.name
        left = [each for each in self.unsettled.get(name, []) if not _is_same(each.lease, lease)]
        if left:
            self.unsettled[name] = left
        else:
            self.unsettled.pop(name, None)

    def take_back(self, message_id: int) -> list[Lease]:
        """Remove and return what the answer to this request handed over."""
        return self._take(lambda each: each.message_id == message_id)

    def take_back_call(self, call: str) -> list[Lease]:
        """Remove and return what the answer to the request of this name handed over."""
        return self._take(lambda each: each.call == call)

    def _take(self, which: Callable[[HandedOver], bool]) -> list[Lease]:
        found = [each.lease for queue in self.unsettled.values() for each in queue if which(each)]
        for lease in found:
            self.discard(lease)
        return found


@dataclass(slots=True, eq=False)
class Waiting:
    """How many requests of a connection wait for the end of a message."""

    count: int = 0


def _key(lease: Lease) -> tuple[int, int]:
    return lease.message_id, lease.token


def _is_same(one: Lease, other: Lease) -> bool:
    return _key(one) == _key(other)
