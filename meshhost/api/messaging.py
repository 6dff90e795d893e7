"""The names of `meshagent.api.messaging`: bodies of messages, and how they are packed for the wire.

For MeshAgent programs, which import from this path after the package is renamed. It re-exports only: the code is in the package
that owns it. The names may grow, but none may go or move.
"""

from meshhost.protocol.messages import (
    EmptyResponse,
    ErrorResponse,
    FileResponse,
    JsonResponse,
    LinkResponse,
    Response,
    TextResponse,
    ensure_response,
    pack_message,
    unpack_message,
    unpack_response,
)

__all__ = [
    "EmptyResponse",
    "ErrorResponse",
    "FileResponse",
    "JsonResponse",
    "LinkResponse",
    "Response",
    "TextResponse",
    "ensure_response",
    "pack_message",
    "unpack_message",
    "unpack_response",
]
