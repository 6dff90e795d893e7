"""The names that MeshAgent programs import from `meshagent.api`, so that a program only has to rename the package.

Re-exports only: each module here has the names of the `meshagent.api` module of the same name, and the code lives in the
layer it belongs to. Nothing of ours imports this package.
"""

from meshhost.api.helpers import meshhost_base_url, websocket_room_url
from meshhost.api.messaging import (
    EmptyResponse,
    ErrorResponse,
    FileResponse,
    JsonResponse,
    LinkResponse,
    TextResponse,
)
from meshhost.api.participant import Participant
from meshhost.api.participant_token import ApiScope, ParticipantGrant, ParticipantToken
from meshhost.api.room_server_client import (
    AgentDescription,
    FileHandle,
    LocalParticipant,
    RemoteParticipant,
    RequiredSchema,
    RequiredToolkit,
    Requirement,
    RoomClient,
    RoomException,
    RoomMessage,
    StorageEntry,
    ToolDescription,
    ToolkitDescription,
)
from meshhost.api.schema import ChildProperty, ElementType, MeshSchema, ValueProperty
from meshhost.api.schema_document import Element, MeshDocument
from meshhost.api.websocket_protocol import WebSocketClientProtocol

__all__ = [
    "AgentDescription",
    "ApiScope",
    "ChildProperty",
    "Element",
    "ElementType",
    "EmptyResponse",
    "ErrorResponse",
    "FileHandle",
    "FileResponse",
    "JsonResponse",
    "LinkResponse",
    "LocalParticipant",
    "MeshDocument",
    "MeshSchema",
    "Participant",
    "ParticipantGrant",
    "ParticipantToken",
    "RemoteParticipant",
    "RequiredSchema",
    "RequiredToolkit",
    "Requirement",
    "RoomClient",
    "RoomException",
    "RoomMessage",
    "StorageEntry",
    "TextResponse",
    "ToolDescription",
    "ToolkitDescription",
    "ValueProperty",
    "WebSocketClientProtocol",
    "meshhost_base_url",
    "websocket_room_url",
]
