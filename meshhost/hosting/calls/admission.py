"""Checks the body of a call: its shape, the room server that it names, and the token that it brings.

A call tells a host to dial a URL and to act with a token, so both are checked before anything starts: the URL must belong to
an allowed room server, the token must be a whole, unexpired token for exactly that room. Its signature is checked by the room
server that issued it. `http.routes` calls `parse_event` and `admit` after `guard` has checked who sent the bytes. No I/O.
"""

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from meshhost import tenant_names
from meshhost.errors import CallRefusedError, TokenError
from meshhost.hosting.agents.assignment import CallRequest
from meshhost.identity.tenant import TenantId
from meshhost.identity.tokens import ParticipantToken
from meshhost.validation import first_problem

__all__ = ["MAX_TOKEN_LENGTH", "AllowedRooms", "Event", "admit", "parse_event"]

MAX_TOKEN_LENGTH = 16 * 1024
"""Twice what the headers of a request can hold, with which the agent joins its room."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"ws": 80, "wss": 443}


class Event(BaseModel):
    """The body of a webhook."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    event: str
    data: dict[str, Any]


class _CallData(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    room_name: str = Field(min_length=1, max_length=256)
    room_url: str = Field(min_length=1, max_length=2048)
    token: str = Field(min_length=1, max_length=MAX_TOKEN_LENGTH, repr=False)
    arguments: Any = Field(default_factory=dict)
    tenant_name: str | None = None

    @field_validator("arguments")
    @classmethod
    def _is_object(cls, value: Any) -> Any:
        # The MeshAgent CLI sends its arguments as a JSON text on the local route (room-protocol §18.2).
        if value in (None, ""):
            return {}
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError("expected an object, or the JSON text of one") from None
        if not isinstance(value, dict):
            raise ValueError("expected an object")  # noqa: TRY004 - pydantic turns ValueError into its own error
        return value


class AllowedRooms:
    """The room servers that a host may dial, by base URL. `localhost` and `127.0.0.1` count as the same."""

    def __init__(self, base_urls: Iterable[str]) -> None:
        self._origins = {origin for url in base_urls if (origin := _origin(url)) is not None}

    def __repr__(self) -> str:
        return f"<AllowedRooms {sorted(self._origins)}>"

    def allow(self, room_url: str) -> bool:
        """Whether the room's URL belongs to an allowed server."""
        return _origin(room_url) in self._origins


def parse_event(body: bytes) -> Event:
    """Read a webhook's body. Raises CallRefusedError (400) naming the field."""
    try:
        return Event.model_validate_json(body)
    except ValidationError as error:
        raise _malformed(error, "") from None


def admit(data: Mapping[str, Any], allowed: AllowedRooms) -> CallRequest:
    """Check the data of a `room.call` and return the call. Raises CallRefusedError: 400 (malformed) or 403."""
    try:
        call = _CallData.model_validate(dict(data))
    except ValidationError as error:
        raise _malformed(error, "data.") from None
    if not allowed.allow(call.room_url):
        raise CallRefusedError(
            "data.room_url: this host may not dial that room server; see MESHHOST_ALLOWED_ROOM_URLS", status=403
        )
    # A room server takes a token in its URL before that of the headers: it would not be the one that is checked here.
    if any(name == "token" for name, _ in parse_qsl(urlsplit(call.room_url).query, keep_blank_values=True)):
        raise CallRefusedError("data.room_url: expected no token in it", status=403)
    token = _token(call.token)
    room = token.grant_scope("room")
    if room != call.room_name or unquote(urlsplit(call.room_url).path.rstrip("/").rpartition("/")[2]) != room:
        raise CallRefusedError("data.token: the token is for another room", status=403)
    if call.tenant_name is not None and token.project_id is not None:
        tenant_names.learn({token.project_id: call.tenant_name})
    expires_at = token.expires_at.timestamp() if token.expires_at is not None else None
    if expires_at is not None and expires_at <= time.time():
        raise CallRefusedError("data.token: the token has expired", status=403)
    return CallRequest(
        tenant=TenantId(token.project_id or "default"),
        room_name=call.room_name,
        room_url=call.room_url,
        token=call.token,
        identity=token.name,
        arguments=call.arguments,
        expires_at=expires_at,
    )


def _token(text: str) -> ParticipantToken:
    try:
        return ParticipantToken.from_jwt(text, validate=False)
    except TokenError:
        raise CallRefusedError("data.token: not a participant token", status=403) from None


def _origin(url: str) -> tuple[str, str, int] | None:
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return None
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    # A user name in a URL can disguise its host.
    if scheme not in _PORTS or not host or parts.username is not None or parts.password is not None:
        return None
    return scheme, "localhost" if host in _LOOPBACK else host, port or _PORTS[scheme]


def _malformed(error: ValidationError, prefix: str) -> CallRefusedError:
    field_name, message = first_problem(error)
    where = f"{prefix}{field_name}".rstrip(".") or "body"
    return CallRefusedError(f"{where}: {message}", status=400)
