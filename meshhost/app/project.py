"""The local project: where the user's room server is, and the key to it.

`meshhost setup` writes it to `project.json` in the configuration directory; every other command, and a room server run by the
same user, reads it. Variables of the environment win over the file. The file is readable by its owner only and is replaced
atomically, so that a crash never leaves half of it.
"""

import json
import os
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from meshhost.client_settings import ClientValues, SecretText, read_client_settings
from meshhost.clock import Clock, SystemClock
from meshhost.errors import InvalidApiKeyError, SettingsError
from meshhost.identity.keys import ApiKey, encode_api_key, new_api_key, parse_api_key

__all__ = [
    "Project",
    "RecentKeys",
    "api_key_of",
    "api_url_of",
    "known_keys",
    "read_project",
    "set_up_project",
    "use_key",
]


@dataclass(frozen=True, slots=True)
class Project:
    """The content of `project.json`: the URL of the room server, the id of the project, and its API key."""

    api_url: str
    project_id: str
    api_key: SecretText


def read_project(config_dir: Path) -> Project | None:
    """Return the stored project; None when there is none. Raises SettingsError when the file cannot be read."""
    path = _path(config_dir)
    try:
        content = json.loads(path.read_text())
        values = [content[name] for name in ("api_url", "project_id", "api_key")]
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        values = [None]
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    if not all(isinstance(value, str) for value in values):
        raise SettingsError(f"{path} is damaged: delete it and run `meshhost setup`")
    api_url, project_id, api_key = values
    return Project(api_url, project_id, SecretText(api_key))


def set_up_project(settings: ClientValues) -> tuple[Project, bool]:
    """Return the stored project, made when there is none, and whether it was written now.

    A key in the environment is stored, so that this machine acts for that project from now on. Raises SettingsError.
    """
    present = read_project(settings.config_dir)
    given = settings.api_key.get_secret_value() if settings.api_key is not None else None
    if given is not None:
        key = parse_api_key(given)
    elif present is not None:
        return present, False
    else:
        key = new_api_key(str(uuid.uuid4()))
    project = Project(api_url=settings.api_url, project_id=key.project_id, api_key=SecretText(encode_api_key(key)))
    if project == present:
        return project, False
    _write(_path(settings.config_dir), project)
    return project, True


def use_key(settings: ClientValues, text: str) -> None:
    """Store an API key in the project file, for the commands of this user. Raises InvalidApiKeyError, SettingsError."""
    key = parse_api_key(text)
    _write(_path(settings.config_dir), Project(api_url_of(settings), key.project_id, SecretText(text)))


def api_key_of(settings: ClientValues) -> str:
    """Return the API key to use: the environment's, else the stored project's. Raises SettingsError when there is none."""
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    project = read_project(settings.config_dir)
    if project is None:
        raise SettingsError("no API key: run `meshhost setup`, or set MESHHOST_API_KEY")
    return project.api_key.get_secret_value()


def api_url_of(settings: ClientValues) -> str:
    """Return the room server's URL: the environment's, else the stored project's, else the default. Raises SettingsError."""
    if "api_url" in settings.given:
        return settings.api_url
    project = read_project(settings.config_dir)
    return settings.api_url if project is None else project.api_url.rstrip("/")


def known_keys(settings: ClientValues) -> list[ApiKey]:
    """Return the keys that a room server of this user accepts beside its stored ones: the environment's and the project's.

    Raises SettingsError when one of them is invalid.
    """
    texts = [settings.api_key.get_secret_value()] if settings.api_key is not None else []
    project = read_project(settings.config_dir)
    if project is not None:
        texts.append(project.api_key.get_secret_value())
    keys = {}
    for text in texts:
        try:
            key = parse_api_key(text)
        except InvalidApiKeyError as error:
            raise SettingsError(f"MESHHOST_API_KEY or the stored project: {error}") from None
        keys[key.id] = key
    return list(keys.values())


class RecentKeys:
    """`known_keys` of the environment as it is, read again when `project.json` changed and every `seconds`.

    A room server asks for them at each token with an unknown key. Reading settings and files takes milliseconds, a look at the
    file's time microseconds; without this, tokens that anybody can make up would hold the server's event loop.
    """

    def __init__(self, *, seconds: float = 1.0, clock: Clock | None = None) -> None:
        self._seconds = seconds
        self._clock = clock or SystemClock()
        self._keys: list[ApiKey] = []
        self._path: Path | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._read_at = float("-inf")

    def __call__(self) -> list[ApiKey]:
        """The keys. Raises SettingsError as `known_keys` does."""
        now = self._clock.monotonic()
        if now - self._read_at >= self._seconds or self._path is None or _stamp(self._path) != self._stamp:
            settings = read_client_settings()
            # The stamp comes first: a file that is replaced meanwhile is read again the next time.
            self._path = _path(settings.config_dir)
            self._stamp = _stamp(self._path)
            self._keys = known_keys(settings)
            self._read_at = now
        return self._keys


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _path(config_dir: Path) -> Path:
    return config_dir / "project.json"


def _write(path: Path, project: Project) -> None:
    content = {
        "api_url": project.api_url,
        "project_id": project.project_id,
        "api_key": project.api_key.get_secret_value(),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Written to another file and renamed, so that a crash or a full disk leaves the old one. mkstemp makes it 0600.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".project-")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(content, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from None
