"""The rights in a token: `ApiScope` and its sections (room-protocol §7.2).

A token carries an `ApiScope`; the room server asks its `can_*` predicates before it runs an operation. When a participant
calls an agent into the room, `ApiScope.intersection` limits the agent's scope to its own. Invariants: an absent section grants
nothing, a present one grants what its defaults say, and an intersection is never wider than either side (property tests).
The predicates are pure. They are stricter than MeshAgent's helpers where those are loose (§23.8): paths are normalised and
compared by whole segments, the most specific entry decides, and only a trailing `*` makes a prefix of anything but a folder.
How path entries are read: a trailing `*` means "all that begins with the text before it"; without one, a storage entry is
a file, or a folder and all below it, and a sync entry is exactly one document. Slashes at the ends do not count.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from meshhost.identity.spans import Span, joined, normal_path, pattern_span, prefix_span

__all__ = [
    "AdminGrant",
    "AgentsGrant",
    "ApiScope",
    "ContainersGrant",
    "DatabaseGrant",
    "DeveloperGrant",
    "LLMGrant",
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
    """Register, list, use, call and dismiss agents and toolkits.

    `dismiss` is an extension, which tokens of MeshAgent's SDK do not have; `can_dismiss` says how its absence is read.
    """

    register_agent: bool = True
    register_public_toolkit: bool = True
    register_private_toolkit: bool = True
    call: bool = True
    use_agents: bool = True
    use_tools: bool = True
    allowed_toolkits: list[str] | None = None
    dismiss: bool | None = None

    def can_dismiss(self, *, is_user: bool) -> bool:
        """Return whether agents may be told to leave; by default those who may call them may, unless they are agents."""
        return is_user and self.call if self.dismiss is None else self.dismiss

    def can_use_toolkit(self, toolkit: str) -> bool:
        """Return whether tools of this toolkit may be listed and invoked."""
        return self.use_tools and (self.allowed_toolkits is None or toolkit in self.allowed_toolkits)


class LivekitGrant(_Grant):
    """Join voice sessions."""

    breakout_rooms: list[str] | None = None

    def can_join_breakout_room(self, name: str) -> bool:
        """Return whether this breakout room may be joined."""
        return self.breakout_rooms is None or name in self.breakout_rooms


class QueuesGrant(_Grant):
    """Send to, receive from and list queues. A list of names limits; None means all."""

    send: builtins.list[str] | None = None
    receive: builtins.list[str] | None = None
    list: bool = True

    def can_send(self, queue: str) -> bool:
        """Return whether messages may be sent to this queue."""
        return self.send is None or queue in self.send

    def can_receive(self, queue: str) -> bool:
        """Return whether messages may be taken from this queue."""
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
        """Return whether rows of this table may be read."""
        return self._has(table, "read")

    def can_write(self, table: str) -> bool:
        """Return whether rows of this table may be changed."""
        return self._has(table, "write")

    def can_alter(self, table: str) -> bool:
        """Return whether this table may be created, altered or dropped."""
        return self._has(table, "alter")

    def _has(self, table: str, right: str) -> bool:
        if self.tables is None:
            return True
        return any(grant.name == table and bool(getattr(grant, right)) for grant in self.tables)


class _PathGrant(_Grant):
    path: str
    read_only: bool = False

    includes_below: ClassVar[bool]

    @property
    def span(self) -> Span:
        if self.path.endswith("*"):
            return prefix_span(joined(self.path[:-1]).lstrip("/"))
        stem = normal_path(self.path)
        if not self.includes_below:
            return Span(stem, None)
        return Span(stem, f"{stem}/" if stem else "")


class SyncPathGrant(_PathGrant):
    """Rights on one document, or on all whose path begins with what stands before a trailing `*`."""

    includes_below = False


class SyncGrant(_Grant):
    """Rights on documents."""

    paths: list[SyncPathGrant] | None = None

    def can_read(self, path: str) -> bool:
        """Return whether this document may be opened."""
        return self.paths is None or _deciding(self.paths, path) is not None

    def can_write(self, path: str) -> bool:
        """Return whether this document may be created and changed."""
        return self.paths is None or _allows_write(_deciding(self.paths, path))


class StoragePathGrant(_PathGrant):
    """Rights on a file, on a folder and all below it, or on all that begins with what stands before a trailing `*`."""

    includes_below = True


class StorageGrant(_Grant):
    """Rights on the room's files."""

    paths: list[StoragePathGrant] | None = None

    def can_read(self, path: str) -> bool:
        """Return whether this file may be read or this folder listed."""
        return self.paths is None or _deciding(self.paths, path) is not None

    def can_write(self, path: str) -> bool:
        """Return whether this file may be written or deleted."""
        return self.paths is None or _allows_write(_deciding(self.paths, path))


class ContainersGrant(_Grant):
    """Run containers in the room."""

    logs: bool = True
    pull: list[str] | None = None
    run: list[str] | None = None
    use_containers: bool = True

    def can_pull(self, tag: str) -> bool:
        """Return whether this image may be pulled."""
        return self.pull is None or _matches_any(self.pull, tag)

    def can_run(self, tag: str) -> bool:
        """Return whether this image may be run."""
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


class LLMGrant(_Grant):
    """Ask the room's LLM gateway, which uses the operator's key at a model provider."""

    use: bool = True


class ApiScope(_Grant):
    """The set of grants of a token. A section that is None grants nothing.

    `llm` is an extension, which tokens of MeshAgent's SDK do not have; `can_use_llm` says how its absence is read.
    """

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
    llm: LLMGrant | None = None

    @property
    def can_use_llm(self) -> bool:
        """Whether the LLM gateway may be asked; without an `llm` section `agents` decides, which agents of the SDK have."""
        return self.agents is not None if self.llm is None else self.llm.use

    @staticmethod
    def agent_default() -> ApiScope:
        """Return the scope that an agent usually needs: everything except administration and secrets."""
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
        """Return the scope that grants everything."""
        return ApiScope.agent_default().model_copy(update={"admin": AdminGrant(), "secrets": SecretsGrant()})

    def to_json(self) -> dict[str, Any]:
        """Return the wire form: absent sections and default values are left out."""
        return self.model_dump(mode="json", exclude_none=True, exclude_defaults=True) | {
            name: section.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
            for name in type(self).model_fields
            if (section := getattr(self, name)) is not None
        }

    def covers(self, other: ApiScope) -> bool:
        """Return whether this scope permits everything that the other permits; when in doubt, False."""
        return self.intersection(other) == other.intersection(other)

    def intersection(self, other: ApiScope) -> ApiScope:
        """Return the scope that permits what both scopes permit. It is never wider than either."""
        both: dict[str, Any] = {
            name: _narrower(mine, theirs)
            for name in ApiScope.model_fields
            if (mine := getattr(self, name)) is not None and (theirs := getattr(other, name)) is not None
        }
        # Where one side has no `llm` section, its absence means what `can_use_llm` says, so it cannot be left out.
        if (self.llm is None) != (other.llm is None):
            both["llm"] = {"use": self.can_use_llm and other.can_use_llm}
        return ApiScope.model_validate(both)


def _deciding(entries: Iterable[_PathGrant], path: str) -> _PathGrant | None:
    wanted = normal_path(path)
    # Where `.` and `..` lead is known to the file system only, so a limited grant permits no such path.
    if not {".", ".."}.isdisjoint(wanted.split("/")):
        return None
    return _most_specific(entry for entry in entries if entry.span.contains(wanted))


def _most_specific(entries: Iterable[_PathGrant]) -> _PathGrant | None:
    # Of two equally specific entries the read-only one decides: deny when in doubt.
    return max(entries, key=lambda entry: (len(entry.span.stem), entry.read_only), default=None)


def _allows_write(entry: _PathGrant | None) -> bool:
    return entry is not None and not entry.read_only


def _matches_any(patterns: Iterable[str], text: str) -> bool:
    return any(pattern_span(pattern).contains(text) for pattern in patterns)


def _narrower(mine: _Grant, theirs: _Grant) -> dict[str, Any]:
    return {name: _narrower_value(name, getattr(mine, name), getattr(theirs, name)) for name in type(mine).model_fields}


def _narrower_value(name: str, mine: Any, theirs: Any) -> Any:
    if name == "dismiss":  # unlike elsewhere, its absence permits less than True
        return False if False in (mine, theirs) else mine and theirs
    if isinstance(mine, bool):
        return mine and theirs
    if mine is None or theirs is None:
        return theirs if mine is None else mine
    match name:
        case "paths":
            return _narrower_paths(mine, theirs)
        case "tables":
            return [_narrower_table(a, b) for a in mine for b in theirs if a.name == b.name]
        case "pull" | "run":
            return list(dict.fromkeys([*_covered_patterns(mine, theirs), *_covered_patterns(theirs, mine)]))
        case _:
            return [item for item in mine if item in theirs]


def _narrower_paths(mine: Sequence[_PathGrant], theirs: Sequence[_PathGrant]) -> list[dict[str, Any]]:
    """Return the entries of each side that lie wholly within one of the other side's, read-only where either is.

    Since spans are nested or disjoint, what is dropped is about nothing that both sides permit, or is wider than an
    entry of the other side, which is kept in its place.
    """
    result: dict[str, bool] = {}
    for entries, others in ((mine, theirs), (theirs, mine)):
        for entry in entries:
            cover = _most_specific(other for other in others if other.span.covers(entry.span))
            if cover is not None:
                result[entry.path] = entry.read_only or cover.read_only or result.get(entry.path, False)
    return [{"path": path, "read_only": read_only} for path, read_only in result.items()]


def _covered_patterns(patterns: Sequence[str], others: Sequence[str]) -> list[str]:
    return [p for p in patterns if any(pattern_span(other).covers(pattern_span(p)) for other in others)]


def _narrower_table(mine: TableGrant, theirs: TableGrant) -> TableGrant:
    return TableGrant(
        name=mine.name,
        write=mine.write and theirs.write,
        read=mine.read and theirs.read,
        alter=mine.alter and theirs.alter,
    )
