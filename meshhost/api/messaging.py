"""The names of `meshagent.api.messaging`: bodies of messages, and how they are packed for the wire."""

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
