"""Participants: the users and agents connected to a room, each with an id and attributes.

`MessagingClient` makes a `RemoteParticipant` for each one the server reports; `ConnectionKeeper` makes the `LocalParticipant`
of each connection. An id is valid for one connection: after a reconnect that was not resumed, a participant has a new one.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

__all__ = ["LocalParticipant", "Participant", "RemoteParticipant"]


class Participant:
    """Anyone connected to a room."""

    def __init__(self, *, id: str, attributes: Mapping[str, Any] | None = None) -> None:
        self._id = id
        self._attributes = dict(attributes or {})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.get_attribute('name')!r}>"

    @property
    def id(self) -> str:
        """Unique among the participants of the room."""
        return self._id

    @property
    def attributes(self) -> Mapping[str, Any]:
        """A copy of all attributes."""
        return dict(self._attributes)

    def get_attribute(self, name: str) -> Any:
        """The value of the attribute, or None."""
        return self._attributes.get(name)

    def update_attributes(self, changed: Mapping[str, Any]) -> None:
        """Merge changes that the server reported."""
        self._attributes.update(changed)


class RemoteParticipant(Participant):
    """Another participant. `role` is user, agent, tool, or unknown."""

    def __init__(self, *, id: str, role: str | None = None, attributes: Mapping[str, Any] | None = None) -> None:
        super().__init__(id=id, attributes=attributes)
        self._role = role or "unknown"

    @property
    def role(self) -> str:
        """The role in the participant's token."""
        return self._role


class LocalParticipant(Participant):
    """This client's own participant. `tell` sends changed attributes to the server."""

    def __init__(
        self, *, id: str, attributes: Mapping[str, Any], tell: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        super().__init__(id=id, attributes=attributes)
        self._tell = tell

    async def set_attribute(self, name: str, value: Any) -> None:
        """Set an attribute of ours, here and for everyone in the room.

        Raises ConnectionLostError; it is set here all the same, and the next connection sends it again.
        """
        self._attributes[name] = value
        await self._tell({name: value})
