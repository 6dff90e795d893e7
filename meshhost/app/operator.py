"""The operator's key: who may manage the tenants of a room server.

It is no API key: it belongs to no tenant and opens no room. MESHHOST_OPERATOR_KEY wins; else it is in `operator.key` of the
configuration directory, readable by its owner only. `meshhost room serve` writes the file when it first starts, so that
commands of the same user find it. On another machine the variable is set.
`meshhost room serve` makes the key, the commands `meshhost tenant` and `meshhost key` find it. It is never logged.
"""

import contextlib
import os
import secrets
from pathlib import Path

from meshhost.client_settings import ClientValues
from meshhost.errors import SettingsError

__all__ = ["find_operator_key", "make_operator_key", "operator_key_path"]

_MIN_LENGTH = 16
_PREFIX = "mo-"


def operator_key_path(settings: ClientValues) -> Path:
    """The file of the operator's key."""
    return settings.config_dir / "operator.key"


def find_operator_key(settings: ClientValues) -> str | None:
    """The operator's key of the environment, else of the file; None when there is none. Raises SettingsError."""
    path = operator_key_path(settings)
    if settings.operator_key is not None:
        return _checked(settings.operator_key.get_secret_value(), "MESHHOST_OPERATOR_KEY")
    try:
        return _checked(path.read_text(), str(path))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is damaged: delete it and start the room server again") from None
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None


def make_operator_key(settings: ClientValues) -> str:
    """The operator's key, made and written when there is none. Raises SettingsError when it cannot be written."""
    present = find_operator_key(settings)
    if present is not None:
        return present
    path = operator_key_path(settings)
    key = _PREFIX + secrets.token_hex(32)
    temporary = path.with_name(f".operator-{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{key}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link and not a rename: of two servers that start at once, the second takes the key of the first.
            os.link(temporary, path)
        except FileExistsError:
            key = _checked(path.read_text(), str(path))
    except OSError as error:
        raise SettingsError(
            f"cannot write {path}: {error.strerror}; set MESHHOST_OPERATOR_KEY to manage tenants"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return key


def _checked(text: str, source: str) -> str:
    key = text.strip()
    if len(key) < _MIN_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(f"{source}: expected at least {_MIN_LENGTH} printable ASCII characters without spaces")
    if key.startswith("ma-"):
        raise SettingsError(f"{source}: expected a key of its own, not an API key of a tenant")
    return key
