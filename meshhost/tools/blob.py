"""`Blob`, `BlobStorage` and `get_bytes_from_url`: bytes with a type, as MeshAgent's tools hand them on.

A URL is data (`data:…;base64,…`) or an address on the public internet, which is fetched within bounds (`fetch.py`): never one
of our own network, whatever a model or a participant asks for.
"""

import base64
import binascii
import uuid

from meshhost.errors import InvalidRequestError, LimitExceededError, NotFoundError
from meshhost.tools.fetch import fetch

__all__ = ["Blob", "BlobStorage", "get_bytes_from_url"]

MAX_BLOB_BYTES = 64 * 1024 * 1024
FETCH_SECONDS = 60.0


class Blob:
    """Bytes and their MIME type."""

    def __init__(self, *, mime_type: str, data: bytes) -> None:
        self._mime_type = mime_type
        self._data = data

    @property
    def mime_type(self) -> str:
        """The MIME type, without parameters."""
        return self._mime_type

    @property
    def data(self) -> bytes:
        """The bytes."""
        return self._data


class BlobStorage:
    """Keeps blobs in memory under URIs, up to `max_bytes` altogether."""

    def __init__(self, *, max_bytes: int = 4 * MAX_BLOB_BYTES) -> None:
        self._blobs: dict[str, Blob] = {}
        self._max_bytes = max_bytes

    def store(self, blob: Blob) -> str:
        """Keep a blob and return its URI. Raises LimitExceededError."""
        if sum(len(each.data) for each in self._blobs.values()) + len(blob.data) > self._max_bytes:
            raise LimitExceededError(f"blobs may have at most {self._max_bytes} bytes altogether: remove some")
        uri = f"blob://{uuid.uuid4()}"
        self._blobs[uri] = blob
        return uri

    def get(self, uri: str) -> Blob:
        """Return the blob. Raises NotFoundError."""
        if uri not in self._blobs:
            raise NotFoundError(f"no blob {uri!r}")
        return self._blobs[uri]

    def remove(self, uri: str) -> None:
        """Forget the blob. Raises NotFoundError."""
        self.get(uri)
        del self._blobs[uri]


async def get_bytes_from_url(*, url: str) -> Blob:
    """Return what a URL stands for: at most 64 MiB, within 60 s. Raises InvalidRequestError, and what `fetch` raises."""
    if url.startswith("data:"):
        return _of_data(url.removeprefix("data:"))
    file = await fetch(url, limit=MAX_BLOB_BYTES, timeout=FETCH_SECONDS)
    return Blob(mime_type=file.mime_type, data=file.data)


def _of_data(text: str) -> Blob:
    header, comma, encoded = text.partition(",")
    mime_type, _, parameters = header.partition(";")
    if not comma or not parameters.endswith("base64"):
        raise InvalidRequestError("url", "expected data in base64: data:TYPE;base64,…")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequestError("url", "the data is no base64") from None
    return Blob(mime_type=mime_type or "text/plain", data=data)
