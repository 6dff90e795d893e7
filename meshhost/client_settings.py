"""The variables of the environment that a client needs: where the room server is, what it signs with, how it logs.

A command or a program that joins a room reads a dozen variables. `meshhost.settings.Settings` declares all of them, and those
of servers and hosts, as one pydantic model; to load pydantic and build that model takes longer than everything else that
`meshhost queue list` does. So this module reads the client's variables by itself, with nothing but the standard library, and
the model takes its rules (`clean`, `checked_url`, `checked_level`) from here. A test reads the same environments by both.

`read_client_settings` is for code that short commands run. Code that has a `Settings` passes it on where a `ClientValues` is
wanted: both have the same fields. Values are read when asked, never at import. Secrets are `SecretText`, which no `repr` shows.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from meshhost.errors import SettingsError

__all__ = [
    "DEFAULT_API_URL",
    "ClientSettings",
    "ClientValues",
    "MailValues",
    "SecretText",
    "checked_level",
    "checked_url",
    "clean",
    "read_client_settings",
    "read_mail_values",
]

DEFAULT_API_URL = "http://127.0.0.1:8080"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SECRETS = ("api_key", "operator_key", "secret", "token", "admin_key")
_NAMES = {"otel_endpoint": ("OTEL_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")}
_MAIL_NAMES = {"domain": ("MESHHOST_MAIL_DOMAIN", "MESHAGENT_MAIL_DOMAIN")}
_MAX_PORT = 65535


class SecretText:
    """A text that is only shown when it is asked for by `get_secret_value`, as pydantic's SecretStr."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """The text."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretText) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "SecretText('**********')"


class Secret(Protocol):
    """What has a text that is not shown."""

    def get_secret_value(self) -> str:
        """The text."""


class ClientValues(Protocol):
    """What `ClientSettings` and `meshhost.settings.Settings` both have, for functions that take either."""

    @property
    def api_url(self) -> str: ...
    @property
    def api_key(self) -> Secret | None: ...
    @property
    def operator_key(self) -> Secret | None: ...
    @property
    def token(self) -> Secret | None: ...
    @property
    def room(self) -> str | None: ...
    @property
    def config_dir(self) -> Path: ...
    @property
    def given(self) -> AbstractSet[str]:
        """The fields that the environment sets."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The client's part of the environment at one moment. The fields are those of `meshhost.settings.Settings`."""

    api_url: str = DEFAULT_API_URL
    api_key: SecretText | None = None
    operator_key: SecretText | None = None
    secret: SecretText | None = None
    token: SecretText | None = None
    room: str | None = None
    host_url: str | None = None
    port: int | None = None
    admin_key: SecretText | None = None
    config_dir: Path = field(default_factory=lambda: Path("~/.config/meshhost").expanduser())
    log_level: str = "INFO"
    log_format: str = "text"
    otel_endpoint: str | None = None
    given: frozenset[str] = field(default=frozenset())

    @property
    def log_level_number(self) -> int:
        """The level as the logging module counts it."""
        return logging.getLevelNamesMapping()[self.log_level.upper()]


_FIELDS = tuple(each.name for each in fields(ClientSettings) if each.name != "given")


def read_client_settings() -> ClientSettings:
    """Return the environment as it is now. Raises SettingsError that names the wrong variable and never shows its value."""
    # As pydantic-settings has it, case does not count.
    environment = {name.upper(): text for name, text in os.environ.items()}
    values: dict[str, Any] = {}
    for name in _FIELDS:
        variable, text = _find(environment, name)
        if text is None:
            continue
        try:
            values[name] = _read(name, clean(text))
        except ValueError as error:
            raise SettingsError(f"{variable}: {error}") from None
    values = {name: value for name, value in values.items() if value is not None}
    return ClientSettings(**values, given=frozenset(values))


@dataclass(frozen=True, slots=True)
class MailValues:
    """How an agent sends mail, as far as the environment says it. The fields are `mail_domain` and `smtp_…` of Settings."""

    domain: str | None = None
    hostname: str | None = None
    port: int | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    local_hostname: str | None = None


def read_mail_values() -> MailValues:
    """Return the environment as it is now. Raises SettingsError that names the wrong variable and never shows its value."""
    values: dict[str, Any] = {}
    for each in fields(MailValues):
        names = _MAIL_NAMES.get(each.name, (f"SMTP_{each.name.upper()}",))
        variable = next((name for name in names if os.environ.get(name)), None)
        if variable is None:
            continue
        try:
            text = clean(os.environ[variable])
            values[each.name] = _port(text) if text and each.name == "port" else text or None
        except ValueError as error:
            raise SettingsError(f"{variable}: {error}") from None
    return MailValues(**values)


def clean(text: str) -> str:
    """The text without the spaces and line ends around it. Raises ValueError when there are control characters inside.

    A secret made with echo, or a file with the line ends of Windows. Inside a value, a line end cannot be meant: in a key it
    would fail each request, long after the start.
    """
    text = text.strip()
    if _CONTROL.search(text):
        raise ValueError("contains a line end or another control character")
    return text


def checked_url(text: str) -> str:
    """The URL of a room server without slashes at its end. Raises ValueError when it is none."""
    if re.search(r"\s", text):
        raise ValueError("expected a URL without spaces, such as http://127.0.0.1:8080")
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in {"http", "https", "ws", "wss"} and parts.hostname and parts.port != 0
    except ValueError:  # of brackets or of the port; it shows them
        is_url = False
    if not is_url:
        raise ValueError("expected a URL such as http://127.0.0.1:8080")
    return text.rstrip("/")


def checked_level(text: str) -> str:
    """The name of a log level. Raises ValueError when it is none."""
    if text.upper() not in logging.getLevelNamesMapping():
        raise ValueError("expected DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return text


def _find(environment: Mapping[str, str], field_name: str) -> tuple[str, str | None]:
    """The variable that sets the field, and its text; an empty one counts as unset."""
    names = _NAMES.get(field_name, (f"MESHHOST_{field_name.upper()}", f"MESHAGENT_{field_name.upper()}"))
    return next(((name, environment[name]) for name in names if environment.get(name)), (names[0], None))


def _read(name: str, text: str) -> Any:
    """The value of a field; None for a text of spaces, which is as good as none."""
    if not text:
        return None
    if name in _SECRETS:
        return SecretText(text)
    match name:
        case "api_url":
            return checked_url(text)
        case "log_level":
            return checked_level(text)
        case "log_format" if text not in ("text", "json"):
            raise ValueError("expected text or json")
        case "config_dir":
            return Path(text).expanduser()
        case "port":
            return _port(text)
        case _:
            return text


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > len(str(_MAX_PORT)) or int(text) > _MAX_PORT:
        raise ValueError(f"expected a number from 0 to {_MAX_PORT}")
    return int(text)
