"""Who has asked whom: the one thing by which a participant may use what belongs to another, or act for it.

A participant asks an agent or a tool (not a person) when it sends it a message, asks it, or invokes a tool of it; a broadcast
asks nobody. Who was asked may then list and use the private toolkits of who asked it, and make requests on its behalf. A
request on somebody's behalf passes that right on to whom it is made to, so that a chain of agents can serve one user. The
messaging and the agents service note what was asked, and the agents service asks here. What is noted lives as long as the
participant that was asked: one that leaves and comes back was asked by nobody.
"""

from meshhost.errors import AccessDeniedError
from meshhost.server.core.participants import Participant
from meshhost.server.core.requests import Request
from meshhost.server.core.slots import Slot

__all__ = ["MAX_ASKERS", "behalf_of", "has_asked", "note_asked"]

MAX_ASKERS = 10_000
"""How many askers of one participant are remembered; those that asked last."""

# The ids of those that asked a participant, the latest last.
_ASKERS: Slot[dict[str, None]] = Slot(dict)


def note_asked(asked: Participant, asker_id: str) -> None:
    """Note that a participant was asked by one with this id. People are not asked: a message opens nothing to them."""
    if asked.role == "user" or asked.id == asker_id:
        return
    askers = _ASKERS.of(asked)
    askers.pop(asker_id, None)
    askers[asker_id] = None
    if len(askers) > MAX_ASKERS:
        del askers[next(iter(askers))]


def has_asked(asker_id: str, asked: Participant) -> bool:
    """Return whether a participant was asked by one with this id, which may have left since."""
    return asker_id in (_ASKERS.get(asked) or ())


def behalf_of(request: Request, claimed: str | None) -> str | None:
    """Return for whom a request is made: the claimed participant, if that is the caller itself or has asked it.

    None when it has asked, but has left since: the caller then acts as itself. Raises AccessDeniedError.
    """
    caller = request.participant
    if claimed is None or claimed == caller.id:
        return claimed
    if not has_asked(claimed, caller):
        raise AccessDeniedError(request.message.type, "on_behalf_of_id (a participant that did not ask the caller)")
    return claimed if claimed in request.room.members else None
