"""The participants of a room, as the server knows them.

A `Participant` is made when a token is accepted, and lives until its connection has ended and can no longer be resumed.
Services keep their state of it in its `slots`, so that this module knows none of them. Its identity and rights
come from the token alone and never change.
"""

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from meshhost.identity.called import SERVICE_CLAIM, address_of, asked_address_of
from meshhost.identity.grants import ApiScope
from meshhost.identity.tokens import ParticipantToken
from meshhost.server.core.peer import Peer
from meshhost.server.core.slots import Slots

__all__ = ["Participant"]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Participant:
    """One participant of one room: what its token proves, and how it is reached.

    `peer` is None while the connection is lost. `resume_token` is secret: a client that shows it comes back as this
    participant. `called_by_service` marks an agent that the server itself called into the room, also one that its host started
    again by itself: it does not keep the room open. `called_at` is the address at which a configured service was called for it,
    `asked_at` the one that was called because a participant asked.
    `is_leaving`: the server told it to leave, so it counts as gone. `attached_at` is when it got its connection (monotonic).
    `slots` holds what services know about the participant.
    """

    name: str
    role: str
    scope: ApiScope
    key_id: str | None
    expires_at: datetime | None
    called_by_service: bool = False
    called_at: str | None = None
    asked_at: str | None = None
    is_leaving: bool = False
    attached_at: float = 0.0
    attributes: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    resume_token: str = field(default_factory=lambda: uuid.uuid4().hex)
    peer: Peer | None = None
    slots: Slots = field(default_factory=dict, repr=False)

    @classmethod
    def from_token(cls, token: ParticipantToken) -> "Participant":
        """A participant as its verified token describes it."""
        return cls(
            name=token.name,
            role=token.role,
            scope=token.get_api_grant() or ApiScope(),
            key_id=token.api_key_id,
            expires_at=token.expires_at,
            called_by_service=bool(token.extra_payload.get(SERVICE_CLAIM)),
            called_at=address_of(token),
            asked_at=asked_address_of(token),
            attributes={"name": token.name},
        )

    def card(self) -> dict[str, Any]:
        """The public description: `id`, `role` and `attributes`."""
        return {"id": self.id, "role": self.role, "attributes": self.attributes}
