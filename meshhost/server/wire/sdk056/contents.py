"""Contents: the typed bodies in which SDK 0.56 carries arguments, answers and chunks.

They have the form of the bodies of answers (`protocol.messages`), with two kinds more: `control`, which opens and closes a
stream, and `binary`, which has headers of its own beside its bytes. A content travels as a header, with its bytes as payload.
"""

from typing import Any

from meshhost.errors import InvalidRequestError, RoomError
from meshhost.protocol.messages import EmptyResponse, Header, Response
from meshhost.server.core.peer import Event

__all__ = ["CHUNK", "ENDED", "OPENED", "arguments_of", "binary", "chunk", "close", "error", "is_open", "json_content"]

CHUNK = "room.tool_call_response_chunk"
"""The type of the message that carries a chunk to the client."""

ENDED = 1000
"""The status code of a stream that ended in order."""
_FAILED = 1007

OPENED: tuple[Response, Header] = (EmptyResponse(), {"type": "control", "method": "open"})
"""The answer to a request that opened a stream: its members replace those of the empty body."""


def json_content(value: Any) -> Header:
    """Return the content that carries a JSON value."""
    return {"type": "json", "json": value}


def binary(**headers: Any) -> Header:
    """Return a content with these headers; its bytes are the payload."""
    return {"type": "binary", "headers": headers}


def error(problem: RoomError) -> Header:
    """Return the content that reports an error within a stream."""
    return {"type": "error", "text": str(problem), "code": problem.code}


def close(problem: RoomError | None = None) -> Header:
    """Return the content that ends a stream, in order or because of an error."""
    if problem is None:
        return {"type": "control", "method": "close", "status_code": ENDED}
    return {"type": "control", "method": "close", "status_code": _FAILED, "message": str(problem)}


def chunk(call: str, content: Header, payload: bytes = b"") -> Event:
    """Return the event that carries a chunk of the stream of this call."""
    return Event(CHUNK, {"tool_call_id": call, "chunk": content}, payload)


def is_open(content: Any) -> bool:
    """Whether the arguments of a call are a stream of chunks."""
    return isinstance(content, dict) and content.get("type") == "control" and content.get("method") == "open"


def arguments_of(content: Any) -> Header:
    """Return the arguments that a content carries. Raises InvalidRequestError for one that is no JSON object."""
    if content is None or (isinstance(content, dict) and content.get("type") == "empty"):
        return {}
    if isinstance(content, dict):
        if content.get("type") == "json" and isinstance(content.get("json"), dict):
            return dict(content["json"])
        if "type" not in content:  # early releases put them there as they are
            return dict(content)
    raise InvalidRequestError("arguments", "expected a JSON object: this tool takes no other content")
