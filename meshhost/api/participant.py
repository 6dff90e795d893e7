"""The names of `meshagent.api.participant`.

For MeshAgent programs, which import from this path after the package is renamed. It re-exports only: the code is in the package
that owns it. The names may grow, but none may go or move.
"""

from meshhost.room.participants import Participant

__all__ = ["Participant"]
