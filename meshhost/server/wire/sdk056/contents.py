"""What contents (`protocol.contents`) are in the server's words: arguments, answers and events."""

from typing import Any

from meshhost.errors import InvalidRequestError
from meshhost.protocol import contents
from meshhost.protocol.messages import EmptyResponse, Header, Response
from meshhost.server.core.peer import Event

__all__ = ["CHUNK", "OPENED", "arguments_of", "chunk"]

CHUNK = "room.tool_call_response_chunk"
"""The type of the message that carries a chunk to the client."""

OPENED: tuple[Response, Header] = (EmptyResponse(), contents.OPEN)
"""The answer to a request that opened a stream: its members replace those of the empty body."""


def chunk(call: str, content: Header, payload: bytes = b"") -> Event:
    """Return the event that carries a chunk of the stream of this call."""
    return Event(CHUNK, {"tool_call_id": call, "chunk": content}, payload)


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
