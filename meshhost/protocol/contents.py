"""Contents: the typed bodies in which SDK 0.56 carries arguments, answers and chunks of streams.

They have the form of the bodies of answers (`messages.py`), with two kinds more: `control`, which opens and closes a stream,
and `binary`, which has headers of its own beside its bytes. A content travels as a header, with its bytes as payload.
"""

from typing import Any

from meshhost.protocol.messages import Header

__all__ = ["ENDED", "OPEN", "binary", "close", "closes", "error", "is_object", "is_open", "json_content"]

ENDED = 1000
"""The status code of a stream that ended in order."""
_FAILED = 1007

OPEN: Header = {"type": "control", "method": "open"}
"""The content that opens a stream. Do not change it."""


def json_content(value: Any) -> Header:
    """Return the content that carries a JSON value."""
    return {"type": "json", "json": value}


def binary(**headers: Any) -> Header:
    """Return a content with these headers; its bytes are the payload."""
    return {"type": "binary", "headers": headers}


def error(text: str, code: int | None = None) -> Header:
    """Return the content that reports an error within a stream."""
    return {"type": "error", "text": text} | ({} if code is None else {"code": code})


def close(problem: str | None = None) -> Header:
    """Return the content that ends a stream, in order or because of a problem."""
    if problem is None:
        return {"type": "control", "method": "close", "status_code": ENDED}
    return {"type": "control", "method": "close", "status_code": _FAILED, "message": problem}


def is_open(content: Any) -> bool:
    """Return whether a content opens a stream."""
    return isinstance(content, dict) and content.get("type") == "control" and content.get("method") == "open"


def closes(content: Header) -> bool:
    """Return whether a chunk ends its side of a stream."""
    return content.get("type") == "control" and content.get("method") == "close"


def is_object(content: Any) -> bool:
    """Return whether a content is a JSON object, which tools of every client take; what is no content counts too."""
    if not isinstance(content, dict) or "type" not in content:
        return True
    return content["type"] == "json" and isinstance(content.get("json"), dict)
