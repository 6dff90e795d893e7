"""What an agent was started for: the call, and the connection to its room.

A `CallRequest` is a call that passed `calls.admission`. An `Assignment` belongs to one supervised agent for all its lives; a
repeated call renews it, so that the next reconnect uses the fresh token. `AgentLife` reads it, in this process or in that of
the agent.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshhost.identity.tenant import AgentKey, RoomKey, TenantId
from meshhost.link.dialling import LinkedRoom
from meshhost.room.call import CallContext
from meshhost.supervision.agent import SupervisedAgent
from meshhost.supervision.state import TERMINAL, State
from meshhost.transport.base import ClientProtocol
from meshhost.transport.websocket_client import WebSocketClientProtocol

__all__ = ["Assignment", "CallRequest", "HostedAgent"]

HostedAgent = SupervisedAgent[AgentKey]
"""An agent of a host, under supervision."""


@dataclass(frozen=True, slots=True)
class CallRequest:
    """An admitted call: which room to join, as whom, with which arguments. `expires_at` is the token's (wall clock)."""

    tenant: TenantId
    room_name: str
    room_url: str
    identity: str
    arguments: Mapping[str, Any]
    expires_at: float | None
    token: str = field(repr=False)

    def agent_key(self, path: str) -> AgentKey:
        """The key of the agent that this call to `path` asks for."""
        return AgentKey(RoomKey(self.tenant, self.room_name), path, self.identity)


@dataclass(slots=True)
class Assignment:
    """What one agent was started for: its latest call, and the connection to its room.

    `id` is the call's id as the agent sees it. `pid` is the agent's own process, while it has one. `on_renew` is called with a
    repeated call while the agent lives in another process. `on_missed` is called when an agent in another process ended for
    good before it saw a repeated call that was answered for it: the call needs another agent.
    """

    request: CallRequest
    protocol: ClientProtocol
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    agent: HostedAgent | None = None
    on_renew: Callable[[CallRequest], None] | None = None
    pid: int | None = None
    on_missed: Callable[[CallRequest], None] | None = None

    def renew(self, request: CallRequest) -> None:
        """Take over a repeated call. Its token is used when the agent connects again."""
        self.request = request
        if isinstance(self.protocol, WebSocketClientProtocol | LinkedRoom):
            self.protocol.renew(request.token)
        if self.on_renew is not None:
            self.on_renew(request)

    def context(self) -> CallContext:
        """The call as the agent sees it."""
        request = self.request
        return CallContext(
            tenant=request.tenant,
            room=request.room_name,
            identity=request.identity,
            arguments=request.arguments,
            call_id=self.id,
            deadline=request.expires_at,
        )

    def end_for_good(self, reason: str) -> None:
        """Make the coming end of the child final: the supervisor must not start the agent again."""
        agent = self.agent
        if agent is not None and agent.state not in TERMINAL and agent.state is not State.DRAINING:
            agent.reason = reason
            agent.begin_drain()
