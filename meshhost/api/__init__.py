"""The names that MeshAgent programs import from `meshagent.api`, so that a program only has to rename the package.

Re-exports only: each module here has the names of the `meshagent.api` module of the same name, and the code lives in the
layer it belongs to. Nothing of ours imports this package.
"""

from meshhost.agents.writer.schema_registry import SchemaRegistration, SchemaRegistry
from meshhost.api import helpers
from meshhost.api.client import Meshagent
from meshhost.api.helpers import deploy_schema, meshhost_base_url, participant_token, websocket_room_url
from meshhost.api.messaging import (
    EmptyChunk,
    EmptyContent,
    EmptyResponse,
    ErrorChunk,
    ErrorContent,
    ErrorResponse,
    FileChunk,
    FileContent,
    FileResponse,
    JsonChunk,
    JsonContent,
    JsonResponse,
    LinkChunk,
    LinkContent,
    LinkResponse,
    TextChunk,
    TextContent,
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
from meshhost.api.webhooks import CallEvent, RoomEndedEvent, RoomStartedEvent, WebhookServer
from meshhost.api.websocket_protocol import WebSocketClientProtocol

__all__ = [
    "AgentDescription",
    "ApiScope",
    "CallEvent",
    "ChildProperty",
    "Element",
    "ElementType",
    "EmptyChunk",
    "EmptyContent",
    "EmptyResponse",
    "ErrorChunk",
    "ErrorContent",
    "ErrorResponse",
    "FileChunk",
    "FileContent",
    "FileHandle",
    "FileResponse",
    "JsonChunk",
    "JsonContent",
    "JsonResponse",
    "LinkChunk",
    "LinkContent",
    "LinkResponse",
    "LocalParticipant",
    "MeshDocument",
    "MeshSchema",
    "Meshagent",
    "Participant",
    "ParticipantGrant",
    "ParticipantToken",
    "RemoteParticipant",
    "RequiredSchema",
    "RequiredToolkit",
    "Requirement",
    "RoomClient",
    "RoomEndedEvent",
    "RoomException",
    "RoomMessage",
    "RoomStartedEvent",
    "SchemaRegistration",
    "SchemaRegistry",
    "StorageEntry",
    "TextChunk",
    "TextContent",
    "TextResponse",
    "ToolDescription",
    "ToolkitDescription",
    "ValueProperty",
    "WebSocketClientProtocol",
    "WebhookServer",
    "deploy_schema",
    "meshhost_base_url",
    "participant_token",
    "websocket_protocol",
    "websocket_room_url",
]

# A function and a module have this name in MeshAgent: `from meshagent.api import websocket_protocol` is the function, and
# `from meshagent.api.websocket_protocol import …` reads the module, which Python finds by its full name.
websocket_protocol = helpers.websocket_protocol
