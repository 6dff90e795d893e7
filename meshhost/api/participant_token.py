"""The names of `meshagent.api.participant_token`: tokens and the grants in them.

For MeshAgent programs, which import from this path after the package is renamed. It re-exports only: the code is in the package
that owns it. The names may grow, but none may go or move.
"""

from meshhost.identity.grants import (
    AdminGrant,
    AgentsGrant,
    ApiScope,
    ContainersGrant,
    DatabaseGrant,
    DeveloperGrant,
    LivekitGrant,
    MessagingGrant,
    OAuthEndpoint,
    QueuesGrant,
    SecretsGrant,
    StorageGrant,
    StoragePathGrant,
    SyncGrant,
    SyncPathGrant,
    TableGrant,
)
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken

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
    "ParticipantGrant",
    "ParticipantToken",
    "QueuesGrant",
    "SecretsGrant",
    "StorageGrant",
    "StoragePathGrant",
    "SyncGrant",
    "SyncPathGrant",
    "TableGrant",
]
