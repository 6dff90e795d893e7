"""The names of `meshagent.api.room_server_client`: the room client, with MeshAgent's names where ours differ.

For MeshAgent programs, which import from this path after the package is renamed. It re-exports only: the code is in the package
that owns it. The names may grow, but none may go or move.
"""

from meshhost.documents.document import MeshDocument
from meshhost.errors import AccessDeniedError as RoomAccessDeniedException
from meshhost.errors import RoomError as RoomException
from meshhost.room.client import RoomClient
from meshhost.room.participants import LocalParticipant, Participant, RemoteParticipant
from meshhost.room.requirements import RequiredSchema, RequiredToolkit, Requirement
from meshhost.room.services.agents import AgentDescription, AgentsClient, ToolDescription, ToolkitDescription
from meshhost.room.services.developer import DeveloperClient
from meshhost.room.services.livekit import LivekitClient, LivekitConnectionInfo
from meshhost.room.services.messaging import MessagingClient, RoomMessage
from meshhost.room.services.queues import LeasedMessage, Queue, QueuesClient
from meshhost.room.services.storage import FileHandle, StorageClient, StorageEntry
from meshhost.room.services.sync import SyncClient
from meshhost.room.services.tables.data_types import (
    BinaryDataType,
    BoolDataType,
    DataType,
    DateDataType,
    FloatDataType,
    IntDataType,
    TextDataType,
    TimestampDataType,
    VectorDataType,
)
from meshhost.room.services.tables.database import CreateMode, DatabaseClient, TableIndex, TableVersion

__all__ = [
    "AgentDescription",
    "AgentsClient",
    "BinaryDataType",
    "BoolDataType",
    "CreateMode",
    "DataType",
    "DatabaseClient",
    "DateDataType",
    "DeveloperClient",
    "FileHandle",
    "FloatDataType",
    "IntDataType",
    "LeasedMessage",
    "LivekitClient",
    "LivekitConnectionInfo",
    "LocalParticipant",
    "MeshDocument",
    "MessagingClient",
    "Participant",
    "Queue",
    "QueuesClient",
    "RemoteParticipant",
    "RequiredSchema",
    "RequiredToolkit",
    "Requirement",
    "RoomAccessDeniedException",
    "RoomClient",
    "RoomException",
    "RoomMessage",
    "StorageClient",
    "StorageEntry",
    "SyncClient",
    "TableIndex",
    "TableVersion",
    "TextDataType",
    "TimestampDataType",
    "ToolDescription",
    "ToolkitDescription",
    "VectorDataType",
]
