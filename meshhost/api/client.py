"""The names of `meshagent.api.client`: a client of the REST API.

For MeshAgent programs, which import from this path after the package is renamed. It re-exports only: the code is in the package
that owns it. The names may grow, but none may go or move.
"""

from meshhost.elsewhere import names_elsewhere
from meshhost.rest.client import Meshagent, NotFoundError, RestError
from meshhost.rest.models import KeysSecret, Mailbox, PullSecret, Room, RoomConnectionInfo, RoomSession

__all__ = [
    "KeysSecret",
    "Mailbox",
    "Meshagent",
    "NotFoundError",
    "PullSecret",
    "RestError",
    "Room",
    "RoomConnectionInfo",
    "RoomSession",
]

_NO_ACCOUNTS = "meshhost has no accounts of people and services: what a participant may do is in its token"
__getattr__ = names_elsewhere(
    __name__,
    {},
    {
        "AccessSubject": _NO_ACCOUNTS,
        "OAuthClient": _NO_ACCOUNTS,
        "ProjectRoomGrant": _NO_ACCOUNTS,
        "ServiceAccount": _NO_ACCOUNTS,
    },
)
