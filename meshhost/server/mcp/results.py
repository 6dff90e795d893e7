"""Answers of tools and agents as the results of `tools/call`.

A text is text content; a JSON value is its text, and an object also structured content; a file is an image, a sound or an
embedded resource; a link is a resource link. An error of the tool is a result with `isError`, which the model reads, not an
error of the protocol. A result over MAX_RESULT_BYTES becomes such an error: a model could not read it either.
"""

import base64
import json
from typing import Any
from urllib.parse import quote

from meshhost.protocol.messages import (
    EmptyResponse,
    ErrorResponse,
    FileResponse,
    JsonResponse,
    LinkResponse,
    RawOutputs,
    Response,
    TextResponse,
)

__all__ = ["MAX_RESULT_BYTES", "failed", "result_of"]

MAX_RESULT_BYTES = 4 * 1024 * 1024
# The first version with structured content and resource links.
_STRUCTURED_SINCE = "2025-06-18"


def result_of(response: Response, version: str) -> dict[str, Any]:
    """The result for a client of this version of the protocol."""
    match response:
        case ErrorResponse():
            return failed(response.text)
        case EmptyResponse():
            return {"content": []}
        case TextResponse():
            return _text(response.text)
        case LinkResponse():
            return {"content": [_link(response, version)]}
        case FileResponse():
            return _too_large(len(response.data)) or {"content": [_file(response)]}
        case RawOutputs():
            return _json(response.outputs, version)
        case JsonResponse():
            return _json(response.json, version)


def failed(text: str) -> dict[str, Any]:
    """The result of a call that failed, for the model to read."""
    return {"content": [{"type": "text", "text": text}], "isError": True}


def _text(text: str) -> dict[str, Any]:
    return _too_large(len(text)) or {"content": [{"type": "text", "text": text}]}


def _json(value: Any, version: str) -> dict[str, Any]:
    result = _text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    if isinstance(value, dict) and "isError" not in result and version >= _STRUCTURED_SINCE:
        result["structuredContent"] = value
    return result


def _link(link: LinkResponse, version: str) -> dict[str, Any]:
    if version < _STRUCTURED_SINCE:
        return {"type": "text", "text": f"{link.name}: {link.url}"}
    return {"type": "resource_link", "name": link.name, "uri": link.url}


def _file(file: FileResponse) -> dict[str, Any]:
    kind = file.mime_type.partition("/")[0]
    if kind in {"image", "audio"}:
        return {"type": kind, "data": base64.b64encode(file.data).decode(), "mimeType": file.mime_type}
    resource: dict[str, Any] = {"uri": f"urn:meshhost:file:{quote(file.name)}", "mimeType": file.mime_type}
    try:
        resource["text"] = file.data.decode()
    except UnicodeDecodeError:
        resource["blob"] = base64.b64encode(file.data).decode()
    return {"type": "resource", "resource": resource}


def _too_large(size: int) -> dict[str, Any] | None:
    if size <= MAX_RESULT_BYTES:
        return None
    return failed(
        f"the result is too large: {size} of at most {MAX_RESULT_BYTES} bytes. "
        "Have the tool save it as a file of the room and return a link"
    )
