"""The ledger: which agents must live on a host, which tenants are frozen and which calls were answered, on disk.

A host that was killed or replaced reads it and starts the same agents again (`resume`). `Ledger` is the SQLite file, one
operation at a time on a thread of its own; `AgentLedger` keeps it by the ids of the live agents and is also the host's
`FreezeStore`. `HostedAgents` records each call before it is answered, and each agent's end; the host closes the ledger last.

Invariant: an agent whose call was answered with 200 is on disk. When its end cannot be recorded, it comes back once more,
which is the safe side.
"""

import contextlib
import functools
import json
import logging
import sqlite3
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from meshhost.clock import Clock
from meshhost.errors import CallRefusedError, RoomError
from meshhost.hosting.agents.assignment import CallRequest
from meshhost.hosting.calls.guard import MAX_REMEMBERED
from meshhost.hosting.refusals import RETRY_SOON_SECONDS
from meshhost.hosting.tenants.freezes import Freeze
from meshhost.identity.tenant import TenantId
from meshhost.stores.sqlite.file import SqliteFile
from meshhost.stores.sqlite.thread import Operation, SqliteThread
from meshhost.tasks import TaskOwner

__all__ = ["AgentLedger", "Ledger", "LedgerEntry"]

logger = logging.getLogger(__name__)

_MIGRATIONS = resources.files("meshhost.hosting.calls") / "migrations"


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """An agent that must live. `id` is the ledger's own and stays the same over restarts of the host."""

    id: str
    path: str
    request: CallRequest


class Ledger:
    """The file at `path`, readable by its owner only, because it holds tokens. Opened and closed once.

    It keeps the last `max_remembered` signatures of calls.
    """

    def __init__(self, path: Path, *, clock: Clock, max_remembered: int = MAX_REMEMBERED) -> None:
        self._path = path
        self._clock = clock
        self._max_remembered = max_remembered
        self._thread = SqliteThread(SqliteFile(path, migrations=_MIGRATIONS, what="host ledger"))

    def __repr__(self) -> str:
        return f"<Ledger {self._path}>"

    async def open(self) -> None:
        """Open or create the file. Raises SettingsError (also when another host uses it) and OSError."""
        await self._thread.start()

    async def close(self) -> None:
        """Finish the requested operations and close. Idempotent."""
        await self._thread.stop()

    async def entries(self) -> list[LedgerEntry]:
        """All agents that must live, oldest first. An entry that cannot be read is logged and left out."""
        rows = await self._thread.run(_all)
        return [entry for row in rows if (entry := _entry(row)) is not None]

    async def put(self, entry: LedgerEntry, signature: str | None = None) -> None:
        """Record the agent, or its latest call with its signature; durable when this returns. Raises OSError, RoomError."""
        await self._thread.run(_put(entry, self._clock.time(), signature, self._max_remembered))

    async def signatures(self) -> list[str]:
        """The ids of the signatures that are known, oldest first. Raises OSError, RoomError."""
        return await self._thread.run(_all_signatures)

    async def put_signature(self, signature: str) -> None:
        """Record the signature of a call; durable when this returns. Raises OSError, RoomError."""
        await self._thread.run(functools.partial(_put_signature, signature=signature, keep=self._max_remembered))

    async def remove(self, entry_id: str) -> None:
        """Forget the agent. Raises OSError, RoomError."""
        await self._thread.run(_remove(entry_id))

    async def freezes(self) -> list[Freeze]:
        """The tenants that are frozen, by name. Raises OSError, RoomError."""
        rows = await self._thread.run(_all_freezes)
        return [Freeze(tenant, since, reason, is_durable=True) for tenant, since, reason in rows]

    async def put_freeze(self, freeze: Freeze) -> None:
        """Record that the tenant is frozen; durable when this returns. Raises OSError, RoomError."""
        await self._thread.run(_put_freeze(freeze.tenant, freeze.since, freeze.reason))

    async def remove_freeze(self, tenant: str) -> None:
        """The tenant is not frozen any more; durable when this returns. Raises OSError, RoomError."""
        await self._thread.run(_remove_freeze(tenant))


class AgentLedger:
    """Keeps a `Ledger` by the ids of the host's agents; also the host's `FreezeStore`.

    Operations take effect in the order of the calls, also those in the background.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._ids: dict[str, str] = {}
        self._tasks = TaskOwner("ledger")
        self._is_open = False
        self._is_closing = False

    def __repr__(self) -> str:
        return f"<AgentLedger agents={len(self._ids)} ledger={self._ledger!r}>"

    async def open(self) -> list[LedgerEntry]:
        """Open the ledger and return its entries. Raises SettingsError, OSError."""
        await self._ledger.open()
        self._is_open = True
        try:
            return await self._ledger.entries()
        except BaseException:
            await self.close()
            raise

    async def freezes(self) -> list[Freeze]:
        """The tenants that are frozen. Raises OSError, RoomError."""
        return await self._ledger.freezes()

    async def put_freeze(self, freeze: Freeze) -> None:
        """See `Ledger`."""
        await self._ledger.put_freeze(freeze)

    async def remove_freeze(self, tenant: str) -> None:
        """See `Ledger`."""
        await self._ledger.remove_freeze(tenant)

    async def signatures(self) -> list[str]:
        """The ids of the signatures of earlier calls, oldest first. Raises OSError, RoomError."""
        return await self._ledger.signatures()

    async def record(self, agent_id: str, path: str, request: CallRequest, signature: str | None = None) -> None:
        """Record the agent, or its latest call with its signature; durable when this returns.

        Raises CallRefusedError (503) when that fails.
        """
        entry_id = self._ids.setdefault(agent_id, uuid.uuid4().hex)
        await self._recorded(self._ledger.put(LedgerEntry(entry_id, path, request), signature), agent_id)

    def record_later(self, agent_id: str, path: str, request: CallRequest) -> None:
        """Record an agent in the background; a failure is logged."""
        self._tasks.spawn(self._record_or_log(agent_id, path, request), name=f"records {agent_id}")

    async def record_signature(self, signature: str) -> None:
        """Record the signature of a call that needs no entry; durable when this returns. Raises CallRefusedError (503)."""
        await self._recorded(self._ledger.put_signature(signature))

    async def _record_or_log(self, agent_id: str, path: str, request: CallRequest) -> None:
        with contextlib.suppress(CallRefusedError):  # logged already
            await self.record(agent_id, path, request)

    async def _recorded(self, writing: Awaitable[None], agent_id: str | None = None) -> None:
        try:
            await writing
        except (OSError, RoomError):
            logger.exception("agent could not be recorded", extra={"spawn_id": agent_id})
            text = "this host cannot record the call: see its log"
            raise CallRefusedError(text, status=503, retry_after=RETRY_SOON_SECONDS) from None

    def resumed(self, agent_id: str, entry: LedgerEntry) -> None:
        """An agent of the ledger was started again."""
        self._ids[agent_id] = entry.id

    async def drop(self, entry: LedgerEntry) -> None:
        """Forget an agent that cannot be started again. Never raises for a fault of the store."""
        await self._removed(entry.id)

    def ended(self, agent_id: str) -> None:
        """Forget an agent that ended for good, unless it ended because the host ends."""
        entry_id = self._ids.pop(agent_id, None)
        if entry_id is not None and not self._is_closing:
            self._tasks.spawn(self._removed(entry_id), name=f"forgets {agent_id}")

    def freeze(self) -> None:
        """The host ends: agents that end from now on stay recorded, to be started again with it."""
        self._is_closing = True

    async def close(self) -> None:
        """Finish the requested operations and close the file. No effect when it is not open."""
        self.freeze()
        if self._is_open:
            await self._tasks.wait()
            await self._ledger.close()

    async def _removed(self, entry_id: str) -> None:
        try:
            await self._ledger.remove(entry_id)
        except (OSError, RoomError):
            # The agent is started once more with the next host, and ends again.
            logger.exception("agent could not be removed from the ledger")


_Row = tuple[str, str, str]


def _all(connection: sqlite3.Connection) -> list[_Row]:
    return connection.execute("SELECT id, path, call FROM spawns ORDER BY recorded_at, rowid").fetchall()


def _put(entry: LedgerEntry, now: float, signature: str | None = None, keep: int = MAX_REMEMBERED) -> Operation[None]:
    request = entry.request
    call = {
        "tenant": request.tenant,
        "room_name": request.room_name,
        "room_url": request.room_url,
        "identity": request.identity,
        "arguments": dict(request.arguments),
        "expires_at": request.expires_at,
        "token": request.token,
    }
    key = (request.tenant, request.room_name, entry.path, request.identity)
    row = (entry.id, *key, json.dumps(call), request.expires_at, now)

    def put(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO spawns (id, tenant, room, path, identity, call, expires_at, recorded_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET call = excluded.call, expires_at = excluded.expires_at",
            row,
        )
        if signature is not None:
            _put_signature(connection, signature, keep)

    return put


def _all_signatures(connection: sqlite3.Connection) -> list[str]:
    return [signature for (signature,) in connection.execute("SELECT id FROM signatures ORDER BY number")]


def _put_signature(connection: sqlite3.Connection, signature: str, keep: int) -> None:
    added = connection.execute("INSERT OR IGNORE INTO signatures (id) VALUES (?)", (signature,))
    if added.rowcount:
        connection.execute("DELETE FROM signatures WHERE number <= ?", ((added.lastrowid or 0) - keep,))


def _remove(entry_id: str) -> Operation[None]:
    def remove(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM spawns WHERE id = ?", (entry_id,))

    return remove


def _all_freezes(connection: sqlite3.Connection) -> list[tuple[str, float, str]]:
    return connection.execute("SELECT tenant, since, reason FROM freezes ORDER BY tenant").fetchall()


def _put_freeze(*row: object) -> Operation[None]:
    def put(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR REPLACE INTO freezes (tenant, since, reason) VALUES (?, ?, ?)", row)

    return put


def _remove_freeze(tenant: str) -> Operation[None]:
    def remove(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM freezes WHERE tenant = ?", (tenant,))

    return remove


def _entry(row: _Row) -> LedgerEntry | None:
    entry_id, path, text = row
    try:
        call = json.loads(text)
        request = CallRequest(**{**call, "tenant": TenantId(call["tenant"])})
    except (ValueError, TypeError, KeyError):
        logger.warning("entry of the ledger cannot be read", extra={"path": path})
        return None
    return LedgerEntry(entry_id, path, request)
