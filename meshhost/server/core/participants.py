"""Who is in a room, as the server knows them."""

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from meshhost.identity.grants import ApiScope
from meshhost.identity.tokens import ParticipantToken
from meshhost.stores.queues import HolderId

if TYPE_CHECKING:
    from meshhost.server.wire.connection import Connection

__all__ = ["Participant"]


@dataclass(slots=True, eq=False)
class Participant:
    """One participant of one room: what the token proved, and what became of it since.

    `holder` is who leases are given to. It is secret, since whoever shows a lease may settle it; so is `resume_token`, which
    lets a client whose connection was lost come back as the same participant. `connection` is None while it is lost.
    """

    name: str
    role: str
    scope: ApiScope
    key_id: str | None
    expires_at: datetime | None
    called_by_service: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    holder: HolderId = field(default_factory=lambda: HolderId(uuid.uuid4().hex))
    resume_token: str = field(default_factory=lambda: uuid.uuid4().hex)
    connection: "Connection | None" = None
    is_visible: bool = False  # messaging is enabled
    is_watching: bool = False  # the developer log
    is_dismissed: bool = False
    can_resume: bool = False
    has_leased: bool = False

    @classmethod
    def from_token(cls, token: ParticipantToken) -> "Participant":
        """A participant as its token describes it."""
        return cls(
            name=token.name,
            role=token.role,
            scope=token.get_api_grant() or ApiScope(),
            key_id=token.api_key_id,
            expires_at=token.expires_at,
            called_by_service=bool(token.extra_payload.get("meshhost_service")),
            attributes={"name": token.name},
        )

    def card(self) -> dict[str, Any]:
        """What others see."""
        return {"id": self.id, "role": self.role, "attributes": self.attributes}
