"""Routes: the paths of a host, each bound to an agent class.

`ServiceHost.add_path` adds them, `http.routes` looks them up for each call, `HostedAgents` starts agents by them, the process
pool boots programs that must bind those with processes. A route checks its own values, so that a wrong decorator argument
fails where it is written and not at the first call. Routes are never removed, and may be added while the host runs.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from meshhost.errors import SettingsError
from meshhost.hosting.agents.classes import check_agent_class
from meshhost.hosting.calls.specs import WELL_KNOWN_PATHS
from meshhost.identity.grants import ApiScope
from meshhost.supervision.policy import RestartPolicy

__all__ = ["IsolationKind", "OnDuplicate", "Route", "Routes"]

OnDuplicate = Literal["join", "replace", "allow"]
IsolationKind = Literal["task", "process"]

_HOST_PATHS = frozenset({"/", "/livez", "/readyz", "/metrics", *WELL_KNOWN_PATHS})
# The operator's routes: these paths and everything below them.
_OPERATOR_PATHS = ("/agents", "/tenants", "/quarantine", "/drain")


@dataclass(frozen=True, slots=True)
class Route:
    """A path bound to an agent class. Raises SettingsError for a value that is wrong.

    `on_duplicate` says what a call does when an agent of the same tenant, room and identity lives already: use it (`join`),
    end it and start another one (`replace`), or start one more (`allow`). `isolation` is `task` or `process`. An agent has
    `start_timeout` seconds to report that it runs, and `drain_seconds` to finish its work when it has to leave.
    """

    path: str
    cls: Callable[..., Any]
    identity: str | None = None
    permissions: ApiScope | None = None
    on_duplicate: OnDuplicate = "join"
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    isolation: IsolationKind = "task"
    start_timeout: float = 60.0
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        if not isinstance(self.path, str):
            raise SettingsError(f"path: expected a text such as '/worker', not {self.path!r}")
        identity: Any = self.identity
        if identity is not None and (not isinstance(identity, str) or not identity):
            raise SettingsError(f"path {self.path!r}: identity: expected a name, not {identity!r}")
        if not self.path.startswith("/") or self.path in _HOST_PATHS or _is_for_operators(self.path):
            raise SettingsError(
                f"path {self.path!r}: expected a path such as /worker that is not one of the host's own"
            )
        if self.on_duplicate not in ("join", "replace", "allow"):
            raise SettingsError("on_duplicate: expected join, replace or allow")
        if self.isolation not in ("task", "process"):
            raise SettingsError(f"isolation: expected task or process, not {self.isolation!r}")
        if not 0 <= self.drain_seconds < math.inf:
            raise SettingsError("drain_seconds: expected a number of seconds, 0 or more")
        check_agent_class(self.path, self.cls)


class Routes(Mapping[str, Route]):
    """The routes of a host by path, and which of them run their agents in processes."""

    def __init__(self) -> None:
        self._by_path: dict[str, Route] = {}
        self._isolated: set[str] = set()

    def __repr__(self) -> str:
        return f"<Routes {list(self)}>"

    def __getitem__(self, path: str) -> Route:
        return self._by_path[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_path)

    def __len__(self) -> int:
        return len(self._by_path)

    def add(self, route: Route) -> None:
        """Bind the path of the route. Raises SettingsError when it is bound already."""
        if route.path in self._by_path:
            raise SettingsError(f"path {route.path!r} is bound already")
        self._by_path[route.path] = route

    def isolate(self, path: str) -> None:
        """Give the agents of this path processes of their own, from their next start on."""
        self._isolated.add(path)

    def needs_process(self, route: Route) -> bool:
        """Whether the next agent of the route gets a process of its own."""
        return route.isolation == "process" or route.path in self._isolated

    def process_paths(self) -> list[str]:
        """The paths whose agents have processes of their own."""
        return [route.path for route in self._by_path.values() if self.needs_process(route)]


def _is_for_operators(path: str) -> bool:
    return any(path == own or path.startswith(f"{own}/") for own in _OPERATOR_PATHS)
