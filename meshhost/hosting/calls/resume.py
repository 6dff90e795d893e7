"""Starts again, when a host starts, the agents that its ledger says shall live."""

import logging
from collections.abc import Mapping, Sequence

from meshhost.errors import CallRefusedError
from meshhost.hosting.calls.admission import AllowedRooms
from meshhost.hosting.calls.ledger import LedgerEntry, SpawnLedger
from meshhost.hosting.calls.spawns import Route, Spawns

__all__ = ["resume"]

logger = logging.getLogger(__name__)


async def resume(
    entries: Sequence[LedgerEntry],
    *,
    ledger: SpawnLedger,
    spawns: Spawns,
    routes: Mapping[str, Route],
    allowed: AllowedRooms,
    now: float,
) -> int:
    """Start each agent once, and forget those that cannot live any more; `now` is the wall clock. Returns how many started.

    An agent for whom there is no room now stays in the ledger. Those of a frozen tenant start as well: a freeze keeps new
    agents out, and these had started before it.
    """
    started = 0
    # Newest first: where the end of an agent could not be recorded, the one that took its place counts.
    for entry in reversed(entries):
        reason = _why_not(entry, routes, allowed, now)
        if reason is None:
            try:
                if spawns.resume(routes[entry.path], entry):
                    started += 1
                    continue
            except CallRefusedError as error:
                logger.warning("agent of the ledger cannot start now", extra=_fields(entry, str(error)))
                continue
            reason = "another agent has taken its place"
        logger.warning("agent of the ledger is dropped", extra=_fields(entry, reason))
        await ledger.drop(entry)
    if started:
        logger.info("agents of the ledger are started again", extra={"agents": started})
    return started


def _why_not(entry: LedgerEntry, routes: Mapping[str, Route], allowed: AllowedRooms, now: float) -> str | None:
    request = entry.request
    if entry.path not in routes:
        return "no agent at its path"
    if request.expires_at is not None and request.expires_at <= now:
        return "its token has expired"
    if not allowed.allow(request.room_url):
        return "this host may not dial its room server any more"
    return None


def _fields(entry: LedgerEntry, reason: str) -> dict[str, object]:
    request = entry.request
    return {
        "tenant": request.tenant,
        "room": request.room_name,
        "identity": request.identity,
        "path": entry.path,
        "reason": reason,
    }
