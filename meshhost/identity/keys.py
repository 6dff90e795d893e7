"""API keys and their text form, `ma-<key id>-<project id>-<secret>` (room-protocol §7.3).

The text is what users copy into MESHHOST_API_KEY; it contains the secret, so no error or `repr` here shows it. Which keys are
valid is the identity store's knowledge (`meshhost.stores.identity_service`).
"""

import base64
import secrets
import uuid
from dataclasses import dataclass, field

from meshhost.errors import InvalidApiKeyError

__all__ = ["ApiKey", "encode_api_key", "new_api_key", "parse_api_key"]

_PREFIX = "ma-"
_ID_LENGTH = 22


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key's id, the project (tenant) it belongs to, and the secret that signs tokens. Ids are UUID text."""

    id: str
    project_id: str
    secret: str = field(repr=False)


def new_api_key(project_id: str) -> ApiKey:
    """Return a new key of this project. The secret has 256 random bits and no `-`."""
    return ApiKey(id=str(uuid.uuid4()), project_id=project_id, secret=secrets.token_hex(32))


def encode_api_key(key: ApiKey) -> str:
    """Return the key as one text, which contains the secret."""
    return f"{_PREFIX}{_encode_uuid(key.id)}-{_encode_uuid(key.project_id)}-{key.secret}"


def parse_api_key(key: str) -> ApiKey:
    """Read the text form. The secret may contain `-`. Raises InvalidApiKeyError, which never shows the text."""
    parts = key.removeprefix(_PREFIX).split("-", 2)
    if not key.startswith(_PREFIX) or len(parts) != 3 or not parts[2]:
        raise InvalidApiKeyError("not an API key: expected ma-<key id>-<project id>-<secret>")
    return ApiKey(id=_decode_uuid(parts[0]), project_id=_decode_uuid(parts[1]), secret=parts[2])


def _encode_uuid(text: str) -> str:
    encoded = base64.urlsafe_b64encode(uuid.UUID(text).bytes).decode()
    return encoded.rstrip("=").replace("-", ".")


def _decode_uuid(text: str) -> str:
    if len(text) != _ID_LENGTH:
        raise InvalidApiKeyError(f"not an API key: an id in it is not {_ID_LENGTH} characters long")
    try:
        raw = base64.b64decode(text.replace(".", "-") + "==", altchars=b"-_", validate=True)
        return str(uuid.UUID(bytes=raw))
    except ValueError:  # of either step; binascii.Error is one
        raise InvalidApiKeyError("not an API key: an id in it is malformed") from None
