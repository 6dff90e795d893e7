"""The service hosts that dialled in: who they are, how loaded, and which of them is called.

`http/links.py` adds a `LinkedHost` when a host announces itself and removes it when its link has ended for good. A service
whose address is `link://NAME` is called at one of the hosts of this name: of those that the room's tenant may use, that have
the path and the labels which the service requires, the one with the fewest agents for its size; when one refuses, the next. A
host that is full, drains or is overloaded is asked last or not at all. Hosts may also say themselves in which rooms their
agents belong, of their tenant or, with the operator's key, of all; from that come services that are called like the configured
ones (`services`).

Everything runs in one event loop. How many agents a host has is known exactly: what it reported, and the calls that it has
answered since then, which a later report includes.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meshhost.clock import Clock, SystemClock
from meshhost.errors import CallRefusedError, InvalidRequestError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.link.rooms import Announcement, HostPath, Report
from meshhost.server.calling.records import linked_address
from meshhost.server.config import ConfiguredService, ServicePath

__all__ = ["LinkedHost", "LinkedHosts"]

logger = logging.getLogger(__name__)

# Above this load a host gets fewer agents than its number of free places would give it, and at 1 next to none.
_BUSY = 0.8
_LEAST_HEADROOM = 0.01
# How long a host that refused a call for a tenant without saying how long is asked last.
_REFUSED_SECONDS = 2.0
_MAX_REASONS = 10
# What the hosts of one tenant may ask for altogether, a path in a pattern of rooms each: all is looked through at each change.
_MAX_SERVED = 20_000


@dataclass(eq=False)
class LinkedHost:
    """One host that dialled in. `tenant` is whose key it showed (None: the operator's). `call` calls a path of it with data.

    `call` raises CallRefusedError as the host refuses, or when it cannot be reached.
    """

    announced: Announcement
    tenant: TenantId | None
    call: Callable[[str, Mapping[str, Any]], Awaitable[None]] = field(repr=False)
    report: Report = field(default_factory=Report)
    # Calls that were begun over its channel and have not failed.
    begun: int = 0
    refused_until: dict[tuple[str, str], float] = field(default_factory=dict)
    # Made once, since `services` is asked for at each change of any host.
    served: dict[tuple[str, str], ServicePath] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        paths = self.announced.paths
        self.served = {(each.path, each.identity): ServicePath(each.path, each.identity, each.api) for each in paths}

    @property
    def agents(self) -> int:
        """How many agents it has, with those of the calls that its last report does not include."""
        return self.report.agents + max(self.begun - self.report.calls, 0)

    def share(self) -> float:
        """How full it is, with one agent more: the part of its places, more when it is busy."""
        busy = max(self.report.load - _BUSY, 0.0) / (1 - _BUSY)
        return (self.agents + 1) / (self.announced.max_agents * max(1 - busy, _LEAST_HEADROOM))

    def path(self, path: str) -> HostPath | None:
        """The path, if it has it."""
        return next((each for each in self.announced.paths if each.path == path), None)


class LinkedHosts:
    """The hosts that dialled in. `on_change` is called when `services` may have changed."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._hosts: list[LinkedHost] = []
        self.on_change: Callable[[], None] = lambda: None

    def __iter__(self) -> Iterator[LinkedHost]:
        return iter(tuple(self._hosts))

    def __len__(self) -> int:
        return len(self._hosts)

    def add(self, host: LinkedHost) -> None:
        """A host announced itself. Raises InvalidRequestError when its tenant's hosts ask for too many agents."""
        if host.tenant is not None:
            hosts = [host, *(each for each in self._hosts if each.tenant == host.tenant)]
            if sum(len(each.served) * len(each.announced.rooms) for each in hosts) > _MAX_SERVED:
                raise InvalidRequestError(
                    "rooms", f"the hosts of this tenant ask for over {_MAX_SERVED} agents in rooms"
                )
        self._hosts.append(host)
        self.on_change()

    def remove(self, host: LinkedHost) -> None:
        """Its link has ended for good. Idempotent."""
        if host in self._hosts:
            self._hosts.remove(host)
            self.on_change()

    def services(self) -> list[ConfiguredService]:
        """The services that hosts asked for, each once."""
        found: dict[tuple[TenantId, str, str], dict[tuple[str, str], ServicePath]] = {}
        for host in self._hosts:
            if host.tenant is not None:
                for rooms in host.announced.rooms:
                    paths = found.setdefault((host.tenant, host.announced.name, rooms), {})
                    for key, path in host.served.items():
                        paths.setdefault(key, path)
        return [
            ConfiguredService(url=f"link://{name}", paths=list(paths.values()), rooms=rooms, tenant=tenant)
            for (tenant, name, rooms), paths in found.items()
        ]

    async def call(
        self, url: str, room: RoomKey, requires: Mapping[str, str], data_for: Callable[[str], Mapping[str, Any]]
    ) -> str:
        """Call one host of the service at `link://NAME/path` into a room; return the address that was called.

        `data_for` makes the data of the call for an address. Raises CallRefusedError, which names the hosts and their reasons;
        its `retry_after` is the shortest that one of them gave.
        """
        name, _, path = url.removeprefix("link://").partition("/")
        path = f"/{path}"
        able, reasons = self._able(name, path, room, requires)
        waits: list[float] = []
        status = 503
        for host in self._in_order(able, room.tenant, path):
            address = linked_address(host.announced.host, url)
            host.begun += 1
            try:
                await host.call(path, data_for(address))
            except CallRefusedError as error:
                host.begun -= 1
                status = error.status
                seconds = _REFUSED_SECONDS if error.retry_after is None else error.retry_after
                host.refused_until[room.tenant, path] = self._clock.monotonic() + seconds
                if error.retry_after is not None:
                    waits.append(error.retry_after)
                reasons.append(f"{host.announced.host} answered {error.status}: {error}")
                continue
            except BaseException:
                host.begun -= 1
                raise
            host.refused_until.pop((room.tenant, path), None)
            return address
        raise CallRefusedError(self._why(name, path, reasons), status=status, retry_after=min(waits, default=None))

    def _able(
        self, name: str, path: str, room: RoomKey, requires: Mapping[str, str]
    ) -> tuple[list[LinkedHost], list[str]]:
        """The hosts that may be called, and why the others of this name may not."""
        able, reasons = [], []
        for host in self._hosts:
            # A tenant must not learn which hosts others have.
            if host.announced.name != name or host.tenant not in (None, room.tenant):
                continue
            lacking = [f"{key}={value}" for key, value in requires.items() if host.announced.labels.get(key) != value]
            if lacking:
                reasons.append(f"{host.announced.host} lacks the label {', '.join(lacking)}")
            elif host.path(path) is None:
                reasons.append(f"{host.announced.host} has no path {path}")
            elif host.report.refuses is not None:
                reasons.append(f"{host.announced.host} is {host.report.refuses}")
            elif host.agents >= host.announced.max_agents:
                reasons.append(f"{host.announced.host} is full ({host.announced.max_agents} agents)")
            else:
                able.append(host)
        return able, reasons

    def _in_order(self, hosts: Sequence[LinkedHost], tenant: str, path: str) -> list[LinkedHost]:
        """Those with the most room first; those that have just refused such a call last."""
        now = self._clock.monotonic()

        def rank(host: LinkedHost) -> tuple[bool, float, float]:
            return host.refused_until.get((tenant, path), now) > now, host.share(), random.random()  # noqa: S311

        return sorted(hosts, key=rank)

    @staticmethod
    def _why(name: str, path: str, reasons: Sequence[str]) -> str:
        if not reasons:
            return f"no host {name!r} is linked: start one with room_server=, or look at its log"
        shown = "; ".join(reasons[:_MAX_REASONS])
        return f"no host {name!r} takes {path}: {shown}{'; …' if len(reasons) > _MAX_REASONS else ''}"
