"""`CallContext`: what an agent knows of the call that brought it into the room.

The host fills it in from the request that started the agent and passes it to `RoomClient(call=…)`; agents and tools read it as
`room.call`. It is immutable: all that a running agent may rely on was decided when the call was accepted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshhost.identity.tenant import TenantId

__all__ = ["CallContext"]


@dataclass(frozen=True, slots=True)
class CallContext:
    """The tenant and room that made the call, the identity to act as, and the arguments of the call.

    `deadline` is the time (seconds since the epoch) at which the agent's token expires; None when it does not.
    """

    tenant: TenantId
    room: str
    identity: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    call_id: str = ""
    deadline: float | None = None
