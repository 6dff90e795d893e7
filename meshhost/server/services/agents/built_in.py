"""What MeshAgent's programs take for granted in every room: schemas, and agents and toolkits that come when they are wanted.

An agent of the SDK that requires a schema or a toolkit calls for it with `agent.call` at an address on port 8080 (room-protocol
§11.6). Schemas are stored in the room, for callers that may read, or write, them as files: to call is no way around the grant
for files. Agents and toolkits are called into the room when somebody calls for them, asks them or invokes their tools, and end
when they were idle for a while; what a toolkit offers is still listed then.

A built-in agent works with rights of its own, and for everybody in the room. So before a request is passed on to one, `check`
asks whether the caller itself may do what it would have done: read that file, write that document.
"""

import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from meshhost.documents.shipped_schemas import SHIPPED_SCHEMAS
from meshhost.errors import AccessDeniedError, AlreadyExistsError, InvalidRequestError
from meshhost.identity.grants import (
    AgentsGrant,
    ApiScope,
    DeveloperGrant,
    StorageGrant,
    StoragePathGrant,
    SyncGrant,
)
from meshhost.identity.tenant import RoomKey
from meshhost.server.core.participants import Participant
from meshhost.server.core.room import Room
from meshhost.server.core.slots import Slot
from meshhost.server.services.agents.registry import Registered
from meshhost.stores.files import RoomFiles, clean_path

__all__ = ["Bring", "BuiltIns", "built_in_name", "provide_schema"]

# Calls a built-in agent into a room: room, identity, path, scope, the mark of its token. Raises ToolError.
Bring = Callable[[Room, str, str, ApiScope, str], Awaitable[None]]

ARRIVAL_SECONDS = 30.0
_MARK = "built-in:"
# By MeshAgent's convention, and where its documentation calls built-in agents.
_ADDRESS = re.compile(r"(?:http://localhost:8080|https://api\.meshagent\.(?:com|life))/(schemas|toolkits|agents)/(.+)")
_PREFIXES = ("meshhost.", "meshagent.")

May = Callable[[ApiScope, str, dict[str, Any]], bool]


def _anything(scope: ApiScope, tool: str, arguments: dict[str, Any]) -> bool:
    return True


def _may_write_document(scope: ApiScope, tool: str, arguments: dict[str, Any]) -> bool:
    return scope.sync is not None and scope.sync.can_write(_path(arguments))


def _may_convert(scope: ApiScope, tool: str, arguments: dict[str, Any]) -> bool:
    if tool != "markitdown_from_file":
        return True
    return scope.storage is not None and scope.storage.can_read(_path(arguments))


def _may_store(scope: ApiScope, tool: str, arguments: dict[str, Any]) -> bool:
    if scope.storage is None:
        return False
    path = _path(arguments)
    return scope.storage.can_read(path) if tool in _READING else scope.storage.can_write(path)


_READING = frozenset({"read_file", "list_files_in_room", "get_file_download_url"})


def _path(arguments: dict[str, Any]) -> str:
    path = arguments.get("path")
    if not isinstance(path, str):
        raise InvalidRequestError("path", "expected a text")
    return clean_path(path) if path.strip("/") else ""


_AGENT = AgentsGrant(register_agent=True, register_public_toolkit=False, register_private_toolkit=False, call=False)
_TOOLKIT = AgentsGrant(register_agent=False, register_public_toolkit=True, register_private_toolkit=False, call=False)


@dataclass(frozen=True, slots=True)
class _BuiltIn:
    """The path at which it is called, what its token grants, and what a caller must be allowed itself."""

    path: str
    scope: ApiScope
    may: May = _anything
    title: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def is_agent(self) -> bool:
        return bool(self.arguments)


_AGENTS = {
    "planner": _BuiltIn(
        "/planner", ApiScope(agents=_AGENT, developer=DeveloperGrant()), title="Planner", arguments=("prompt",)
    ),
    "schema_planner": _BuiltIn(
        "/schema_planner",
        ApiScope(agents=_AGENT, developer=DeveloperGrant()),
        title="Schema planner",
        arguments=("prompt", "output_schema"),
    ),
    "document-writer": _BuiltIn(
        "/document-writer",
        ApiScope(agents=_AGENT, developer=DeveloperGrant(), sync=SyncGrant()),
        _may_write_document,
        title="Document writer",
        arguments=("prompt", "path"),
    ),
}
_TOOLKITS = {
    "markitdown": _BuiltIn(
        "/markitdown",
        ApiScope(agents=_TOOLKIT, storage=StorageGrant(paths=[StoragePathGrant(path="", read_only=True)])),
        _may_convert,
    ),
    "storage": _BuiltIn("/storage", ApiScope(agents=_TOOLKIT, storage=StorageGrant()), _may_store),
}
_ALL = {**_AGENTS, **_TOOLKITS, "document_writer": _AGENTS["document-writer"]}
_BY_MARK = {f"{_MARK}{each.path}": each for each in _ALL.values()}


@dataclass(slots=True)
class _InRoom:
    """When each was called last (monotonic), and the toolkits that were there once, by name."""

    called: dict[str, float] = field(default_factory=dict)
    toolkits: dict[str, Registered] = field(default_factory=dict)


class BuiltIns:
    """The built-in agents of all rooms of a server. Without `bring` there are none."""

    def __init__(self, bring: Bring | None) -> None:
        self._bring = bring
        self._rooms = Slot(_InRoom)

    async def call(self, room: Room, name: str, *, by_address: bool = False) -> bool:
        """Call what has this name into the room, unless it was called a moment ago; whether it is one. Raises ToolError.

        The names begin with `meshhost.` or `meshagent.`; `by_address` also plain ones count, and afterwards in this room.
        """
        if self._bring is None:
            return False
        mine = self._rooms.get(room)
        found = _find(name, plain=by_address or (mine is not None and name in mine.toolkits))
        if found is None:
            return False
        if not self.is_coming(room, name):
            mine = self._rooms.of(room)
            mine.called[name] = time.monotonic()
            try:
                await self._bring(room, name, found.path, found.scope, f"{_MARK}{found.path}")
            except BaseException:
                mine.called.pop(name, None)
                raise
        return True

    def is_coming(self, room: Room, name: str | None) -> bool:
        """Whether it was called and may still join."""
        mine = self._rooms.get(room)
        called = None if mine is None or name is None else mine.called.get(name)
        return called is not None and time.monotonic() - called < ARRIVAL_SECONDS

    def registered(self, room: Room, entry: Registered) -> None:
        """A toolkit, or an agent, was registered: it is no longer on its way, and a toolkit is listed from now on."""
        if entry.participant.asked_at in _BY_MARK:
            mine = self._rooms.of(room)
            mine.called.pop(entry.name, None)
            if "tools" in entry.description:
                mine.toolkits[entry.name] = entry

    def resting(self, room: Room, caller: Participant, present: Iterable[str]) -> list[Registered]:
        """The toolkits that were in the room, are not `present` now, and come again when this caller invokes them."""
        mine, agents = self._rooms.get(room), caller.scope.agents
        if mine is None or agents is None:
            return []
        there = set(present)
        return [entry for name, entry in mine.toolkits.items() if name not in there and agents.can_use_toolkit(name)]

    def agents_of_sdk(self, present: Iterable[str]) -> list[dict[str, Any]]:
        """The descriptions of the agents, for clients of MeshAgent, which look for them in the list before they ask."""
        if self._bring is None:
            return []
        there = set(present)
        names = {f"meshagent.{name}": agent for name, agent in _AGENTS.items()}
        return [_card(name, agent) for name, agent in names.items() if name not in there]

    @staticmethod
    def check(request_scope: ApiScope, provider: Participant, tool: str, arguments: dict[str, Any]) -> None:
        """Raise AccessDeniedError when a built-in agent would do for its caller what the caller itself may not do."""
        found = _BY_MARK.get(provider.asked_at or "")
        if found is not None and not found.may(request_scope, tool, arguments):
            raise AccessDeniedError(f"{provider.name} {tool}".strip(), str(arguments.get("path", "")))


def _find(name: str, *, plain: bool) -> _BuiltIn | None:
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
    if prefix is None:
        return _ALL.get(name) if plain else None
    return _ALL.get(name.removeprefix(prefix))


def _card(name: str, agent: _BuiltIn) -> dict[str, Any]:
    kinds = {"output_schema": "object"}
    return {
        "name": name,
        "title": agent.title,
        "description": "",
        "input_schema": {
            "type": "object",
            "additionalProperties": False,
            "required": list(agent.arguments),
            "properties": {argument: {"type": kinds.get(argument, "string")} for argument in agent.arguments},
        },
        "output_schema": None,
        "requires": [],
        "supports_tools": True,
        "labels": [],
    }


def built_in_name(url: str) -> tuple[str, str] | None:
    """The kind (`schemas`, `toolkits` or `agents`) and name that a URL asks for; None for an address elsewhere."""
    found = _ADDRESS.fullmatch(url)
    return None if found is None else (found[1], found[2])


async def provide_schema(files: RoomFiles, room: RoomKey, name: str, scope: ApiScope) -> bool:
    """Whether the room has this schema now, for who may read it; those that we ship are stored by who may write them."""
    path, storage = clean_path(f".schemas/{name}.json"), scope.storage
    if storage is None or not storage.can_read(path):
        return False
    if await files.stat(room, path) is not None:
        return True
    if name not in SHIPPED_SCHEMAS or not storage.can_write(path):
        return False
    with suppress(AlreadyExistsError):  # another agent was faster
        schema = BytesIO(json.dumps(SHIPPED_SCHEMAS[name].to_json()).encode())
        await files.write(room, path, schema, overwrite=False)
    return True
