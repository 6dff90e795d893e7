"""What a token permits: `ApiScope` and its sections (room-protocol §7.2).

An absent section grants nothing; a present one grants what its defaults say. The `can_*` predicates are pure. They are
stricter than the MeshAgent helpers where those are loose (§23.8): paths are normalised and compared by whole segments, the
most specific entry decides, and only a trailing `*` makes a prefix of anything that is not a folder.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

__all__ = [
    "AdminGrant",
    "AgentsGrant",
    "ApiScope",
    "ContainersGrant",
    "DatabaseGrant",
    "DeveloperGrant",
    "LivekitGrant",
    "MessagingGrant",
    "OAuthEndpoint",
    "QueuesGrant",
    "SecretsGrant",
    "StorageGrant",
    "StoragePathGrant",
    "SyncGrant",
    "SyncPathGrant",
    "TableGrant",
]


class _Grant(BaseModel):
    # Newer SDKs add members; ignoring what we do not know never widens a grant, since absent means not granted.
    model_config = ConfigDict(extra="ignore")


class AgentsGrant(_Grant):
    """Register, list and use agents and toolkits."""

    register_agent: bool = True
    register_public_toolkit: bool = True
    register_private_toolkit: bool = True
    call: bool = True
    use_agents: bool = True
    use_tools: bool = True
    allowed_toolkits: list[str] | None = None

    def can_use_toolkit(self, toolkit: str) -> bool:
        """Whether tools of this toolkit may be listed and invoked."""
        return self.use_tools and (self.allowed_toolkits is None or toolkit in self.allowed_toolkits)


class LivekitGrant(_Grant):
    """Join voice sessions."""

    breakout_rooms: list[str] | None = None

    def can_join_breakout_room(self, name: str) -> bool:
        """Whether this breakout room may be joined."""
        return self.breakout_rooms is None or name in self.breakout_rooms


class QueuesGrant(_Grant):
    """Send to, receive from and list queues. A list of names limits; None means all."""

    send: builtins.list[str] | None = None
    receive: builtins.list[str] | None = None
    list: bool = True

    def can_send(self, queue: str) -> bool:
        """Whether messages may be sent to this queue."""
        return self.send is None or queue in self.send

    def can_receive(self, queue: str) -> bool:
        """Whether messages may be taken from this queue."""
        return self.receive is None or queue in self.receive


class MessagingGrant(_Grant):
    """Talk to other participants."""

    broadcast: bool = True
    list: bool = True
    send: bool = True


class TableGrant(_Grant):
    """Rights on one database table."""

    name: str
    write: bool = False
    read: bool = True
    alter: bool = False


class DatabaseGrant(_Grant):
    """Rights on the room's database."""

    tables: list[TableGrant] | None = None
    list_tables: bool = True

    def can_read(self, table: str) -> bool:
        """Whether rows of this table may be read."""
        return self._has(table, "read")

    def can_write(self, table: str) -> bool:
        """Whether rows of this table may be changed."""
        return self._has(table, "write")

    def can_alter(self, table: str) -> bool:
        """Whether this table may be created, altered or dropped."""
        return self._has(table, "alter")

    def _has(self, table: str, right: str) -> bool:
        if self.tables is None:
            return True
        return any(grant.name == table and bool(getattr(grant, right)) for grant in self.tables)


class SyncPathGrant(_Grant):
    """Rights on one document, or on all below a prefix that ends in `*`."""

    path: str
    read_only: bool = False


class SyncGrant(_Grant):
    """Rights on documents."""

    paths: list[SyncPathGrant] | None = None

    def can_read(self, path: str) -> bool:
        """Whether this document may be opened."""
        return self.paths is None or _most_specific(self.paths, path, folders=False) is not None

    def can_write(self, path: str) -> bool:
        """Whether this document may be created and changed."""
        return self.paths is None or _allows_write(_most_specific(self.paths, path, folders=False))


class StoragePathGrant(_Grant):
    """Rights on one file, or on a folder and all below it."""

    path: str
    read_only: bool = False


class StorageGrant(_Grant):
    """Rights on the room's files."""

    paths: list[StoragePathGrant] | None = None

    def can_read(self, path: str) -> bool:
        """Whether this file may be read or this folder listed."""
        return self.paths is None or _most_specific(self.paths, path, folders=True) is not None

    def can_write(self, path: str) -> bool:
        """Whether this file may be written or deleted."""
        return self.paths is None or _allows_write(_most_specific(self.paths, path, folders=True))


class ContainersGrant(_Grant):
    """Run containers in the room."""

    logs: bool = True
    pull: list[str] | None = None
    run: list[str] | None = None
    use_containers: bool = True

    def can_pull(self, tag: str) -> bool:
        """Whether this image may be pulled."""
        return self.pull is None or _matches_any(self.pull, tag)

    def can_run(self, tag: str) -> bool:
        """Whether this image may be run."""
        return self.run is None or _matches_any(self.run, tag)


class DeveloperGrant(_Grant):
    """Write and watch the developer log."""

    logs: bool = True


class AdminGrant(_Grant):
    """Administer the room."""

    config: bool = True


class OAuthEndpoint(_Grant):
    """An OAuth client at an endpoint."""

    endpoint: str
    client_id: str


class SecretsGrant(_Grant):
    """Ask for OAuth tokens."""

    request_oauth_token: list[OAuthEndpoint] | None = None


class ApiScope(_Grant):
    """The set of grants of a token. A section that is None grants nothing."""

    livekit: LivekitGrant | None = None
    queues: QueuesGrant | None = None
    messaging: MessagingGrant | None = None
    database: DatabaseGrant | None = None
    sync: SyncGrant | None = None
    storage: StorageGrant | None = None
    containers: ContainersGrant | None = None
    developer: DeveloperGrant | None = None
    agents: AgentsGrant | None = None
    admin: AdminGrant | None = None
    secrets: SecretsGrant | None = None

    @staticmethod
    def agent_default() -> ApiScope:
        """All an agent usually needs: everything but administration and secrets."""
        return ApiScope(
            livekit=LivekitGrant(),
            queues=QueuesGrant(),
            messaging=MessagingGrant(),
            database=DatabaseGrant(),
            sync=SyncGrant(),
            storage=StorageGrant(),
            containers=ContainersGrant(),
            developer=DeveloperGrant(),
            agents=AgentsGrant(),
        )

    @staticmethod
    def full() -> ApiScope:
        """Everything."""
        return ApiScope.agent_default().model_copy(update={"admin": AdminGrant(), "secrets": SecretsGrant()})

    def to_json(self) -> dict[str, Any]:
        """The wire form: absent sections and default values are left out."""
        return self.model_dump(mode="json", exclude_none=True, exclude_defaults=True) | {
            name: section.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
            for name in type(self).model_fields
            if (section := getattr(self, name)) is not None
        }

    def intersection(self, other: ApiScope) -> ApiScope:
        """What both scopes permit. Never wider than either."""
        return ApiScope.model_validate(
            {
                name: _narrower(mine, theirs)
                for name in ApiScope.model_fields
                if (mine := getattr(self, name)) is not None and (theirs := getattr(other, name)) is not None
            }
        )


class _PathEntry(Protocol):
    # Read-only, so that a model's plain attributes satisfy it.
    @property
    def path(self) -> str: ...
    @property
    def read_only(self) -> bool: ...


_P = TypeVar("_P", bound=_PathEntry)


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]


def _entry_matches(pattern: str, path: str, *, folders: bool) -> bool:
    wanted = "/".join(_segments(path))
    if pattern.endswith("*"):
        return wanted.startswith("/".join(_segments(pattern[:-1])) + ("/" if pattern[:-1].endswith("/") else ""))
    entry = "/".join(_segments(pattern))
    return wanted == entry or (folders and (not entry or wanted.startswith(entry + "/")))


def _most_specific(entries: Iterable[_P], path: str, *, folders: bool) -> _P | None:
    matching = [entry for entry in entries if _entry_matches(entry.path, path, folders=folders)]
    # Of two equally long entries the read-only one decides: deny when in doubt.
    return max(matching, key=lambda entry: (len(entry.path.strip("/")), entry.read_only), default=None)


def _allows_write(entry: _PathEntry | None) -> bool:
    return entry is not None and not entry.read_only


def _matches_any(patterns: Sequence[str], text: str) -> bool:
    return any(text.startswith(p[:-1]) if p.endswith("*") else text == p for p in patterns)


def _narrower(mine: _Grant, theirs: _Grant) -> dict[str, Any]:
    return {name: _narrower_value(name, getattr(mine, name), getattr(theirs, name)) for name in type(mine).model_fields}


def _narrower_value(name: str, mine: Any, theirs: Any) -> Any:
    if isinstance(mine, bool):
        return mine and theirs
    if mine is None or theirs is None:
        return theirs if mine is None else mine
    if name == "paths":
        return _narrower_paths(mine, theirs)
    if name == "tables":
        return [_narrower(a, b) | {"name": a.name} for a in mine for b in theirs if a.name == b.name]
    return [item for item in mine if item in theirs]


def _narrower_paths(mine: Sequence[Any], theirs: Sequence[Any]) -> list[dict[str, Any]]:
    # Only entries that one side states and the other covers remain; read-only on either side stays read-only.
    folders = isinstance([*mine, *theirs, None][0], StoragePathGrant)
    result: dict[str, bool] = {}
    for ours, others in ((mine, theirs), (theirs, mine)):
        for entry in ours:
            cover = _most_specific(others, entry.path.removesuffix("*"), folders=folders)
            if cover is not None and _covers(cover.path, entry.path):
                result[entry.path] = entry.read_only or cover.read_only or result.get(entry.path, False)
    return [{"path": path, "read_only": read_only} for path, read_only in result.items()]


def _covers(wide: str, narrow: str) -> bool:
    if not narrow.endswith("*"):
        return True
    return (wide.endswith("*") and narrow.startswith(wide[:-1])) or (not wide.endswith("*") and wide != narrow)
