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

# From 0.20 on a body is called content, and a chunk where it is part of a stream; requests have the same forms.
Content = Response
EmptyContent = EmptyResponse
ErrorContent = ErrorResponse
FileContent = FileResponse
JsonContent = JsonResponse
LinkContent = LinkResponse
TextContent = TextResponse
EmptyChunk = EmptyResponse
ErrorChunk = ErrorResponse
FileChunk = FileResponse
JsonChunk = JsonResponse
LinkChunk = LinkResponse
TextChunk = TextResponse
FileRequest = FileResponse
JsonRequest = JsonResponse
LinkRequest = LinkResponse
TextRequest = TextResponse

__all__ = [
    "Content",
    "EmptyChunk",
    "EmptyContent",
    "EmptyResponse",
    "ErrorChunk",
    "ErrorContent",
    "ErrorResponse",
    "FileChunk",
    "FileContent",
    "FileRequest",
    "FileResponse",
    "JsonChunk",
    "JsonContent",
    "JsonRequest",
    "JsonResponse",
    "LinkChunk",
    "LinkContent",
    "LinkRequest",
    "LinkResponse",
    "Response",
    "TextChunk",
    "TextContent",
    "TextRequest",
    "TextResponse",
    "ensure_response",
    "pack_message",
    "unpack_message",
    "unpack_response",
]
