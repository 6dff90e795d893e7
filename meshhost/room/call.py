"""What an agent knows of the call that brought it into the room."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshhost.identity.tenant import TenantId

__all__ = ["CallContext"]


@dataclass(frozen=True, slots=True)
class CallContext:
    """Tenant and room that called, the identity to act as, and the arguments of the call.

    `deadline` is the wall-clock time (seconds since the epoch) at which the agent's token expires, or None.
    """

    tenant: TenantId
    room: str
    identity: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    call_id: str = ""
    deadline: float | None = None
