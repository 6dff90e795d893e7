"""The keys that encrypt the secrets of tenants: from the environment, else from a file.

MESHHOST_SECRETS_KEY wins, then the file of MESHHOST_SECRETS_KEY_FILE, then `secrets.key` of the configuration directory,
which lies apart from the data and its backups. That file is made when the first secret is stored, by a server over SQLite only:
servers that share a database must have the same key, so their operator gives it to them. It is read when it is first needed.
"""

import contextlib
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from meshhost.errors import SettingsError
from meshhost.server.configured.sealing import SealingKey, new_key_line, read_keys

__all__ = ["sealing_keys"]

_VARIABLE = "MESHHOST_SECRETS_KEY"


def sealing_keys(given: str | None, file: Path | None, *, own: Path | None) -> Callable[[], Sequence[SealingKey]]:
    """Return what reads the keys: `given` ones, those in `file`, or those in the file `own`, which is made if it is not there.

    None of these is a variable that is not set, or a server that must not make a key. What is returned raises SettingsError.
    """

    def keys() -> Sequence[SealingKey]:
        if given is not None:
            return read_keys(given, source=_VARIABLE)
        path = file or own
        if path is None:
            raise SettingsError(_how_to("the file of MESHHOST_SECRETS_KEY_FILE"))
        try:
            return read_keys(path.read_text(), source=str(path))
        except FileNotFoundError:
            if path is not own:
                raise SettingsError(_how_to(path)) from None
        except (OSError, UnicodeDecodeError):
            raise SettingsError(f"cannot read {path}") from None
        return read_keys(_made(path), source=str(path))

    return keys


def _how_to(path: Path | str) -> str:
    return (
        f"there is no key to encrypt secrets with: set {_VARIABLE} to id:base64 with 32 random bytes "
        f"(echo k1:$(openssl rand -base64 32)), the same on each server, or write it to {path}"
    )


def _made(path: Path) -> str:
    """Write a new key, and return the text of the file: that of another server which was faster."""
    temporary = path.with_name(f".secrets-{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{new_key_line('k1')}\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        return path.read_text()
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}; set {_VARIABLE}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
