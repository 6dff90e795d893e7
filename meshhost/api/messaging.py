"""The bodies of `meshagent.api.messaging`."""

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
