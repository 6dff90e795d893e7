"""Chunks that clients of SDK 0.56 send to built-in tools: each is a content with headers, whose `kind` says what it is.

The models name the member that is wrong. Members that are not known are ignored, since newer clients may send more.
"""

from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from meshhost.errors import InvalidRequestError
from meshhost.protocol.messages import Header
from meshhost.server.core.requests import Body
from meshhost.validation import invalid_request

__all__ = ["Data", "DocumentStart", "DownloadStart", "Pull", "Sync", "UploadStart", "document_path", "read"]

B = TypeVar("B", bound=Body)


class UploadStart(Body):
    """The first chunk of an upload."""

    kind: Literal["start"]
    path: str = Field(max_length=4096)
    overwrite: bool = False
    size: int | None = Field(default=None, ge=0)


class Data(Body):
    """Bytes of an upload: the payload of the message."""

    kind: Literal["data"]


class DownloadStart(Body):
    """The first chunk of a download."""

    kind: Literal["start"]
    path: str = Field(max_length=4096)
    chunk_size: int | None = Field(default=None, ge=1)


class Pull(Body):
    """The client takes the next piece of a download."""

    kind: Literal["pull"]


class DocumentStart(Body):
    """The first chunk of a document."""

    kind: Literal["start"]
    path: str = Field(max_length=4096)
    create: bool = True
    document_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    schema_path: str | None = None
    initial_json: dict[str, Any] | None = None


class Sync(Body):
    """An update of a document: the payload of the message."""

    kind: Literal["sync"]


def read(kind: type[B], chunk: Header) -> B:
    """Return the headers of a chunk. Raises InvalidRequestError that names what is wrong."""
    headers = chunk.get("headers")
    if chunk.get("type") != "binary" or not isinstance(headers, dict):
        raise InvalidRequestError("chunk", "expected binary content with headers")
    try:
        return kind.model_validate(headers)
    except ValidationError as error:
        raise invalid_request(error, prefix="chunk.headers") from None


def document_path(path: str) -> str:
    """Return the path as these clients compare it. Raises InvalidRequestError for one that is empty."""
    while path.startswith(("/", "./")):
        path = path.removeprefix("./").removeprefix("/")
    if not path:
        raise InvalidRequestError("path", "expected the path of a document")
    return path
