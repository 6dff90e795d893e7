"""Whose turn it is: operations of many tenants on something that they share, in weighted fair order.

The thread of a SQLite file, its reader, the connections to PostgreSQL and the batches on their way there take operations from a
`FairQueue`, so that a tenant with ten thousand of them delays another one by one turn, not by ten thousand. It is start-time
fair queuing: each tenant has a place on a line of virtual time, moves on by 1/weight with each operation that is taken, and
the one that is furthest behind is next. A tenant that had nothing to do starts at the present place: idling saves nothing up,
and costs nothing.

Operations of one tenant stay in their order; those of the server itself have the tenant `""`. Not safe for threads.
"""

import heapq
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["FairQueue", "TenantWeights"]

Item = TypeVar("Item")

# Beyond this many tenants with a place, those that nobody can still be ahead of are forgotten.
_MOST_PLACES = 1000


class TenantWeights:
    """How many turns a tenant gets for each turn of others: 1 until `follow` says who knows."""

    def __init__(self) -> None:
        self._weight_of: Callable[[str], float] = lambda _: 1.0

    def follow(self, weight_of: Callable[[str], float]) -> None:
        """Ask this from now on. It must be quick and must not raise."""
        self._weight_of = weight_of

    def __call__(self, tenant: str) -> float:
        """The weight of a tenant, above 0."""
        return self._weight_of(tenant) if tenant else 1.0


class FairQueue(Generic[Item]):
    """Items that wait, by tenant."""

    def __init__(self, weights: TenantWeights | None = None) -> None:
        self._weights = weights or TenantWeights()
        self._items: dict[str, deque[Item]] = {}
        self._places: dict[str, float] = {}  # where the next turn of a tenant begins
        self._turns: list[tuple[float, int, str]] = []  # of the tenants with items, as a heap
        self._count = 0
        self._now = 0.0
        self._order = 0

    def __len__(self) -> int:
        """How many items wait."""
        return self._count

    def put(self, item: Item, tenant: str = "") -> None:
        """Add an item."""
        self._count += 1
        items = self._items.get(tenant)
        if items is not None:
            items.append(item)
            return
        self._items[tenant] = deque((item,))
        self._take_turn(tenant, max(self._places.get(tenant, 0.0), self._now))

    @property
    def is_shared(self) -> bool:
        """Whether several tenants have items."""
        return len(self._turns) > 1

    def peek(self) -> Item:
        """Return the item that `get` would return. Raises IndexError when there is none."""
        return self._items[self._turns[0][2]][0]

    def get(self) -> Item:
        """Take the item whose turn it is. Raises IndexError when there is none."""
        place, _, tenant = heapq.heappop(self._turns)
        self._now = place
        self._count -= 1
        items = self._items[tenant]
        item = items.popleft()
        after = place + 1 / self._weights(tenant)
        if items:
            self._take_turn(tenant, after)
            return item
        del self._items[tenant]
        if self._turns:
            self._places[tenant] = after
            if len(self._places) > _MOST_PLACES:
                self._places = {name: its for name, its in self._places.items() if its > self._now}
        else:  # nobody waits: begin anew
            self._places.clear()
            self._now = 0.0
        return item

    def _take_turn(self, tenant: str, place: float) -> None:
        self._order += 1
        heapq.heappush(self._turns, (place, self._order, tenant))
