"""The claims that a room server puts into the token of an agent that it calls.

The server writes and reads them (`server.calling`): they mark an agent that does not keep its room open, and say at which
address a configured service was called for it. A host reads the address to tell an operator that a stopped agent will be called
again; it cannot verify the token and decides nothing else by it.
"""

from typing import Any

from meshhost.errors import TokenError
from meshhost.identity.tokens import ParticipantToken

__all__ = ["ADDRESS_CLAIM", "ASKED_ADDRESS_CLAIM", "SERVICE_CLAIM", "address_of", "asked_address_of", "called_at"]

SERVICE_CLAIM = "meshhost_service"
"""In the token of an agent that a room server called: true."""
ADDRESS_CLAIM = "meshhost_called_at"
"""In the token of a configured service's agent: the address that was called, without credentials."""

ASKED_ADDRESS_CLAIM = "meshhost_asked_at"
"""In the token of an agent that a participant asked for: the address that was called, without credentials."""


def address_of(token: ParticipantToken) -> str | None:
    """Return the address at which a configured service was called for this token's agent; None for other tokens."""
    value: Any = token.extra_payload.get(ADDRESS_CLAIM)
    return value if isinstance(value, str) else None


def asked_address_of(token: ParticipantToken) -> str | None:
    """Return the address that was called for this token's agent because a participant asked; None for other tokens."""
    value: Any = token.extra_payload.get(ASKED_ADDRESS_CLAIM)
    return value if isinstance(value, str) else None


def called_at(token: str) -> str | None:
    """Return what `address_of` does, of a token that is not verified; None for what is no token."""
    try:
        return address_of(ParticipantToken.from_jwt(token, validate=False))
    except TokenError:
        return None
