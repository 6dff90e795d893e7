"""How a generation of clients calls things on the wire.

The server's operations and events have names of their own; a dialect translates a client's names into them, and events into
the client's. Only SDK 0.6's is there. A second one (room-protocol-0.56) is added here and chosen at the handshake; where its
bodies differ too, it gets its own table of operations over the same handlers.
"""

from collections.abc import Mapping
from typing import Protocol

__all__ = ["SDK_06", "Dialect", "NameDialect"]


class Dialect(Protocol):
    """Translates names, both ways. What it does not know it leaves as it is: the dispatcher refuses what nobody knows."""

    def operation(self, type: str) -> str:
        """The operation that a client's message asks for."""
        ...

    def type_of(self, event: str) -> str:
        """What the client calls an event."""
        ...


class NameDialect:
    """A dialect that differs by names only; `names` maps a client's word to the server's, for requests and events alike."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._operations = dict(names)
        self._types = {operation: word for word, operation in names.items()}

    def operation(self, type: str) -> str:
        """See Dialect."""
        return self._operations.get(type, type)

    def type_of(self, event: str) -> str:
        """See Dialect."""
        return self._types.get(event, event)


# SDK 0.6 speaks of documents as of the room itself (room-protocol §13); its other words are ours.
SDK_06: Dialect = NameDialect(
    {
        "room.create": "sync.create",
        "room.connect": "sync.open",
        "room.sync": "sync.update",
        "room.disconnect": "sync.close",
    }
)
