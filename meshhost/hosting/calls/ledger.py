"""Which agents shall live on a host and which tenants are frozen, on disk, for when the host died or was replaced."""

import json
import logging
import sqlite3
import uuid
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from meshhost.clock import Clock
from meshhost.errors import CallRefusedError, RoomError
from meshhost.hosting.calls.admission import CallRequest
from meshhost.hosting.tenants.freezes import Freeze
from meshhost.identity.tenant import TenantId
from meshhost.stores.sqlite.file import SqliteFile
from meshhost.stores.sqlite.thread import Operation, SqliteThread
from meshhost.tasks import TaskOwner

__all__ = ["Ledger", "LedgerEntry", "SpawnLedger"]

logger = logging.getLogger(__name__)

_MIGRATIONS = resources.files("meshhost.hosting.calls") / "migrations"
RETRY_AFTER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """An agent that shall live: `id` is the ledger's own and stays the same over restarts of the host."""

    id: str
    path: str
    request: CallRequest


class Ledger:
    """The file at `path`, readable by its owner only: it holds tokens. Used from `open` to `close`, once."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._thread = SqliteThread(SqliteFile(path, migrations=_MIGRATIONS, what="host ledger"))

    def __repr__(self) -> str:
        return f"<Ledger {self._path}>"

    async def open(self) -> None:
        """Open or make the file. Raises SettingsError (also when another host uses it), OSError."""
        await self._thread.start()

    async def close(self) -> None:
        """Finish what was asked for. Again is no news."""
        await self._thread.stop()

    async def entries(self) -> list[LedgerEntry]:
        """All that shall live, oldest first. One that cannot be read is left out, and logged."""
        rows = await self._thread.run(_all)
        return [entry for row in rows if (entry := _entry(row)) is not None]

    async def put(self, entry: LedgerEntry) -> None:
        """Record the agent, or its latest call; durable when this returns. Raises OSError, RoomError."""
        await self._thread.run(_put(entry, self._clock.time()))

    async def remove(self, entry_id: str) -> None:
        """It shall not live any more. Raises OSError, RoomError."""
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


class SpawnLedger:
    """Keeps a `Ledger` for the agents of a host, by their spawn ids; and the host's `FreezeStore`.

    Operations take effect in the order in which they were asked for, also those that nobody waits for.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._ids: dict[str, str] = {}
        self._tasks = TaskOwner("ledger")
        self._is_open = False
        self._is_closing = False

    def __repr__(self) -> str:
        return f"<SpawnLedger agents={len(self._ids)} ledger={self._ledger!r}>"

    async def open(self) -> list[LedgerEntry]:
        """Open the ledger; what it says shall live. Raises SettingsError, OSError."""
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
        """As of `Ledger`."""
        await self._ledger.put_freeze(freeze)

    async def remove_freeze(self, tenant: str) -> None:
        """As of `Ledger`."""
        await self._ledger.remove_freeze(tenant)

    async def record(self, spawn_id: str, path: str, request: CallRequest) -> None:
        """Return when the agent, or its latest call, is on disk. Raises CallRefusedError (503) when it cannot be."""
        entry_id = self._ids.setdefault(spawn_id, uuid.uuid4().hex)
        try:
            await self._ledger.put(LedgerEntry(entry_id, path, request))
        except (OSError, RoomError):
            logger.exception("agent could not be recorded", extra={"spawn_id": spawn_id})
            text = "this host cannot record the call: see its log"
            raise CallRefusedError(text, status=503, retry_after=RETRY_AFTER_SECONDS) from None

    def resumed(self, spawn_id: str, entry: LedgerEntry) -> None:
        """An agent that is on disk already lives again."""
        self._ids[spawn_id] = entry.id

    async def drop(self, entry: LedgerEntry) -> None:
        """What cannot live again is forgotten. Never raises for the store's fault."""
        await self._removed(entry.id)

    def ended(self, spawn_id: str) -> None:
        """An agent ended for good: it is forgotten, unless the host is what ends."""
        entry_id = self._ids.pop(spawn_id, None)
        if entry_id is not None and not self._is_closing:
            self._tasks.spawn(self._removed(entry_id), name=f"forgets {spawn_id}")

    def freeze(self) -> None:
        """The host ends: agents that end from now on are to come back with it."""
        self._is_closing = True

    async def close(self) -> None:
        """Finish what was asked for and close the file. No effect on one that is not open."""
        self.freeze()
        if self._is_open:
            await self._tasks.wait()
            await self._ledger.close()

    async def _removed(self, entry_id: str) -> None:
        try:
            await self._ledger.remove(entry_id)
        except (OSError, RoomError):
            # The agent comes back once more with the host, and ends again.
            logger.exception("agent could not be removed from the ledger")


_Row = tuple[str, str, str]


def _all(connection: sqlite3.Connection) -> list[_Row]:
    return connection.execute("SELECT id, path, call FROM spawns ORDER BY recorded_at, rowid").fetchall()


def _put(entry: LedgerEntry, now: float) -> Operation[None]:
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

    return put


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
