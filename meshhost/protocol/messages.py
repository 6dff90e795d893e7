"""Packs header and payload into a message, and reads and writes the bodies of replies (room-protocol §3 and §5).

A message is a JSON header and bytes. Replies have a typed body: JSON, text, file, link, error, empty or raw outputs; the
classes here are the ones that tools return in the MeshAgent API, so their fields are public. Reading is strict about what
the code relies on and tolerant of members that a newer peer may add. Pure: no I/O.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from meshhost.errors import InvalidRequestError, RoomError, TooLargeError
from meshhost.protocol.json_values import dump_json, has_few_parts, load_header

__all__ = [
    "META",
    "EmptyResponse",
    "EncodedJson",
    "ErrorResponse",
    "FileResponse",
    "Header",
    "JsonResponse",
    "LinkResponse",
    "RawOutputs",
    "Response",
    "TextResponse",
    "Usage",
    "ensure_response",
    "header_too_large",
    "pack_body",
    "pack_header",
    "pack_message",
    "pack_response",
    "unpack_message",
    "unpack_response",
    "wire_safe",
]

Header: TypeAlias = dict[str, Any]
Usage: TypeAlias = Mapping[str, float] | None

# A header up to this length is read in a few milliseconds, whatever it is; of a longer one the parts are counted.
_QUICK_BYTES = 64 * 1024
_MOST_PARTS = 200_000
_LENGTH = struct.Struct(">Q")
# Carries SDK version and trace context in every header of a Python client; stripped before use.
META = "__meshagent__"


def pack_message(header: Header, data: bytes | None = None) -> bytes:
    """Return 8 bytes of header length, the header as JSON, and the payload. Raises as `pack_header`."""
    return pack_header(header) + (data or b"")


def pack_header(header: Header) -> bytes:
    """Return 8 bytes of header length, and the header as JSON: what precedes the payload in a message.

    Values that JSON does not know become texts. Raises InvalidRequestError for NaN and Infinity, which readers in other
    languages refuse.
    """
    encoded = dump_json(header, other_as_text=True).encode()
    return _LENGTH.pack(len(encoded)) + encoded


def unpack_message(data: bytes, *, max_header_bytes: int | None = None) -> tuple[Header, bytes]:
    """Return header and payload.

    Raises InvalidRequestError when the header is not a JSON object of the stated length, TooLargeError when it is longer
    than `max_header_bytes`; it is not read then.
    """
    if len(data) < _LENGTH.size:
        raise InvalidRequestError("message", "expected a header: 8 bytes of length, then a JSON object")
    (length,) = _LENGTH.unpack_from(data)
    if length > len(data) - _LENGTH.size:
        raise InvalidRequestError("message", "the header is longer than the message")
    if max_header_bytes is not None and length > max_header_bytes:
        raise header_too_large(length, max_header_bytes)
    end = _LENGTH.size + length
    text = data[_LENGTH.size : end]
    if max_header_bytes is not None and length > _QUICK_BYTES and not has_few_parts(text, most=_MOST_PARTS):
        raise TooLargeError(f"header of over {_MOST_PARTS} parts: send less at once, or send it as bytes or as a file")
    try:
        header = load_header(text)
    except (ValueError, RecursionError):
        raise InvalidRequestError("message", "the header is not JSON") from None
    if not isinstance(header, dict):
        raise InvalidRequestError("message", "the header is not a JSON object")
    return header, data[end:]


def header_too_large(size: int, limit: int | None) -> TooLargeError:
    """Return the error for a message whose header is too large."""
    return TooLargeError(f"header of {size} bytes, at most {limit}: send what is large as bytes, or as a file")


@dataclass(frozen=True, slots=True)
class JsonResponse:
    """Any JSON value."""

    json: Any
    usage: Usage = None
    type: ClassVar[str] = "json"

    def __getitem__(self, name: str) -> Any:
        return self.json[name]

    def to_json(self) -> Header:
        """Return the wire header."""
        return {"type": self.type, "json": self.json, "usage": self.usage}


@dataclass(frozen=True, slots=True)
class EncodedJson(JsonResponse):
    """A JSON value that its maker has encoded already as `text`, in steps: encoding a large one cannot be interrupted."""

    json: Any = None
    text: str = "null"

    def to_json(self) -> Header:
        """Return the wire header, without the value."""
        return {"type": self.type, "usage": self.usage}


@dataclass(frozen=True, slots=True)
class TextResponse:
    """A text."""

    text: str
    usage: Usage = None
    type: ClassVar[str] = "text"

    def to_json(self) -> Header:
        """Return the wire header."""
        return {"type": self.type, "text": self.text, "usage": self.usage}


@dataclass(frozen=True, slots=True)
class FileResponse:
    """A file: bytes, name and MIME type."""

    data: bytes
    name: str
    mime_type: str
    usage: Usage = None
    type: ClassVar[str] = "file"

    def to_json(self) -> Header:
        """Return the wire header; the bytes travel as payload."""
        return {
            "type": self.type,
            "name": self.name,
            "mime_type": self.mime_type,
            "usage": self.usage,
        }


@dataclass(frozen=True, slots=True)
class LinkResponse:
    """An address where something can be fetched."""

    name: str
    url: str
    usage: Usage = None
    type: ClassVar[str] = "link"

    def to_json(self) -> Header:
        """Return the wire header."""
        return {"type": self.type, "name": self.name, "url": self.url, "usage": self.usage}


@dataclass(frozen=True, slots=True)
class EmptyResponse:
    """Success without a value."""

    usage: Usage = None
    type: ClassVar[str] = "empty"

    def to_json(self) -> Header:
        """Return the wire header."""
        return {"type": self.type, "usage": self.usage}


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """The request failed. `code` is an error number that clients older than meshhost ignore."""

    text: str
    code: int | None = None
    usage: Usage = None
    type: ClassVar[str] = "error"

    def to_json(self) -> Header:
        """Return the wire header."""
        header: Header = {"type": self.type, "text": self.text, "usage": self.usage}
        return header if self.code is None else header | {"code": self.code}


@dataclass(frozen=True, slots=True)
class RawOutputs:
    """A list of model outputs. A 0.6 client cannot read it as a reply: `wire_safe` turns it into JSON."""

    outputs: list[Any]
    usage: Usage = None
    type: ClassVar[str] = "raw"

    def to_json(self) -> Header:
        """Return the wire header."""
        return {"type": self.type, "outputs": self.outputs, "usage": self.usage}


Response: TypeAlias = (
    JsonResponse | TextResponse | FileResponse | LinkResponse | EmptyResponse | ErrorResponse | RawOutputs
)

# Members that must be there, with their types, per body type. `object` takes any value.
_MEMBERS: dict[str, tuple[type[Any], dict[str, type]]] = {
    "json": (JsonResponse, {"json": object}),
    "text": (TextResponse, {"text": str}),
    "file": (FileResponse, {"name": str, "mime_type": str}),
    "link": (LinkResponse, {"name": str, "url": str}),
    "empty": (EmptyResponse, {}),
    "error": (ErrorResponse, {"text": str}),
    "raw": (RawOutputs, {"outputs": list}),
}


def pack_response(response: Response, extra: Header | None = None) -> bytes:
    """Return the body as message bytes. `extra` members are added to the header; old clients ignore them."""
    header, payload = pack_body(response, extra)
    return header + payload


def pack_body(response: Response, extra: Header | None = None) -> tuple[bytes, bytes]:
    """Return the body as `pack_response` does, header and payload apart."""
    header = response.to_json() | (extra or {})
    if isinstance(response, EncodedJson):
        encoded = f'{{"json": {response.text}, {dump_json(header, other_as_text=True)[1:]}'.encode()
        return _LENGTH.pack(len(encoded)) + encoded, b""
    return pack_header(header), response.data if isinstance(response, FileResponse) else b""


def unpack_response(header: Header, payload: bytes) -> Response:
    """Read a body. Unknown members are ignored. Raises InvalidRequestError naming what is wrong."""
    cls, members = _MEMBERS.get(_body_type(header), (None, {}))
    if cls is None:
        raise InvalidRequestError("type", f"expected one of {', '.join(_MEMBERS)}")
    arguments: dict[str, Any] = {}
    for name, kind in members.items():
        if name not in header or not isinstance(header[name], kind):
            raise InvalidRequestError(name, f"a {header['type']} body needs this member")
        arguments[name] = header[name]
    if cls is FileResponse:
        arguments["data"] = payload
    if cls is ErrorResponse and type(header.get("code")) is int:  # and not a bool
        arguments["code"] = header["code"]
    usage = header.get("usage")
    result: Response = cls(**arguments, usage=usage if isinstance(usage, dict) else None)
    return result


def _body_type(header: Header) -> str:
    kind = header.get("type")
    return kind if isinstance(kind, str) else ""


def ensure_response(value: Any) -> Response:
    """Return what a tool returned as a body: None is empty, a text is text, a dict is JSON, a body is itself.

    Raises RoomError for anything else.
    """
    match value:
        case None:
            return EmptyResponse()
        case str():
            return TextResponse(text=value)
        case dict():
            return JsonResponse(json=value)
        case (
            JsonResponse()
            | TextResponse()
            | FileResponse()
            | LinkResponse()
            | EmptyResponse()
            | ErrorResponse()
            | RawOutputs()
        ):
            return value
        case _:
            raise RoomError(f"a tool must return a response, a text, a dict or None, not {type(value).__name__}")


def wire_safe(response: Response) -> Response:
    """Return the body in a type that every client can read (room-protocol §5: `raw` hangs a 0.6 client)."""
    if isinstance(response, RawOutputs):
        return JsonResponse(json={"outputs": response.outputs}, usage=response.usage)
    return response
