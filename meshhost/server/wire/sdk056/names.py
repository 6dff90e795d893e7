"""Which operation of the server each built-in tool of SDK 0.56 is, and what this server does not have.

A tool is answered by the operation of the table, with the tool's arguments as the operation's header; `REWRITTEN` has those
whose arguments differ. Tools that stream are requests with chunks (`streams.py`).
"""

import base64
import binascii
from collections.abc import Callable, Mapping

from meshhost.errors import InvalidRequestError
from meshhost.protocol.json_values import has_few_parts, load_json
from meshhost.protocol.messages import Header

__all__ = ["ABSENT", "EMPTY_ANSWERS", "MESSAGES", "REWRITTEN", "STREAMED", "TOOLKITS", "rewritten"]

_TOOLS: Mapping[str, Mapping[str, str]] = {
    "queues": {name: f"queues.{name}" for name in ("list", "open", "send", "receive", "drain", "close")},
    "storage": {name: f"storage.{name}" for name in ("exists", "stat", "list", "download_url", "delete", "move")},
    "messaging": {name: f"messaging.{name}" for name in ("enable", "disable", "send", "broadcast")},
    "developer": dict.fromkeys(("log", "info", "warning", "error"), "developer.log"),
    "sync": {"create": "document.create", "describe": "sync.describe"},
    "livekit": {"connect": "livekit.connect"},
}
TOOLKITS: Mapping[str, Mapping[str, str]] = _TOOLS
"""The operation of each tool, by toolkit and tool."""

STREAMED: Mapping[tuple[str, str], str] = {
    ("storage", "upload"): "upload",
    ("storage", "download"): "download",
    ("sync", "open"): "document",
    ("developer", "logs"): "logs",
}
"""The kind of stream of each tool that is called with one."""

MESSAGES = ("messaging", "stream")
"""The tool that is called with a stream which another participant takes."""

ABSENT = frozenset(
    {"agents", "containers", "database", "dataset", "memory", "mounts", "secrets", "services", "sqlite", "tunnels"}
)
"""Built-in toolkits of MeshAgent that this server does not have."""

EMPTY_ANSWERS = frozenset({"queues.open", "queues.send", "queues.drain", "queues.close"})
"""Operations whose answer these clients accept only if it is empty."""

# Of a message's JSON, as of a header.
_MOST_PARTS = 200_000

# Header and payload of the operation, from the tool's name, its arguments and the payload.
Rewrite = Callable[[str, Header, bytes], tuple[Header, bytes]]


def rewritten(tool: str, operation: str, arguments: Header, payload: bytes) -> tuple[Header, bytes]:
    """Return header and payload of an operation. Raises InvalidRequestError for arguments that cannot be read."""
    rewrite = REWRITTEN.get(operation)
    return (arguments, payload) if rewrite is None else rewrite(tool, arguments, payload)


def _message(_: str, arguments: Header, payload: bytes) -> tuple[Header, bytes]:
    header = dict(arguments)
    text, attachment = header.pop("message_json", None), header.pop("attachment_base64", None)
    if text is not None:
        header["message"] = _message_in(text)
    if attachment is not None:
        try:
            payload = base64.b64decode(attachment, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise InvalidRequestError("attachment_base64", "expected base64") from None
    return header, payload


def _message_in(text: object) -> Header:
    # The text was one part of the header that carried it, however many parts it has itself.
    if not isinstance(text, str) or not has_few_parts(text.encode(errors="surrogatepass"), most=_MOST_PARTS):
        raise InvalidRequestError("message_json", f"expected a JSON object of at most {_MOST_PARTS} parts, as text")
    try:
        message = load_json(text)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise InvalidRequestError("message_json", "expected a JSON object as text")
    return message


def _log(tool: str, arguments: Header, payload: bytes) -> tuple[Header, bytes]:
    if tool == "log":
        return arguments, payload
    message, extra = arguments.get("message"), arguments.get("extra")
    if not isinstance(message, str):
        raise InvalidRequestError("message", "expected a text")
    if extra is not None and not isinstance(extra, dict):
        raise InvalidRequestError("extra", "expected a JSON object")
    return {"type": tool, "data": {"message": message, **(extra or {})}}, payload


REWRITTEN: Mapping[str, Rewrite] = {
    "messaging.send": _message,
    "messaging.broadcast": _message,
    "developer.log": _log,
}
"""How arguments are rewritten, by operation."""
