"""Encrypts what must not be readable in a database or a backup: AES-256-GCM, with keys that the operator keeps elsewhere.

A `Sealer` has one or several keys, each with an id. The first one encrypts, all of them decrypt; what is sealed names its
key. So a key is rotated by putting a new one in front of the old ones, and the old one goes when nothing is sealed with it
any more (`Secrets.renew` and `Webhooks.renew` see to that at each start). The sealed text is bound to where it belongs
(`place`): moved to another tenant or another secret, it cannot be opened.

The keys are read when they are first needed, so that a server whose tenants have no secrets needs none. `cryptography` is
imported then, too.
"""

import base64
import binascii
import json
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshhost.errors import SecretsLockedError, SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["Sealer", "SealingKey", "new_key_line", "read_keys"]

_KEY_BYTES = 32
_NONCE_BYTES = 12
_LINE = re.compile(r"([A-Za-z0-9_.-]{1,32}):([A-Za-z0-9+/_-]{43}=?)")
_FORM = "expected lines such as k1:BASE64, with 32 bytes in base64, the key that encrypts first"


@dataclass(frozen=True, slots=True)
class SealingKey:
    """A key of 32 bytes and the id that sealed texts name it by."""

    id: str
    secret: bytes = field(repr=False)


def read_keys(text: str, *, source: str) -> Sequence[SealingKey]:
    """Return the keys in a text: one a line or between commas, as `id:base64`. Raises SettingsError, which names `source`."""
    keys: list[SealingKey] = []
    for line in re.split(r"[\s,]+", text.strip()):
        found = _LINE.fullmatch(line)
        if found is None:
            raise SettingsError(f"{source}: {_FORM}")
        try:
            secret = base64.b64decode(found[2].replace("-", "+").replace("_", "/").rstrip("=") + "=", validate=True)
        except binascii.Error:
            raise SettingsError(f"{source}: {_FORM}") from None
        if len(secret) != _KEY_BYTES or any(key.id == found[1] for key in keys):
            raise SettingsError(f"{source}: {_FORM}, and each id once")
        keys.append(SealingKey(found[1], secret))
    return keys


def new_key_line(key_id: str) -> str:
    """Return a new random key as a line of a key file."""
    return f"{key_id}:{base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()}"


class Sealer:
    """Seals and opens texts. `keys` returns the keys, the one that seals first; it may raise SettingsError."""

    def __init__(self, keys: Callable[[], Sequence[SealingKey]]) -> None:
        self._read = keys
        self._known: Sequence[SealingKey] = ()

    @property
    def key_id(self) -> str:
        """The id of the key that seals. Raises SecretsLockedError."""
        return self._keys()[0].id

    def seal(self, text: str, *, place: str) -> str:
        """Return the text encrypted, as JSON text. Raises SecretsLockedError when there is no key."""
        key = self._keys()[0]
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = _cipher(key).encrypt(nonce, text.encode(), place.encode())
        return json.dumps({"key": key.id, "sealed": base64.b64encode(nonce + sealed).decode()})

    def open(self, sealed: str, *, place: str) -> str:
        """Return what was sealed for this place. Raises SecretsLockedError, which says which key is missing or wrong."""
        from cryptography.exceptions import InvalidTag

        key_id, content = _parts(sealed)
        key = next((key for key in self._keys() if key.id == key_id), None)
        if key is None:
            raise SecretsLockedError(f"its key {key_id!r} is not among the keys of this server")
        try:
            return _cipher(key).decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], place.encode()).decode()
        except (InvalidTag, ValueError):
            raise SecretsLockedError(
                f"the key {key_id!r} of this server is not the one it was encrypted with"
            ) from None

    def is_current(self, sealed: str) -> bool:
        """Whether the text is sealed with the key that seals now. Raises SecretsLockedError."""
        return _parts(sealed)[0] == self.key_id

    def _keys(self) -> Sequence[SealingKey]:
        if not self._known:
            try:
                import cryptography  # noqa: F401

                self._known = self._read()
            except ImportError:
                raise SecretsLockedError("a library is missing: pip install 'meshhost[secrets]'") from None
            except SettingsError as error:
                raise SecretsLockedError(str(error)) from None
        return self._known


def _parts(sealed: str) -> tuple[str, bytes]:
    try:
        found = json.loads(sealed)
        return str(found["key"]), base64.b64decode(found["sealed"], validate=True)
    except (ValueError, KeyError, TypeError):
        raise SecretsLockedError("it is damaged in the database") from None


def _cipher(key: SealingKey) -> "AESGCM":
    from cryptography.hazmat.primitives.ciphers import aead

    return aead.AESGCM(key.secret)
