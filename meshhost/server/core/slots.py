"""State that a service keeps about a room, a participant or a peer.

A service often needs state that lives exactly as long as something else: the toolkits registered in a room, the leases that a
connection has not settled. If that state were a field of `Room`, each new service would have to change `Room`; if it were a
dict inside the service, someone would have to delete its entries. A `Slot` is a typed key instead: the service makes one, and
`slot.of(room)` returns the service's state of that room, made on first use. The state is stored in the owner, so it is freed
with the owner, and no hook is needed for that. Only the service that made the slot can reach what is in it.
"""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["HasSlots", "Slot", "Slots"]

S = TypeVar("S")

# What a room, a participant or a peer stores for services. An owner starts with an empty one.
Slots = dict["Slot[Any]", Any]


class HasSlots(Protocol):
    """A thing that services can keep state about."""

    @property
    def slots(self) -> Slots:
        """The state by slot. Only `Slot` reads and writes it."""
        ...


class Slot(Generic[S]):
    """A typed key for the state that one service keeps about each owner. `make` makes the state of a new owner."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[], S]) -> None:
        self._make = make

    def of(self, owner: HasSlots) -> S:
        """The state of this owner; made if there is none yet."""
        slots = owner.slots
        found: S | None = slots.get(self)
        if found is None:
            found = slots[self] = self._make()
        return found

    def get(self, owner: HasSlots) -> S | None:
        """The state of this owner, or None if there is none yet. For hooks that have nothing to do without state."""
        return owner.slots.get(self)
