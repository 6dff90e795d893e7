"""JSON-RPC as MCP sends it over HTTP, and the checks by which its two generations of requests are told apart.

Until 2025-11-25 a client begins with `initialize` and may have a session. From 2026-07-28 on every request stands alone: it
carries version and capabilities in `params._meta`, and headers repeat version, method and the tool's name, so that a proxy can
route without reading bodies; where the two disagree, the request is refused. Which generation a request belongs to is told by
the header and the members, never by what came before. Pure: no I/O.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from meshhost.protocol.json_values import load_json

__all__ = [
    "CAPABILITIES_META",
    "HEADER_MISMATCH",
    "INTERNAL",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "SERVER_META",
    "SESSIONS",
    "STATELESS",
    "SUBSCRIPTION_META",
    "VERSION_META",
    "Message",
    "RpcError",
    "error_message",
    "is_stateless",
    "message_in",
    "param_headers",
    "result_message",
    "stateless_version",
]

# Versions with `initialize`, the newest last; a client that asks for another one gets the newest.
SESSIONS = ("2025-03-26", "2025-06-18", "2025-11-25")
STATELESS = ("2026-07-28",)

PARSE = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL = -32603
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022
_STATUS = {METHOD_NOT_FOUND: 404, INTERNAL: 200}

_META = "io.modelcontextprotocol/"
VERSION_META = f"{_META}protocolVersion"
CAPABILITIES_META = f"{_META}clientCapabilities"
SERVER_META = f"{_META}serverInfo"
SUBSCRIPTION_META = f"{_META}subscriptionId"

VERSION_HEADER = "MCP-Protocol-Version"
_METHOD_HEADER = "Mcp-Method"
_NAME_HEADER = "Mcp-Name"
_PARAM_HEADER = "mcp-param-"
_ENCODED = re.compile(r"=\?base64\?(?P<text>[A-Za-z0-9+/=]*)\?=")
# How deep in arguments a header may repeat one.
_DEEPEST = 20
_NUMBER = re.compile(r"-?[0-9]+(\.0+)?")


class RpcError(Exception):
    """A request is answered with an error of JSON-RPC. `status` is its HTTP status for a client without a session."""

    def __init__(self, code: int, text: str, data: Any = None) -> None:
        super().__init__(text)
        self.code = code
        self.data = data

    @property
    def status(self) -> int:
        """The HTTP status that the stateless generation has for it; the other one answers 200 once a request was read."""
        return _STATUS.get(self.code, 400)


@dataclass(frozen=True, slots=True)
class Message:
    """One request, or with `id` None a notification or an answer, which get no answer."""

    method: str
    id: str | int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def meta(self) -> Mapping[str, Any]:
        """What travels beside the parameters; empty when it is absent or no object."""
        meta = self.params.get("_meta")
        return meta if isinstance(meta, dict) else {}

    @property
    def progress_token(self) -> str | int | None:
        """By which the client recognises reports of progress; None when it wants none."""
        token = self.meta.get("progressToken")
        return token if isinstance(token, str) or type(token) is int else None


def message_in(body: bytes) -> Message:
    """Read a body. Raises RpcError for what is no message, and for several at once, which no present version has."""
    try:
        value = load_json(body.decode())
    except (ValueError, RecursionError):  # of it or of the encoding
        raise RpcError(PARSE, "the body is not JSON") from None
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise RpcError(
            INVALID_REQUEST, 'the body is not one JSON-RPC message: expected an object with "jsonrpc": "2.0"'
        )
    if "method" not in value and ("result" in value or "error" in value):
        return Message("")  # an answer, although we ask nothing
    method, params = value.get("method"), value.get("params", {})
    if not isinstance(method, str) or not method:
        raise RpcError(INVALID_REQUEST, "method: expected a text")
    if not isinstance(params, dict):
        raise RpcError(INVALID_PARAMS, "params: expected an object")
    if "id" not in value:
        return Message(method, None, params)
    message_id = value["id"]
    if not isinstance(message_id, str) and type(message_id) is not int:  # a bool is no id
        raise RpcError(INVALID_REQUEST, "id: expected a text or an integer")
    return Message(method, message_id, params)


def is_stateless(request: web.Request, message: Message) -> bool:
    """Whether a request is of the generation without sessions."""
    version = request.headers.get(VERSION_HEADER)
    return version not in SESSIONS and (version is not None or VERSION_META in message.meta)


def stateless_version(request: web.Request, message: Message) -> str:
    """The version of a request without a session. Raises RpcError for what it lacks, and where header and body disagree."""
    meta = message.params.get("_meta")
    if not isinstance(meta, dict):
        raise RpcError(INVALID_PARAMS, f"params._meta: expected an object with {VERSION_META} and {CAPABILITIES_META}")
    for name in (VERSION_META, CAPABILITIES_META):
        if name not in meta:
            raise RpcError(INVALID_PARAMS, f"params._meta: it lacks {name}")
    if not isinstance(meta[CAPABILITIES_META], dict):
        raise RpcError(INVALID_PARAMS, f"params._meta: expected an object as {CAPABILITIES_META}")
    version = meta[VERSION_META]
    _check_header(request, VERSION_HEADER, version)
    _check_header(request, _METHOD_HEADER, message.method)
    if message.method == "tools/call" and isinstance(message.params.get("name"), str):
        _check_header(request, _NAME_HEADER, message.params["name"])
    if version not in STATELESS:
        data = {"supported": list(STATELESS), "requested": version}
        raise RpcError(UNSUPPORTED_VERSION, "unsupported protocol version", data)
    return str(version)


def _check_header(request: web.Request, name: str, expected: object) -> None:
    given = request.headers.getall(name, [])
    if len(given) != 1 or _decoded(given[0]) != expected:
        raise RpcError(HEADER_MISMATCH, f"header {name}: expected it once, and as in the body")


def _decoded(text: str) -> str | None:
    """The value of a header, which is in base64 where a header could not carry it; None when that is damaged."""
    match = _ENCODED.fullmatch(text)
    if match is None:
        return text
    try:
        return base64.b64decode(match["text"], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def param_headers(request: web.Request, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Compare the headers in which a client repeats arguments (`x-mcp-header` in a schema) with the arguments.

    Raises RpcError where one is missing, is there without its argument, or says something else.
    """
    for header, properties, value in _repeated(schema, arguments):
        given = request.headers.getall(f"{_PARAM_HEADER}{header}", [])
        shown = _shown(value)
        if shown is None and not given:
            continue
        decoded = _decoded(given[0]) if len(given) == 1 else None
        is_same = (
            decoded is not None
            and shown is not None
            and (decoded == shown or _is_same_integer(properties, decoded, shown))
        )
        if not is_same:
            raise RpcError(
                HEADER_MISMATCH, f"header Mcp-Param-{header}: expected it as the argument, or neither of both"
            )


def _repeated(
    schema: Mapping[str, Any], arguments: object, depth: int = 0
) -> list[tuple[str, Mapping[str, Any], object]]:
    if depth > _DEEPEST:  # nobody repeats what lies deeper
        return []
    found: list[tuple[str, Mapping[str, Any], object]] = []
    properties = schema.get("properties")
    for name, each in properties.items() if isinstance(properties, dict) else ():
        if not isinstance(each, dict):
            continue
        value = arguments.get(name) if isinstance(arguments, dict) else None
        header = each.get("x-mcp-header")
        if isinstance(header, str) and header:
            found.append((header, each, value))
        found += _repeated(each, value, depth + 1)
    return found


def _shown(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _is_same_integer(schema: Mapping[str, Any], given: str, shown: str) -> bool:
    if schema.get("type") != "integer" or not (_NUMBER.fullmatch(given) and _NUMBER.fullmatch(shown)):
        return False
    return given.partition(".")[0].lstrip("0") == shown.partition(".")[0].lstrip("0")


def result_message(message_id: str | int | None, result: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request."""
    return {"jsonrpc": "2.0", "id": message_id, "result": result}


def error_message(message_id: str | int | None, error: RpcError) -> dict[str, Any]:
    """The answer to a request that failed; without an id to one that could not be read."""
    body: dict[str, Any] = {"code": error.code, "message": str(error)}
    if error.data is not None:
        body["data"] = error.data
    return {"jsonrpc": "2.0", "id": message_id, "error": body}
