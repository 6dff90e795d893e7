"""Starts the agents of the ledger again when a host starts.

Called once by the host's start-up for the agents in tasks, and once more, when the first process is up, for those in
processes. Each agent starts through `HostedAgents.resume`, without the checks for new calls. An entry that cannot live any
more (no route, expired token, room server not allowed, place taken) is dropped; one that does not fit now stays on disk.
"""

import logging
from collections.abc import Mapping, Sequence

from meshhost.errors import CallRefusedError
from meshhost.hosting.calls.admission import AllowedRooms
from meshhost.hosting.calls.hosted_agents import HostedAgents
from meshhost.hosting.calls.ledger import AgentLedger, LedgerEntry
from meshhost.hosting.calls.route import Route

__all__ = ["resume"]

logger = logging.getLogger(__name__)


async def resume(
    entries: Sequence[LedgerEntry],
    *,
    ledger: AgentLedger,
    agents: HostedAgents,
    routes: Mapping[str, Route],
    allowed: AllowedRooms,
    now: float,
) -> int:
    """Start each agent once and drop those that cannot live any more; `now` is the wall clock. Returns how many started.

    An agent that the host has no capacity for stays in the ledger. Agents of a frozen tenant start too: a freeze refuses new
    agents, and these had started before it.
    """
    started = 0
    # Newest first: if the end of an older agent could not be recorded, the agent that replaced it counts.
    for entry in reversed(entries):
        reason = _reason_to_drop(entry, routes, allowed, now)
        if reason is None:
            try:
                if agents.resume(routes[entry.path], entry):
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


def _reason_to_drop(entry: LedgerEntry, routes: Mapping[str, Route], allowed: AllowedRooms, now: float) -> str | None:
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
