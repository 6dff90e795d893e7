"""The names of `meshagent.api.participant_token`: tokens and the grants in them."""

from meshhost.identity.grants import (
    AdminGrant,
    AgentsGrant,
    ApiScope,
    ContainersGrant,
    DatabaseGrant,
    DeveloperGrant,
    LivekitGrant,
    MessagingGrant,
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
