"""The agents that configured services keep in a room: which member is which, and whether one is still on its way.

The token of a called agent says at which address its host was called (`ADDRESS_CLAIM`). From this the server knows, also after
a restart, to which path of which service a member belongs. That is how it keeps exactly one agent for each path and room: hosts
of one service know nothing of each other, and each may bring an agent back by itself. `caller.py` calls, `service.py` refuses
and dismisses what `unwanted` names.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from meshhost.server.calling.records import CallRecord, UrlRotation, link_of, shown_url, without_host
from meshhost.server.config import ConfiguredService, ServicePath
from meshhost.server.core.participants import Participant
from meshhost.server.core.room import Room

__all__ = ["KeptAgent", "Unwanted", "is_kept_at", "unwanted"]


class KeptAgent:
    """One agent of a service that is kept in a room: where it is called next, and how its calls went."""

    def __init__(self, room: Room, service: ConfiguredService, path: ServicePath) -> None:
        self.room = room
        self.service = service
        self.path = path
        self.urls = UrlRotation(service, path)
        self.record = CallRecord(shown_url(self.urls.current), path.path, path.identity)
        self.log_fields = {"room": room.key.name, "tenant": room.key.tenant, "identity": path.identity}
        self._addresses = _addresses(service, path)

    @property
    def is_present(self) -> bool:
        """Whether the agent is in the room, or was less than the resume time ago, and is to stay."""
        return any(self._is_mine(member) for member in self.room.members.values())

    def is_configured_as(self, other: "KeptAgent") -> bool:
        """Whether this is called as the other one is: the same path of the same hosts, with the same secret and arguments."""
        mine, its = self.service, other.service
        return self.path == other.path and _way_of(mine) == _way_of(its)

    def is_coming(self, *, within: float, start: float) -> bool:
        """Whether it may join within these seconds, or has joined within the last `start` seconds."""
        for member in self.room.members.values():
            if self._is_mine(member) and member.peer is not None:
                return time.monotonic() - member.attached_at < start
        next_call_at = self.record.next_call_at
        return next_call_at is None or next_call_at - time.time() < within

    def _is_mine(self, member: Participant) -> bool:
        if member.name != self.path.identity or member.role == "user" or member.is_leaving:
            return False
        # One that nobody called, as a developer starts by hand, takes the place of its identity too.
        return member.called_at is None or without_host(member.called_at) in self._addresses


class Unwanted(NamedTuple):
    """An agent that must leave, and why. `rival` has its place; without one, no service has such a place."""

    member: Participant
    rival: Participant | None

    @property
    def reason(self) -> str:
        """Why the agent must leave, for its log."""
        if self.rival is None:
            return "no service that is configured for this room has it"
        return "another agent of the same service and path is in the room"


def unwanted(services: Sequence[ConfiguredService], room: Room, joining: Participant) -> Unwanted | None:
    """Return which agent must leave when this one joins: itself, the one that has its place, or None.

    Only agents that a configured service was called for can be told to leave. Of two for one path, the one with a connection
    stays that was there first; but if both were called at one address, the newer stays. A host has one agent for each path
    and room, so the older is what a killed host left behind, whose connection has not been noticed to be dead.
    """
    if joining.called_at is None:
        return None
    place = _place(services, room, joining)
    if place is None:
        return None if _is_of_unknown_host(services, joining.called_at) else Unwanted(joining, None)
    for other in room.connected():
        if other is not joining and not other.is_leaving and _place(services, room, other) == place:
            return Unwanted(other, joining) if other.called_at == joining.called_at else Unwanted(joining, other)
    return None


def _is_of_unknown_host(services: Sequence[ConfiguredService], address: str) -> bool:
    """Whether an agent was called at a host that dialled in, of whose name there is no service now.

    After a restart of this server it may come before its host has announced itself.
    """
    name = link_of(address)
    return name is not None and all(link_of(f"{service.url}/") != name for service in services)


def is_kept_at(services: Sequence[ConfiguredService], room: Room, identity: str, url: str) -> bool | None:
    """Return whether a configured agent of this identity is called at this address; None when the room has no such agent."""
    places = [
        (service, path)
        for service in services
        if service.wants(room.key)
        for path in service.paths
        if path.identity == identity
    ]
    if not places:
        return None
    # Not without its query: that may change what the host does.
    return any(url == base.rstrip("/") + path.path for service, path in places for base in service.all_urls)


def _place(services: Sequence[ConfiguredService], room: Room, member: Participant) -> tuple[int, str] | None:
    """The service and path that a member was called for, if they are still configured."""
    if member.called_at is None or not member.called_by_service:
        return None
    for number, service in enumerate(services):
        if service.wants(room.key):
            for path in service.paths:
                if path.identity == member.name and without_host(member.called_at) in _addresses(service, path):
                    return number, path.path
    return None


def _way_of(service: ConfiguredService) -> tuple[object, ...]:
    """What a call of the service depends on, besides the path."""
    given = (dict(service.variables), tuple(service.secrets), service.signed_with)
    return (service.all_urls, service.webhook_secret, service.tenant, dict(service.requires), *given)


def _addresses(service: ConfiguredService, path: ServicePath) -> frozenset[str]:
    return frozenset(shown_url(url.rstrip("/") + path.path) for url in service.all_urls)
