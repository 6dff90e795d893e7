"""What the agents service keeps about a room."""

from dataclasses import dataclass, field

from meshhost.server.core.slots import Slot
from meshhost.server.services.agents.arrivals import Arrivals
from meshhost.server.services.agents.calls import PendingCalls
from meshhost.server.services.agents.registry import Registry
from meshhost.server.services.agents.tool_streams import ToolStreams

__all__ = ["AgentsInRoom", "Rooms"]


@dataclass(slots=True)
class AgentsInRoom:
    """What is registered in a room, and the calls in progress."""

    registry: Registry = field(default_factory=Registry)
    calls: PendingCalls = field(default_factory=PendingCalls)
    arrivals: Arrivals = field(default_factory=Arrivals)
    streams: ToolStreams = field(default_factory=ToolStreams)


Rooms = Slot[AgentsInRoom]
