"""The agents that configured services keep in a room: which member is which, and whether one is still on its way.

The token of a called agent says at which address its host was called (`ADDRESS_CLAIM`). From this the server knows, also after
a restart, to which path of which service a member belongs. That is how it keeps exactly one agent for each path and room: hosts
of one service know nothing of each other, and each may bring an agent back by itself. `caller.py` calls, `service.py`
dismisses.
"""

import time
from collections.abc import Sequence

from meshhost.server.calling.records import CallRecord, UrlRotation, shown_url
from meshhost.server.config import ConfiguredService, ServicePath
from meshhost.server.core.participants import Participant
from meshhost.server.core.room import Room

__all__ = ["START_SECONDS", "KeptAgent", "has_agent", "reason_to_leave"]

START_SECONDS = 10.0
"""An agent that joined so recently may not have registered yet what it offers."""


class KeptAgent:
    """One agent of a service that is kept in a room: where it is called next, and how its calls went."""

    def __init__(self, room: Room, service: ConfiguredService, path: ServicePath) -> None:
        self.room = room
        self.service = service
        self.path = path
        self.urls = UrlRotation(service, path)
        self.record = CallRecord(shown_url(self.urls.current), path.path, path.identity)
        self.log_fields = {"room": room.key.name, "tenant": room.key.tenant, "identity": path.identity}

    def is_coming(self, *, within: float) -> bool:
        """Whether it may join within these seconds, or has only just joined."""
        for member in self.room.members.values():
            if _is_agent(member, self.path.identity) and member.peer is not None:
                return time.monotonic() - member.attached_at < START_SECONDS
        next_call_at = self.record.next_call_at
        return next_call_at is None or next_call_at - time.time() < within


def has_agent(room: Room, identity: str) -> bool:
    """Whether an agent of this identity is in the room, or was less than the resume time ago, and is to stay."""
    return any(_is_agent(member, identity) for member in room.members.values())


def reason_to_leave(services: Sequence[ConfiguredService], room: Room, joined: Participant) -> str | None:
    """Why an agent that has just joined must leave again; None when it may stay.

    Only agents that a configured service was called for can be told to leave. Of two for one path the one with a connection
    stays that was there first.
    """
    if joined.called_at is None:
        return None
    place = _place(services, room, joined)
    if place is None:
        return "no service that is configured for this room has it"
    others = (member for member in room.connected() if member is not joined and not member.is_leaving)
    if any(_place(services, room, other) == place for other in others):
        return "another agent of the same service and path is in the room"
    return None


def _place(services: Sequence[ConfiguredService], room: Room, member: Participant) -> tuple[int, str] | None:
    """The service and path that a member was called for, if they are still configured."""
    if member.called_at is None or not member.called_by_service:
        return None
    for number, service in enumerate(services):
        if service.wants(room.key.name):
            for path in service.paths:
                addresses = (shown_url(url.rstrip("/") + path.path) for url in service.all_urls)
                if path.identity == member.name and member.called_at in addresses:
                    return number, path.path
    return None


def _is_agent(member: Participant, identity: str) -> bool:
    return member.name == identity and member.role != "user" and not member.is_leaving
